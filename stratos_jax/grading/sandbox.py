"""Runs programs nobody has read, each in a clean and confined process.

In: a program's text with its input, its call, or its test code, and limits. Out: a `Run`: how it ended, what it printed
or returned. A `Sandbox` holds one fork server (see `jail/`) with a started interpreter; it takes one job at a time.
What the program should print or return never comes here.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stratos_jax.types import UserError

Mode = Literal["namespaces", "landlock", "seccomp", "rlimits"]
MODES: tuple[Mode, ...] = ("namespaces", "landlock", "seccomp", "rlimits")  # strongest first
ZYGOTE = pathlib.Path(__file__).parent / "jail" / "zygote.py"
STARTUP_S = 60.0
LEAVE_S = 5.0
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # the order of a set is the same every time, so the verdict is
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/tmp",
    "PATH": "/nowhere",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # a thread's arena is address space, which is limited
}

LOADER = ("LD_LIBRARY_PATH",)  # passed on, for an interpreter that cannot start without


class SandboxError(Exception):
    """The sandbox failed, not the program in it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one program may use; the names are those of the fork server."""

    cpu_s: float
    wall_s: float  # without the time in which it waited for a core
    patience_s: float  # with it; past that the machine is too busy to tell
    memory_mb: int
    address_slack_mb: int  # reserved and not touched: thread stacks, the interpreter
    output_mb: int
    scratch_mb: int
    threads: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How a program ended. `claim` is its own word, which nothing may rest on but the choice between two failures."""

    status: int  # exit code, or minus the signal
    killed: str  # "", "cpu", "wall" or "starved"
    wall_s: float
    cpu_s: float
    rss_mb: float
    output: bytes
    claim: Mapping[str, Any]


class Sandbox:
    """One fork server; a context manager. Not for two threads at once."""

    def __init__(self, *, packages: Sequence[str], stack_mb: int, mode: Mode | None = None):
        self.packages, self.stack_mb = tuple(packages), stack_mb
        self.mode = mode or strongest_mode()
        self.landlock, self.seccomp = 0, False
        self._closed = False
        self._start()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._scratch = tempfile.mkdtemp(prefix="stratos-sandbox-")
        os.chmod(self._scratch, 0o711)
        readable, site_folders = package_folders(self.packages)
        options = {
            "control": theirs.fileno(),
            "mode": self.mode,
            "readable": [*system_folders(), *readable],
            "packages": site_folders,
            "scratch": self._scratch,
            "stack_mb": self.stack_mb,
        }
        self._process = subprocess.Popen(
            [interpreter(), "-s", "-S", "-P", str(ZYGOTE), json.dumps(options)],
            pass_fds=[theirs.fileno()],
            env={**ENVIRONMENT, **{name: os.environ[name] for name in LOADER if name in os.environ}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        theirs.close()
        self._control = ours
        hello = self._receive(STARTUP_S)
        if "problem" in hello:
            self._stop()
            raise SandboxError(hello["problem"])
        self.landlock, self.seccomp = hello["landlock"], hello["seccomp"]

    def close(self) -> None:
        """End the fork server and everything in it: it leaves when the line is cut, or is killed."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        try:
            self._control.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        except OSError:
            pass  # it has left already
        self._control.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def restart(self) -> None:
        """After a `SandboxError`: a new fork server; not where it was closed meanwhile."""
        if self._closed:
            raise SandboxError("the sandbox is closed")
        self._stop()
        self._start()
        if self._closed:  # meanwhile, by another thread that may have ended only the old one
            self._stop()
            raise SandboxError("the sandbox is closed")

    def script(self, code: str, stdin: bytes, limits: Limits, preload: Sequence[str] = ()) -> Run:
        """Run a program that reads standard input and prints."""
        with _Files({"code": code}, stdin, b"", b"") as files:
            return self._run("stdin", files.fds, limits, preload, output=files.fds[2], claim=files.fds[3])

    def call(self, job: Mapping[str, Any], limits: Limits, preload: Sequence[str] = ()) -> Run:
        """Load a program, call `job["function"]`; the claim has its `value`."""
        with _Files(job, b"", b"", b"") as files:
            return self._run("call", files.fds, limits, preload, output=None, claim=files.fds[3])

    def exam(self, tests: Mapping[str, Any], program: Mapping[str, Any], limits: Limits) -> Run:
        """Run test code in one process against a program in another; the claim is the examiner's and can be trusted."""
        with _Files(tests, b"", program) as files:
            return self._run("exam", files.fds, limits, (), output=None, claim=files.fds[1])

    def _run(self, kind: str, fds, limits: Limits, preload: Sequence[str], *, output: int | None, claim: int) -> Run:
        request = {"kind": kind, "limits": dataclasses.asdict(limits), "preload": list(preload)}
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], fds)
        except OSError as error:
            raise SandboxError(f"the fork server is gone: {error}") from error
        reply = self._receive(limits.patience_s + STARTUP_S)
        if "problem" in reply:
            raise SandboxError(reply["problem"])
        exits = reply["exits"]
        return Run(
            status=exits[0]["status"],
            killed=reply["killed"],
            wall_s=reply["wall_s"],
            cpu_s=sum(e["cpu_s"] for e in exits),
            rss_mb=max(e["rss_mb"] for e in exits),
            output=b"" if output is None else _read(output, limits.output_mb << 20),
            claim=_read_claim(claim, limits.output_mb << 20),
        )

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        self._control.settimeout(timeout_s)
        try:
            data = self._control.recv(1 << 16)
        except OSError as error:
            raise SandboxError(f"no answer from the fork server: {error}") from error
        if not data:
            raise SandboxError("the fork server has ended")
        return json.loads(data)


class _Files:
    """Files in memory, one per argument: bytes as they are, mappings as JSON."""

    def __init__(self, *contents: bytes | Mapping[str, Any]):
        self.fds: list[int] = []
        for content in contents:
            fd = os.memfd_create("job", os.MFD_CLOEXEC)
            self.fds.append(fd)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.lseek(fd, 0, os.SEEK_SET)

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_) -> None:
        for fd in self.fds:
            os.close(fd)


def _read(fd: int, limit: int) -> bytes:
    size = min(os.fstat(fd).st_size, limit)
    parts, place = [], 0
    while place < size and (part := os.pread(fd, size - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def _read_claim(fd: int, limit: int) -> dict[str, Any]:
    """What stands on a result descriptor; anything but a JSON object counts as nothing."""
    try:
        claim = json.loads(_read(fd, limit))
    except (ValueError, RecursionError):
        return {}
    return claim if isinstance(claim, dict) else {}


def interpreter() -> str:
    """The interpreter that this one's environment is based on."""
    return getattr(sys, "_base_executable", "") or sys.executable


def system_folders() -> list[str]:
    """What an interpreter needs of the host to import its standard library; nothing a test could lie in."""
    standard = pathlib.Path(os.__file__).resolve().parent
    dynamic = pathlib.Path(importlib.import_module("_ctypes").__file__ or standard).resolve().parent
    own = [str(standard.parent)] + ([str(dynamic)] if standard not in dynamic.parents else [])
    shared = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    return list(dict.fromkeys([*shared, *(path for path in own if path not in shared)]))


def package_folders(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders of the named packages that are installed (with the libraries beside them), and where they lie."""
    folders, sites = [], []
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        path = pathlib.Path(spec.origin)
        package = path.parent if path.name == "__init__.py" else path
        beside = package.with_name(f"{name}.libs")
        folders += [str(p) for p in (package, beside) if p.exists()]
        sites.append(str(package.parent))
    return list(dict.fromkeys(folders)), list(dict.fromkeys(sites))


@functools.cache
def strongest_mode() -> Mode:
    """The strongest isolation that works here, found by running a program in it."""
    return probe_modes()[0]


@functools.cache
def probe_modes() -> tuple[Mode, dict[str, str]]:
    """The first mode in which a trivial program runs, and why each stronger one did not."""
    problems: dict[str, str] = {}
    for mode in MODES:
        try:
            with Sandbox(packages=(), stack_mb=64, mode=mode) as sandbox:
                run = sandbox.script("print(6*7)", b"", PROBE)
            if run.status == 0 and run.output == b"42\n":
                return mode, problems
            problems[mode] = f"a trivial program ended with status {run.status}"
        except (SandboxError, OSError) as error:
            problems[mode] = str(error)
    raise UserError("no program can be run here", got="; ".join(f"{m}: {p}" for m, p in problems.items()))


WALLS = {
    "namespaces": "own user, process, mount, network and IPC namespaces; sees only its interpreter, read-only",
    "landlock": "no namespaces: Landlock hides files, seccomp refuses sockets, signals and new processes",
    "seccomp": "no namespaces, no Landlock: programs can read and write the files of this user",
    "rlimits": "limits only: programs can read and write files, use the network and start processes",
}


def isolation_report() -> dict[str, str]:
    """What stands between a graded program and this machine, for `stratos doctor`."""
    try:
        mode, problems = probe_modes()
    except UserError as error:
        return {"programs": "cannot be run here", "why": str(error).splitlines()[-1].strip()}
    with Sandbox(packages=(), stack_mb=64, mode=mode) as sandbox:
        landlock, seccomp = sandbox.landlock, sandbox.seccomp
    return {
        "mode": mode,
        "walls": WALLS[mode],
        "landlock": f"ABI {landlock}" if landlock else "none",
        "seccomp": "filter" if seccomp else "none",
        "user": "another, that owns nothing" if os.geteuid() == 0 and mode == "namespaces" else "this one",
        **{f"no {stronger}": why for stronger, why in problems.items()},
    }


PROBE = Limits(
    cpu_s=10, wall_s=20, patience_s=60, memory_mb=256, address_slack_mb=512, output_mb=1, scratch_mb=1, threads=8
)
