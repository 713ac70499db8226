"""The runner: a recipe's stages in their order, each once, into one folder.

In: a recipe and a folder. Out: `curate/`, for each arm `shards/`, `train/`, `convert/`, `evaluate/`, then `report.json`
and `report.html`. A stage that is complete, undamaged and of the same settings and inputs is skipped; what disagrees
stops the run, and nothing is overwritten: `start=STAGE` moves outputs from that stage on to `replaced/` and makes them
again. With `launch.bucket`, the output of each complete stage is copied there: what is there already is not sent again.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from stratos_jax import store
from stratos_jax.recipe import Recipe
from stratos_jax.types import Json, Manifest, UserError, json_hash, raise_all, to_json

STAGES = ("curate", "shards", "train", "convert", "evaluate", "report")
ANSWERS, REPLACED, TIMES = "answers", "replaced", "times.json"
MODEL = "hf"  # the folder in `convert/` that transformers loads
DEEP_BYTES = 1 << 30  # outputs up to this size are read in full before they are taken for done


class Show(Protocol):
    """Where a run is shown."""

    def stage(self, name: str) -> contextlib.AbstractContextManager[Callable[[int, int, str], None]]:
        """A stage begins, and ends with the block; gives a function for its progress."""
        ...

    def done(self, name: str, note: str) -> None:
        """A stage is complete, now or from before."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one arm of a run lies."""

    run: pathlib.Path
    arm: str  # empty: the recipe has none

    def folder(self, stage: str) -> pathlib.Path:
        """The folder of a stage; curation serves all arms."""
        return self.run / stage if stage == "curate" or not self.arm else self.run / self.arm / stage

    def name(self, stage: str) -> str:
        """The stage as it is shown."""
        return f"{self.arm}/{stage}" if self.arm and stage != "curate" else stage


def run(
    recipe: Recipe, directory: str | os.PathLike[str], show: Show, *, start: str = "", end: str = ""
) -> pathlib.Path:
    """Run the stages from `start` to `end`; gives the report's path, or the folder where `end` is before it."""
    folder = pathlib.Path(directory).resolve()
    first, last = _span(start, end)
    arms = [(arm.name, recipe.arm(arm.name)) for arm in recipe.arms] or [("", recipe)]
    with _one_message(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if start:
            _set_aside(folder, [Place(run=folder, arm=name) for name, _ in arms], STAGES[first:])
        for name, chosen in arms:
            place = Place(run=folder, arm=name)
            for stage in STAGES[first : min(last + 1, len(STAGES) - 1)]:
                if stage != "curate" or (recipe.curate is not None and name == arms[0][0]):
                    _run_stage(stage, chosen, place, show)
        if STAGES[last] != "report":
            return folder
        return _report(recipe, folder, [(name, Place(run=folder, arm=name), chosen) for name, chosen in arms], show)


def _span(start: str, end: str) -> tuple[int, int]:
    for name in filter(None, (start, end)):
        if name not in STAGES:
            raise UserError("no such stage", got=name, wanted=", ".join(STAGES))
    first, last = STAGES.index(start or STAGES[0]), STAGES.index(end or STAGES[-1])
    if first > last:
        raise UserError("nothing to run", got=f"from {start} to {end}", wanted="the first stage before the last")
    return first, last


def _run_stage(stage: str, recipe: Recipe, place: Place, show: Show) -> None:
    """Run a stage or find it done."""
    folder, name = place.folder(stage), place.name(stage)
    before = store.manifest.read_manifest(folder)
    if before is not None:
        _check_undamaged(before, folder, name)
    began = time.monotonic()
    with show.stage(name) as progress:
        try:
            manifest = BODIES[stage](recipe, place, progress)
        except UserError as error:
            raise _with_way_on(error, stage, folder) from error
    seconds = time.monotonic() - began
    if before is None:
        _note_time(place.run, name, seconds)
    if recipe.launch.bucket:
        store.upload_tree(folder, store.join(recipe.launch.bucket, *folder.relative_to(place.run).parts))
    show.done(name, "done before" if before is not None else f"{seconds:.1f} s{_figures(manifest)}")


def _check_undamaged(manifest: Manifest, folder: pathlib.Path, name: str) -> None:
    deep = sum(file.bytes for file in manifest.files) <= DEEP_BYTES
    raise_all(
        store.manifest.verify(folder, deep=deep)[:10],
        what=f"the output of {name} is not what was written",
        where=folder,
        do=f"bring the files back; or {_again(name.split('/')[-1])}",
    )


def _with_way_on(error: UserError, stage: str, folder: pathlib.Path) -> UserError:
    """Add the runner's own way on to a refusal that ends in "delete the folder"."""
    text = str(error)
    if "another run" not in text:
        return error
    changed = UserError("")
    changed.args = (f"{text}\n  or:     {_again(stage)}",)
    return changed


def _again(stage: str) -> str:
    return f"run with --from {stage}, which moves that output to {REPLACED}/ and makes it again"


@contextlib.contextmanager
def _one_message(folder: pathlib.Path) -> Iterator[None]:
    """What a full disk or a folder without rights says, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        raise UserError(
            f"cannot write: {error.strerror}",
            where=error.filename or folder,
            do="make room (or give another --dir) and run the same command again; finished work is kept",
        ) from error


def _set_aside(folder: pathlib.Path, places: list[Place], stages: tuple[str, ...]) -> None:
    """Move outputs that are to be made again out of the way."""
    target = folder / REPLACED / time.strftime("%Y%m%d-%H%M%S")
    moved = {place.folder(stage) for place in places for stage in stages if stage != "report"}
    for path in sorted(path for path in moved if path.exists()):
        new = target / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, new)


def _note_time(folder: pathlib.Path, name: str, seconds: float) -> None:
    path = folder / TIMES
    times = json.loads(path.read_text()) if path.exists() else {}
    store.write_text(path, json.dumps({**times, name: round(seconds, 1)}, indent=1) + "\n")


def _figures(manifest: Manifest) -> str:
    counts = manifest.counts
    if manifest.stage == "evaluate":
        return "".join(f", {task} {value:.1%} right" for task, value in counts.items())
    names = ("steps",) if manifest.stage == "train" else ("rows",)  # a training's rows are those of all its epochs
    shown = [f"{name} {counts[name]:,}" for name in names if name in counts]
    return "".join(f", {text}" for text in shown)


def _curate(recipe: Recipe, place: Place, progress: Callable[[int, int, str], None]) -> Manifest:
    from stratos_jax.curate import stage

    assert recipe.curate is not None
    answers = place.run / ANSWERS
    return stage.run(recipe.curate, place.folder("curate"), answers_dir=answers, progress=progress)


def _shards(recipe: Recipe, place: Place, progress: Callable[[int, int, str], None]) -> Manifest:
    from stratos_jax.shards import build

    inputs = {"curate": place.folder("curate")} if recipe.curate is not None else {}
    tokenizer = recipe.model.source or None
    return build.run(recipe.shards, place.folder("shards"), inputs=inputs, tokenizer_dir=tokenizer)


def _train(recipe: Recipe, place: Place, progress: Callable[[int, int, str], None]) -> Manifest:
    from stratos_jax.convert.load import load_hf_params
    from stratos_jax.evaluate.during import make_sampler
    from stratos_jax.train import loop

    return loop.run(
        recipe.train,
        recipe.mesh,
        recipe.model,
        shards_dir=place.folder("shards"),
        directory=place.folder("train"),
        load_initial=load_hf_params,
        recipe=recipe,
        sample=make_sampler(
            recipe.train,
            recipe.evaluate,
            recipe.engine,
            shards_dir=place.folder("shards"),
            held_out=_held_out(recipe, place),
        ),
    )


def _convert(recipe: Recipe, place: Place, progress: Callable[[int, int, str], None]) -> Manifest:
    from stratos_jax import checkpoint
    from stratos_jax.convert import export
    from stratos_jax.model import chat, tokenizer
    from stratos_jax.model.config import hf_config_of

    checkpoints, tokens = place.folder("train") / "checkpoints", place.folder("shards") / "tokenizer"
    step = checkpoint.newest(checkpoints)
    if step is None:
        raise UserError("there is no checkpoint to convert", where=checkpoints, do=_again("train"))
    leaves = checkpoint.LeafReader(checkpoints, step).integrity.leaves
    inputs = {"checkpoint": json_hash([[leaf.path, leaf.digest] for leaf in leaves]), "tokenizer": _hash(tokens)}

    def body(folder: pathlib.Path) -> dict[str, Json]:
        policy = "endoftext" if recipe.shards.policy == "stratos17k" else "template"
        end = chat.end_id(tokenizer.load_tokenizer(tokens), policy)
        report = export.to_hf(
            checkpoints,
            folder / MODEL,
            recipe.convert,
            step=step,
            hf_config=hf_config_of(recipe.model),
            tokenizer_dir=tokens,
            eos_ids=[end],
        )
        return {"tensors": report["tensors"], "step": step}

    config = {"convert": to_json(recipe.convert), "model": to_json(recipe.model)}
    return store.stage.run_stage("convert", config, place.folder("convert"), inputs, body)


def _hash(folder: pathlib.Path) -> str:
    """Content of a small folder without a manifest of its own."""
    files = sorted(store.list_files(folder), key=lambda file: file.url)
    return json_hash([[os.path.basename(f.url), store.stage.input_hash(f.url)] for f in files])


def _evaluate(recipe: Recipe, place: Place, progress: Callable[[int, int, str], None]) -> Manifest:
    from stratos_jax.evaluate import stage

    return stage.run(
        recipe.evaluate,
        recipe.engine,
        place.folder("evaluate"),
        model_dir=place.folder("convert") / MODEL,
        held_out=_held_out(recipe, place),
        progress=progress,
    )


def _held_out(recipe: Recipe, place: Place) -> pathlib.Path | None:
    return place.folder("curate") / "held_out.jsonl" if recipe.curate is not None else None


BODIES: dict[str, Callable[[Recipe, Place, Callable[[int, int, str], None]], Manifest]] = {
    "curate": _curate,
    "shards": _shards,
    "train": _train,
    "convert": _convert,
    "evaluate": _evaluate,
}


def _report(recipe: Recipe, folder: pathlib.Path, arms: list[tuple[str, Place, Recipe]], show: Show) -> pathlib.Path:
    """Bring what the arms gave together."""
    from stratos_jax.evaluate import compare, page

    with show.stage("report"):
        runs = [
            compare.read_run(name or recipe.name, place.folder("train").parent, chosen) for name, place, chosen in arms
        ]
        curated = store.manifest.read_manifest(folder / "curate")
        report = compare.make_report(recipe.name, runs, recipe.evaluate, curated)
        times = json.loads((folder / TIMES).read_text()) if (folder / TIMES).exists() else {}
        store.write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
        store.write_text(folder / "report.html", page.render(report, runs, folder / "curate", times))
    show.done("report", str(folder / "report.html"))
    return folder / "report.html"
