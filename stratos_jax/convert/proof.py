"""Logits of a checkpoint under our network, held against those of its HF folder under another implementation.

In: a step's leaves, an HF folder. Out: how far the two are apart, for the report; an error where it is too far. Prompts
are long enough (512 tokens) for a wrong rotary table to show. Both sides compute in float32 from the same numbers; the
other side is `transformers` where it is installed, else `numpy_forward`.
One layer is in memory at a time, on either side, and the head is gone through in runs of rows.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stratos_jax.convert import numpy_forward, torch_forward
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.folder import HfFolder
from stratos_jax.model.config import Architecture
from stratos_jax.types import Json, UserError

HEAD_BYTES = 256 << 20  # of a run of the head's rows, in float32
SEED = 20_250_122
Rows = tuple[int, int]
ReadLeaf = Callable[[tuple[str, ...], Any], np.ndarray]  # path in the parameter tree, index (None: all) -> numbers


def compare_logits(read: ReadLeaf, folder: HfFolder, config: ConvertConfig) -> dict[str, Json]:
    """Run prompts through both sides; raises where they disagree."""
    if not config.proof_prompts:
        return {"prompts": 0}
    arch = folder.arch
    length = min(config.proof_tokens, arch.max_positions)
    rng = np.random.default_rng(SEED)
    tokens_BT = rng.integers(0, arch.vocab_size, (config.proof_prompts, length))
    reference = torch_forward if torch_forward.installed() else numpy_forward
    embed = folder.tensors["model.embed_tokens.weight"]
    their_head = folder.tensors["lm_head.weight"] if not arch.tied_head else embed
    our_head = ("embed",) if arch.tied_head else ("head",)
    result = Comparison()
    for tokens_T in tokens_BT:
        ours_TD = our_hidden(read, arch, tokens_T)
        embedded_TD = np.concatenate([embed.read(slice(int(token), int(token) + 1)) for token in tokens_T])
        theirs_TD = reference.last_hidden(folder.config, lambda name: folder.tensors[name].read(), embedded_TD)
        meter = Meter(length)
        for rows in _runs(their_head.shape):
            ours_RD, theirs_RD = read(our_head, slice(*rows)), their_head.read(slice(*rows))
            meter.add(ours_TD @ ours_RD.astype(np.float32).T, theirs_TD @ theirs_RD.astype(np.float32).T, rows[0])
        result = result.merged(meter.result())
    report: dict[str, Json] = {
        "reference": reference.version(),
        "prompts": config.proof_prompts,
        "tokens": length,
        **dataclasses.asdict(result),
    }
    if not (result.max_kl <= config.proof_max_kl and result.max_abs_diff <= config.proof_max_diff * result.scale):
        raise UserError(
            "the converted model computes something else: the conversion is refused",
            where=folder.url,
            got=", ".join(f"{key} {value}" for key, value in report.items()),
            wanted=f"max_kl of at most {config.proof_max_kl}, max_abs_diff of at most {config.proof_max_diff} * scale",
            do="this is a bug in the name table, the config or the network; nothing was written",
        )
    return report


def our_hidden(read: ReadLeaf, arch: Architecture, tokens_T: np.ndarray) -> np.ndarray:
    """Last hidden states [T, D] of our network; each layer's parameters are fetched when their turn comes."""
    import jax
    import jax.numpy as jnp

    from stratos_jax.model.forward import forward
    from stratos_jax.model.params import abstract_params

    used, where = np.unique(tokens_T, return_inverse=True)
    embed_UD = np.concatenate([read(("embed",), slice(int(token), int(token) + 1)) for token in used])
    layer_tree = abstract_params(arch, embed_UD.dtype)["layers"]
    paths = [tuple(key.key for key in keys) for keys, _ in jax.tree_util.tree_flatten_with_path(layer_tree)[0]]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), layer_tree)

    def fetch_layer(index: Any) -> Any:
        leaves = [read(("layers", *path), int(index)).astype(embed_UD.dtype, copy=False) for path in paths]
        return jax.tree.unflatten(jax.tree.structure(layer_tree), leaves)

    params = {
        "embed": jnp.asarray(embed_UD),
        "layers": jnp.arange(arch.num_layers),
        "final_norm": {"scale": jnp.asarray(read(("final_norm", "scale"), None))},
    }
    run = jax.jit(
        lambda params, tokens_BT, positions_BT: forward(
            params,
            arch,
            tokens_BT,
            positions_BT=positions_BT,
            compute_dtype="float32",
            attention="reference",
            fetch=lambda index: jax.pure_callback(fetch_layer, shapes, index),
        )[0]
    )
    positions_BT = jnp.arange(len(tokens_T), dtype=jnp.int32)[None]
    with jax.default_matmul_precision("highest"):
        return np.asarray(run(params, jnp.asarray(where.reshape(1, -1), jnp.int32), positions_BT))[0]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How far two sets of logits are apart."""

    max_abs_diff: float = 0.0
    scale: float = 0.0  # the largest logit of the reference
    max_kl: float = 0.0  # nats, of the worst position
    mean_kl: float = 0.0
    first_divergence: int | None = None  # the first position whose likeliest token differs

    def merged(self, other: "Comparison") -> "Comparison":
        """The worse of the two, prompt after prompt."""
        first = other.first_divergence if self.first_divergence is None else self.first_divergence
        return Comparison(
            max_abs_diff=max(self.max_abs_diff, other.max_abs_diff),
            scale=max(self.scale, other.scale),
            max_kl=max(self.max_kl, other.max_kl) if other.max_kl == other.max_kl else other.max_kl,
            mean_kl=max(self.mean_kl, other.mean_kl),
            first_divergence=first,
        )


class Meter:
    """Compares logits run of rows by run of rows, so that no full row of logits need exist twice."""

    def __init__(self, length: int):
        self._ours, self._theirs = _Side(length), _Side(length)
        self._gap_T = np.zeros(length)  # sum over the vocabulary of exp(theirs) * (theirs - ours)
        self._max_diff, self._scale = 0.0, 0.0

    def add(self, ours_TR: np.ndarray, theirs_TR: np.ndarray, first: int) -> None:
        """The logits of vocabulary rows from `first` on."""
        ours_TR, theirs_TR = ours_TR.astype(np.float64), theirs_TR.astype(np.float64)
        difference_TR = theirs_TR - ours_TR
        self._max_diff = max(self._max_diff, float(np.abs(difference_TR).max()))
        self._scale = max(self._scale, float(np.abs(theirs_TR).max()))
        self._ours.add(ours_TR, first)
        shrink_T = self._theirs.add(theirs_TR, first)
        self._gap_T = self._gap_T * shrink_T + (np.exp(theirs_TR - self._theirs.top_T[:, None]) * difference_TR).sum(1)

    def result(self) -> Comparison:
        """Over the whole vocabulary."""
        kl_T = self._gap_T / self._theirs.sum_T - self._theirs.log_sum() + self._ours.log_sum()
        kl_T = np.maximum(kl_T, 0.0)  # rounding; NaN stays
        differs = np.flatnonzero(self._ours.best_T != self._theirs.best_T)
        return Comparison(
            max_abs_diff=self._max_diff,
            scale=self._scale,
            max_kl=float(kl_T.max()),
            mean_kl=float(kl_T.mean()),
            first_divergence=int(differs[0]) if len(differs) else None,
        )


class _Side:
    """Running logarithm of the sum of exponentials, and the likeliest token."""

    def __init__(self, length: int):
        self.top_T, self.sum_T = np.full(length, -np.inf), np.zeros(length)
        self.best_T = np.zeros(length, np.int64)

    def add(self, logits_TR: np.ndarray, first: int) -> np.ndarray:
        """Take in more rows; returns by what earlier sums shrink."""
        top_T = logits_TR.max(axis=1)
        self.best_T = np.where(top_T > self.top_T, first + logits_TR.argmax(axis=1), self.best_T)
        new_T = np.maximum(self.top_T, top_T)
        shrink_T = np.exp(self.top_T - new_T)
        self.sum_T = self.sum_T * shrink_T + np.exp(logits_TR - new_T[:, None]).sum(axis=1)
        self.top_T = new_T
        return shrink_T

    def log_sum(self) -> np.ndarray:
        """The logarithm of the sum so far."""
        return self.top_T + np.log(self.sum_T)


def _runs(shape: tuple[int, ...]) -> Iterator[Rows]:
    step = max(1, HEAD_BYTES // (4 * shape[1]))
    for first in range(0, shape[0], step):
        yield first, min(first + step, shape[0])


def settings(folder_config: Mapping[str, Json]) -> dict[str, Json]:
    """What of a config decides the numbers, for the report."""
    keys = ("model_type", "vocab_size", "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters")
    return {key: folder_config[key] for key in keys if key in folder_config}
