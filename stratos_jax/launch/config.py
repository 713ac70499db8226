"""Where a run takes place; read by `launch` and `plan`. Imports no jax."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """The chips that a recipe was written for, and the scores to expect of it."""

    topology: str = ""  # as `stratos plan --topology` takes it, e.g. v5p:4x4x4; empty: this machine
    num_slices: int = 1
    expected_rows: int | None = None  # of the shards, for a plan made before they exist
    bucket: str = ""  # gs://BUCKET/PATH; `stratos run` copies the output of each complete stage there
