"""A training run, from a folder of shards to checkpoints: one story.

In: settings, a folder of shards, a run folder (local or gs://), on every host alike. Out: `checkpoints/STEP/`,
`metrics.jsonl`, `curves.png` and, last, `manifest.json`. Run again, it goes on from the newest checkpoint that
verifies.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from stratos_jax import __version__, checkpoint, store
from stratos_jax.mesh.alive import Alive
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.mesh.hosts import Hosts, preflight
from stratos_jax.model.config import Architecture, ModelConfig, architecture_of
from stratos_jax.shards.loader import Loader
from stratos_jax.train import flops, lora, metrics, plots, task_of_run, trial
from stratos_jax.train.config import LoraConfig, TrainConfig
from stratos_jax.train.devices import choose_mesh, with_remat
from stratos_jax.train.display import Display
from stratos_jax.train.feed import Feed
from stratos_jax.train.state import State, init_state
from stratos_jax.train.step import Step, make_train_step
from stratos_jax.types import File, Json, Manifest, UserError, json_hash, to_json

LoadInitial = Callable[[str, Architecture, Any, Any], Any]  # (source, arch, shardings, dtype) -> parameters on the mesh


class Preempted(Exception):
    """A host was asked to go; all is saved, and the same command goes on from there (exit code 42)."""


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the parts of one run share."""

    train: TrainConfig
    model: ModelConfig
    arch: Architecture
    loader: Loader
    held_out: Loader | None
    step: Step
    mesh: jax.sharding.Mesh
    hosts: Hosts
    alive: Alive
    directory: str  # of the run; checkpoints go there
    scratch: pathlib.Path  # local; the same folder where the run's is local
    display: Display
    num_steps: int
    task: dict[str, Json]  # what the run is, for its checkpoints and its manifest
    sample: trial.Sampler | None  # answers problems with the weights of the moment


def run(
    train: TrainConfig,
    mesh: MeshConfig,
    model: ModelConfig,
    *,
    shards_dir: str | pathlib.Path,
    directory: str | pathlib.Path,
    load_initial: LoadInitial | None = None,
    hosts: Hosts | None = None,
    recipe: Any = None,
    sample: trial.Sampler | None = None,
) -> Manifest:
    """Train to the end, or raise `Preempted` after saving."""
    hosts, directory = hosts or Hosts(), str(directory)
    task = task_of_run.describe(train, model, shards_dir)
    if (done := task_of_run.finished(directory, task)) is not None:
        return done
    with Alive(hosts, watchdog_seconds=train.watchdog_seconds, barrier_seconds=mesh.barrier_seconds) as alive:
        alive.phase("preflight", interruptible=True)
        meet(hosts, task, directory, mesh.barrier_seconds)
        this = prepare(train, mesh, model, shards_dir, directory, hosts, alive, task, sample)
        hosts.barrier("prepared", mesh.barrier_seconds)  # the first collective waits only 30 s for a late host
        state, start = restore_or_begin(this, load_initial)
        if hosts.is_primary and recipe is not None:
            store.write_text(store.join(directory, "recipe.json"), _json_text(recipe))
        try:
            state = train_steps(this, state, start)
            if train.lora is not None:
                write_adapters(this, state, train.lora)
        finally:
            this.display.close()
        return finish(this)


def meet(hosts: Hosts, task: dict[str, Json], directory: str, seconds: float) -> None:
    """All hosts have the same code, versions, recipe and devices, and can write to the run folder."""
    facts = {
        "stratos_jax": __version__,
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "recipe": json_hash(task),
        "devices": jax.device_count(),
        "devices of a host": jax.local_device_count(),
    }
    probe = store.join(directory, f"probe-{hosts.index}")

    def write_probe() -> None:
        store.write_text(probe, str(time.time()))
        store.delete_tree(probe)

    preflight(hosts, facts, {"the run folder cannot be written": write_probe}, seconds)


def prepare(
    train: TrainConfig,
    mesh_config: MeshConfig,
    model: ModelConfig,
    shards_dir: str | pathlib.Path,
    directory: str,
    hosts: Hosts,
    alive: Alive,
    task: dict[str, Json],
    sample: trial.Sampler | None,
) -> Run:
    """Open the data, lay out the mesh, build the step."""
    arch = architecture_of(model)
    open_rows = functools.partial(Loader, shards_dir, rows_per_step=train.rows_per_step, seed=train.seed)
    loader = open_rows(epochs=train.epochs, loss=train.loss, held_out_fraction=train.held_out_fraction)
    held_out = None
    if train.held_out_fraction:
        held_out = open_rows(epochs=1.0, held_out_fraction=train.held_out_fraction, held_out=True)
    check_vocabulary(loader, arch, shards_dir)
    if sample is not None:
        trial.check_room(arch, model)
    num_steps = min(loader.num_steps, train.max_steps or loader.num_steps)
    mesh, said = choose_mesh(mesh_config, train, model, arch)
    train = with_remat(train, model, arch, mesh, loader.row_tokens)
    step = make_train_step(arch, model, train, mesh, row_tokens=loader.row_tokens, num_steps=num_steps)
    scratch = pathlib.Path(directory) if not store.is_remote(directory) else local_scratch(directory)
    display = Display(num_steps, quiet=not hosts.is_primary)
    display.say(
        f"{said}; remat {train.remat}; {num_steps} steps of {train.rows_per_step} rows of {loader.row_tokens} tokens"
    )
    return Run(
        train=train,
        model=model,
        arch=arch,
        loader=loader,
        held_out=held_out,
        step=step,
        mesh=mesh,
        hosts=hosts,
        alive=alive,
        directory=directory,
        scratch=scratch,
        display=display,
        num_steps=num_steps,
        task=task,
        sample=sample,
    )


def check_vocabulary(loader: Loader, arch: Architecture, shards_dir: str | pathlib.Path) -> None:
    """Refuse rows that were made with a tokenizer of more tokens than the model has."""
    most = int(loader.batch(0)["tokens_BT"].max())
    if most >= arch.vocab_size:
        raise UserError(
            "the shards were made with another tokenizer than the model's",
            where=shards_dir,
            got=f"token {most}",
            wanted=f"tokens below {arch.vocab_size}, the model's vocabulary",
            do="build the shards again with this model's tokenizer",
        )


def local_scratch(directory: str) -> pathlib.Path:
    """Where a run in a bucket keeps its open files; the same on every try, so that a restart finds them."""
    import tempfile

    folder = pathlib.Path(tempfile.gettempdir()) / f"stratos_run_{json_hash(directory)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def restore_or_begin(this: Run, load_initial: LoadInitial | None) -> tuple[State, int]:
    """The newest checkpoint that verifies, or step 0 with random weights or those of a folder."""
    folder = store.join(this.directory, "checkpoints")
    this.alive.phase("restore", interruptible=True)
    if checkpoint.steps(folder):
        state, metadata = checkpoint.restore(folder, this.step.abstract_state, warn=this.display.say)
        task_of_run.refuse_other_run(metadata["task"], this.task, folder)
        this.display.say(f"goes on from step {metadata['step']} of {folder}")
        return state, int(metadata["step"])
    params = None
    if this.model.source:
        if load_initial is None:
            raise UserError("weights of a folder need a loader", where=this.model.source, do="call through `stratos`")
        shardings = this.step.layout.param_shardings
        this.display.say(f"weights from {this.model.source}")
        params = load_initial(this.model.source, this.arch, shardings, this.model.param_dtype)
    return init_state(this.step.layout, this.mesh, this.train.seed, params), 0


def train_steps(this: Run, state: State, start: int) -> State:
    """The loop: feed, step, record, save; the device is never waited for."""
    train, alive = this.train, this.alive
    alive.start_from(start)
    alive.phase("compile", interruptible=True)
    run_step = this.step.run.lower(state, this.step.abstract_batch).compile()
    this.hosts.barrier("compiled", train.watchdog_seconds)
    leaf_names = ["/".join(str(k.key) for k in p) for p, _ in jax.tree_util.tree_leaves_with_path(state["params"])]
    recorder = metrics.Recorder(rates_of(this), leaf_names)
    sinks = None
    if this.hosts.is_primary:
        metrics.fetch(this.directory, this.scratch)
        sinks = metrics.Sinks(this.scratch, start, train.sinks, this.directory, this.task)
    feed = Feed(this.loader, this.step.batch_shardings, start, this.num_steps)
    saver = checkpoint.Checkpointer(
        store.join(this.directory, "checkpoints"),
        keep_last=train.checkpoint.keep_last,
        keep_every_steps=train.checkpoint.keep_every_steps,
        grace_seconds=train.checkpoint.grace_seconds,
        warn=this.display.say,
    )
    saved, gather = start, trial.make_gather(train.lora, this.model.compute_dtype, this.mesh)

    def record(records: list[metrics.Record]) -> None:
        for one in records:
            alive.step(one["step"], feed.wait_seconds)
            if sinks is not None and one["step"] % train.log_every_steps == 0:
                sinks.write(one)
            this.display.update(one)
            warning = metrics.check_record(one, train.on_bad_step, this.loader.samples)
            if warning:
                this.display.say(warning)

    def evaluate(step: int, held_out: Loader) -> None:
        record(recorder.drain())
        alive.phase("held-out loss")
        result = {"step": step, **trial.held_out_loss(held_out, this.step, state)}
        if sinks is not None:
            sinks.write(result)
        this.display.say(f"step {step}: held-out loss {result['held_out_loss']:.4f}")
        recorder.restart_clock()

    def answer(step: int, sample: trial.Sampler) -> None:
        record(recorder.drain())
        alive.phase("sampled evaluation")
        found = trial.answers(gather(state), this.arch, sample, this.hosts, train.watchdog_seconds)
        if sinks is not None:
            sinks.write({"step": step, **found})
            told = ", ".join(f"{name.removeprefix('sampled_')} {value:.3g}" for name, value in found.items())
            this.display.say(f"step {step}: problems asked: {told}")
        recorder.restart_clock()

    def save(step: int) -> None:
        nonlocal saved
        record(recorder.drain())  # a bad step is found before it is saved
        alive.phase("save")
        if sinks is not None:
            metrics.put(this.scratch, this.directory)
        saver.save(step, state, {"task": this.task, "mesh": dict(this.mesh.shape)})
        saved = step
        recorder.restart_clock()

    try:
        with saver:
            for index, batch in feed:
                done = index + 1
                profile(this, index)
                state, step_metrics = run_step(state, batch)
                record(recorder.push(done, step_metrics))
                if this.held_out is not None and (
                    done == this.num_steps or (train.eval_every_steps and done % train.eval_every_steps == 0)
                ):
                    evaluate(done, this.held_out)
                if this.sample is not None and train.sample_every_steps and done % train.sample_every_steps == 0:
                    answer(done, this.sample)
                stop = alive.should_stop(done)
                if done % train.checkpoint.every_steps == 0 or done == this.num_steps or stop:
                    save(done)
                if stop:
                    break
            record(recorder.drain())
            alive.phase("save")
        if saved < this.num_steps:
            raise Preempted(f"stopped after step {saved} of {this.num_steps}; the same command goes on from there")
    finally:
        feed.close()
        stop_profile()
        if sinks is not None:
            sinks.close()
            plots.plot_run(this.scratch)
    for line in alive.stragglers():
        this.display.say(line)
    return state


def write_adapters(this: Run, state: State, config: LoraConfig) -> None:
    """What a LoRA run is for: an adapter folder for PEFT, and a checkpoint of the merged network in `merged/`."""
    layout = this.step.layout
    merge = jax.jit(lambda base, adapters: lora.merge(base, adapters, config), out_shardings=layout.param_shardings)
    merged = {"params": merge(state["base"], state["params"])}
    checkpoint.save(store.join(this.directory, "merged"), this.num_steps, merged, {"task": this.task})
    everywhere = jax.sharding.NamedSharding(this.mesh, jax.sharding.PartitionSpec())
    adapters = jax.device_get(jax.jit(lambda tree: tree, out_shardings=everywhere)(state["params"]))
    if this.hosts.is_primary:
        lora.export_peft(adapters, this.arch, config, this.scratch / "adapter", this.model.source)


def rates_of(this: Run) -> metrics.Rates:
    """FLOPs, peak and memory of this machine."""
    device, frozen = jax.local_devices()[0], this.train.lora is not None
    peak = flops.peak_flops(device.device_kind)

    def memory() -> float | None:
        used = [(device.memory_stats() or {}).get("peak_bytes_in_use") or 0 for device in jax.local_devices()]
        return max(used) / 2**30 if any(used) else None

    return metrics.Rates(
        flops=lambda tokens, pairs: flops.step_flops(this.arch, tokens, pairs, frozen_base=frozen),
        peak_flops=peak * jax.device_count() if peak else None,
        memory=memory,
    )


def profile(this: Run, index: int) -> None:
    """Trace the steps that were asked for."""
    wanted = this.train.profile_steps
    if index + 1 in wanted and index not in wanted:
        jax.profiler.start_trace(str(this.scratch / "profile"))
    elif index in wanted and index + 1 not in wanted:
        stop_profile()


def stop_profile() -> None:
    """End a trace, if one is under way."""
    try:
        jax.profiler.stop_trace()
    except RuntimeError:  # none was
        pass


def finish(this: Run) -> Manifest:
    """All hosts are done; the primary one writes what makes the run complete."""
    this.hosts.barrier("finished", this.alive.barrier_seconds)
    if not this.hosts.is_primary:
        return _manifest(this, files=())
    if store.is_remote(this.directory):
        for file in store.list_files(this.scratch):
            store.upload_file(file.url, store.join(this.directory, os.path.relpath(file.url, this.scratch)))
    made = store.manifest.make_manifest(this.directory, stage="train")
    made = _manifest(this, files=made.files)
    store.manifest.write_manifest(this.directory, made)
    return made


def _manifest(this: Run, files: tuple[File, ...]) -> Manifest:
    return Manifest(
        stage="train",
        config_hash=json_hash(this.task),
        code_version=store.manifest.code_version(),
        inputs={"shards": str(this.task["shards"])},
        files=files,
        counts={**this.loader.counts(), "steps": this.num_steps, "mesh": dict(this.mesh.shape)},
        config=this.task,
    )


def _json_text(value: Any) -> str:
    return json.dumps(to_json(value), indent=1)
