"""Which platform a computation will run on."""

import jax


def target_platform() -> str:
    """Where this computation will run: the mesh knows when it is compiled ahead of time for other devices."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
