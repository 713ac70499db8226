"""How good the student is while it trains: its loss on rows that are held out, and its answers to a few problems.

In: the state of the moment. Out: numbers for the metrics. Training is not changed by either.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh.hosts import Hosts
from stratos_jax.model.config import Architecture, ModelConfig
from stratos_jax.model.params import num_params
from stratos_jax.shards.loader import Loader
from stratos_jax.train import lora
from stratos_jax.train.config import LoraConfig
from stratos_jax.train.feed import place
from stratos_jax.train.metrics import Record
from stratos_jax.train.state import State
from stratos_jax.train.step import Step
from stratos_jax.types import UserError

Sampler = Callable[[Any, Architecture], Record]  # (parameters on one device, architecture) -> numbers
SAMPLING_SHARE = 0.25  # of a device's memory that weights for samples may take
SAMPLING_BYTES = 4 << 30  # where a device does not tell its memory


def held_out_loss(held_out: Loader, step: Step, state: State) -> Record:
    """Mean token loss over the rows that are not trained on."""
    total = weight = ended = 0.0
    for index in range(held_out.num_steps):
        batch = place(held_out, index, step.batch_shardings)
        found = {name: float(value) for name, value in step.evaluate(state, batch).items()}
        total += found["loss"] * found["weight"]
        ended += found["end_probability"] * found["weight"]
        weight += found["weight"]
    return {"held_out_loss": total / weight, "held_out_end_probability": ended / weight}


def make_gather(config: LoraConfig | None, dtype: str, mesh: Mesh) -> Callable[[State], Any]:
    """A function that gives the network as it would be exported, whole on every device, in the compute format."""

    def network(state: State) -> Any:
        merged = state["params"] if config is None else lora.merge(state["base"], state["params"], config)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), merged)

    return jax.jit(network, out_shardings=NamedSharding(mesh, P()))


def answers(whole: Any, arch: Architecture, sample: Sampler, hosts: Hosts, seconds: float) -> Record:
    """What the student makes of a few problems: the primary host samples on one device while the others wait."""
    result: Record = {}
    if hosts.is_primary:
        result = sample(jax.tree.map(lambda leaf: leaf.addressable_data(0), whole), arch)
    hosts.barrier("sampled", seconds)
    return result


def check_room(arch: Architecture, model: ModelConfig) -> None:
    """Samples while training need the whole network on one device, beside its part of the training state."""
    needed = num_params(arch) * jnp.dtype(model.compute_dtype).itemsize
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    room = SAMPLING_SHARE * limit if limit else SAMPLING_BYTES
    if needed > room:
        raise UserError(
            "the student is too large to be sampled while it trains",
            where="train.sample_every_steps",
            got=f"{needed / 2**30:.1f} GiB of weights",
            wanted=f"at most {room / 2**30:.1f} GiB on one device",
            do="leave it out, and give checkpoints to `stratos convert` and `stratos evaluate` on another machine",
        )
