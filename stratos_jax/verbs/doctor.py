"""`stratos doctor`: what this machine has, what is missing, and how to get it."""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from importlib import metadata

HELP = "print versions, devices, memory, isolation and credentials, and what is missing"
EXAMPLE = "stratos doctor"

REQUIRED = (
    *("jax", "flax", "optax", "orbax-checkpoint", "grain", "array-record", "tensorflow-datasets", "transformers"),
    *("sentencepiece", "openai", "sympy", "math-verify", "google-cloud-storage"),
)
# package -> (what it is for, how to get it)
OPTIONAL = {
    "libtpu": ("training on TPU; `stratos plan` anywhere", "pip install 'stratos_jax[tpu]'"),
    "tokamax": ("fused kernels on TPU", "pip install 'stratos_jax[tpu]'"),
    "ray": ("grading on a cluster", "pip install 'stratos_jax[curate]'"),
    "torch": ("proof of a conversion against transformers", "pip install torch"),
    "qwix": ("QLoRA", "pip install 'stratos_jax[qlora]'"),
    "tensorboardX": ("TensorBoard metrics", "pip install tensorboardX"),
    "wandb": ("Weights & Biases metrics", "pip install wandb"),
}
# environment variable -> what it opens; the values are never read
CREDENTIALS = {
    "OPENAI_API_KEY": "an OpenAI-compatible teacher or judge",
    "DEEPSEEK_API_KEY": "DeepSeek-R1 as the teacher",
    "GOOGLE_APPLICATION_CREDENTIALS": "gs:// with a service account",
    "HF_TOKEN": "gated models and data sets of the Hugging Face Hub",
    "WANDB_API_KEY": "Weights & Biases",
}
DEVICES = "import jax, json; print(json.dumps([[d.platform, d.device_kind] for d in jax.devices()]))"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Look, print, and exit 2 where a required package is missing."""
    report = examine()
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join(render(report)))
    return 2 if report["missing"] else 0


def examine() -> dict:
    """What is here, as plain JSON."""
    from stratos_jax import __version__
    from stratos_jax.grading import sandbox
    from stratos_jax.mesh import cores

    versions = {name: version(name) for name in (*REQUIRED, *OPTIONAL)}
    disk = shutil.disk_usage(pathlib.Path.cwd())
    adc = pathlib.Path.home() / ".config/gcloud/application_default_credentials.json"
    credentials = {name: bool(os.environ.get(name)) for name in CREDENTIALS}
    return {
        "stratos_jax": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cores.count(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "disk_free_gib": round(disk.free / 2**30, 1),
        "devices": devices(),
        "versions": versions,
        "isolation": sandbox.isolation_report(),
        "credentials": {**credentials, "gcloud application default": adc.exists()},
        "missing": [name for name in REQUIRED if versions[name] is None],
    }


def version(package: str) -> str | None:
    """The installed version of a package, None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def devices() -> list[str] | str:
    """What jax sees, asked in another process: a broken driver may hang or abort it."""
    if importlib.util.find_spec("jax") is None:
        return "jax is not installed"
    try:
        done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "jax does not answer within 60 s; is another process holding the accelerator?"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["jax fails without a message"])[-1]
    found = [" ".join(pair) for pair in json.loads(done.stdout.splitlines()[-1])]
    return [f"{found.count(kind)} x {kind}" for kind in dict.fromkeys(found)]


def render(report: dict) -> list[str]:
    """The report as a person reads it."""
    found = report["devices"]
    lines = [
        f"stratos_jax {report['stratos_jax']}, Python {report['python']}, {report['platform']}",
        f"{report['cores']} cores, {report['memory_gib']} GiB of memory, {report['disk_free_gib']} GiB of disk free",
        f"devices: {found if isinstance(found, str) else ', '.join(found)}",
        "",
        "packages:",
    ]
    for name, got in report["versions"].items():
        if got:
            lines.append(f"  {name:<22}{got}")
        else:
            use, how = OPTIONAL.get(name, ("required", f"pip install {name}"))
            lines.append(f"  {name:<22}missing ({use}); get it: {how}")
    lines += ["", "isolation of graded programs:"]
    lines += [f"  {name:<22}{value}" for name, value in report["isolation"].items()]
    lines += ["", "credentials (only whether they are set):"]
    for name, there in report["credentials"].items():
        use = CREDENTIALS.get(name, "gs:// as yourself; get it: gcloud auth application-default login")
        lines.append(f"  {name:<32}{'found' if there else 'not set'}  ({use})")
    if report["missing"]:
        lines += ["", f"error: required packages are missing: {', '.join(report['missing'])}"]
    return lines
