"""The room in which every program of one fork server runs: its own user, process, mount, network and IPC namespaces.

In: which paths may be read. Out: this process, as pid 1 of a tree that sees only a read-only view of them,
an empty network, `/proc` of its own processes, and a place for a scratch folder.
"""

import os
import signal

import kernel

INSIDE_ID = 1000  # the user that programs see
NOBODY = 65534  # the outside user that they are, where the grader runs as root
SCRATCH = "/box"
TEMPORARY = "/tmp"  # leads to SCRATCH, unless what may be read lies below it
READY = b"+"
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/fd": "/proc/self/fd",
    "/dev/shm": SCRATCH,
    TEMPORARY: SCRATCH,
}


def enter(readable: list[str], control: int) -> None:
    """Return in a new process that is pid 1 of the room; the caller's process lets go of `control` and waits for it.

    Raises OSError in the caller where the kernel refuses any part.
    """
    told, tell = os.pipe()
    answered, answer = os.pipe()
    builder = os.fork()
    if builder == 0:
        os.close(told)
        os.close(answer)
        _build(readable, tell, answered)
        return
    os.close(tell)
    os.close(answered)
    kernel.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: the room's pid 1 becomes ours when its builder leaves
    problem = os.read(told, 1)
    if problem == READY:
        _map_ids(builder)
        os.write(answer, READY)
        problem = b""
    problem += _read_all(told)
    os.close(told)
    os.close(answer)
    if problem:
        _reap()
        code, _, text = problem.partition(b" ")
        raise OSError(int(code), text.decode(errors="replace"))
    os.close(control)
    _reap()
    os._exit(0)


def _build(readable: list[str], tell: int, answered: int) -> None:
    """In the builder: namespaces, then the file system, then the fork that becomes pid 1. Problems go down the pipe."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
        flags = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
        kernel.unshare(flags | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
        os.write(tell, READY)
        if not os.read(answered, 1):
            os._exit(1)
        sources = _open_sources(readable)  # with the caller's rights: its home may be closed to others
        _become_inside_user()
        if os.fork():
            os._exit(0)
        _furnish(sources)
    except OSError as error:
        os.write(tell, f"{error.errno or 0} {error.strerror} ({error.filename})".encode())
        os._exit(1)
    os.close(tell)
    os.close(answered)


def _map_ids(pid: int) -> None:
    """One user inside, one outside; root gives its programs an outside user that owns nothing."""
    outside_uid, outside_gid = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {outside_uid} 1"),
        ("gid_map", f"{INSIDE_ID} {outside_gid} 1"),
    ):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)


def _become_inside_user() -> None:
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    kernel.set_capabilities(kernel.get_permitted())


def _open_sources(readable: list[str]) -> list[tuple[str, int | str]]:
    """Each path with a handle on it, or with the target of the link that it is."""
    sources: list[tuple[str, int | str]] = []
    for path in [*readable, *(f"/dev/{name}" for name in DEVICES)]:
        if os.path.islink(path):
            sources.append((path, os.readlink(path)))
        elif os.path.exists(path):
            sources.append((path, os.open(path, os.O_PATH | os.O_CLOEXEC)))
    return sources


def _furnish(sources: list[tuple[str, int | str]]) -> None:
    """As pid 1: a fresh root that holds the sources read-only, and nothing else of the host."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = TEMPORARY  # any folder does as the place for the new root; the handles reach what it hides
    kernel.mount("root", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4m,mode=755")
    for path, source in sources:
        place = root + path
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        if isinstance(source, str):
            os.symlink(source, place)
            continue
        handle = f"/proc/self/fd/{source}"
        if os.path.isdir(handle):
            os.makedirs(place, mode=0o755, exist_ok=True)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        kernel.mount(handle, place, None, kernel.MS_BIND | kernel.MS_REC)
        os.close(source)
        if not path.startswith("/dev/"):
            kernel.make_read_only(place)
    for place, target in LINKS.items():
        if not os.path.lexists(root + place):
            os.symlink(target, root + place)
    os.mkdir(root + "/proc", 0o555)
    os.mkdir(root + SCRATCH, 0o755)
    mount_proc(root + "/proc")
    kernel.pivot_root(root)
    kernel.make_read_only("/", recursive=False)


def mount_proc(target: str) -> None:
    """Processes of this room only, each hidden from the others; without it (a masked /proc outside) nothing breaks."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    for data in ("subset=pid,hidepid=2", "hidepid=2"):
        try:
            return kernel.mount("proc", target, "proc", flags, data)
        except OSError:
            continue


class Cells:
    """Process namespaces, one for each program that runs at the same time, with an init of ours in each.

    A program must not be the init itself: the kernel would spare it its own signals, so that a program that kills
    itself would live on. Programs start no processes, so a cell is empty again when its program has ended.
    """

    def __init__(self, count: int):
        self.own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.inits: list[int] = []
        self.handles: list[int] = []
        for _ in range(count):
            self._open_one()

    def _open_one(self) -> None:
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            sit()
        self.inits.append(pid)
        self.handles.append(os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC))
        kernel.setns(self.own, kernel.CLONE_NEWPID)

    def fork(self, cell: int) -> int:
        """As `os.fork`, into a cell."""
        kernel.setns(self.handles[cell], kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            kernel.setns(self.own, kernel.CLONE_NEWPID)
        return pid

    def renew(self) -> None:
        """Kill all that is in the cells and open new ones."""
        for pid, handle in zip(self.inits, self.handles):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(handle)
        count = len(self.inits)
        self.inits, self.handles = [], []
        for _ in range(count):
            self._open_one()


def sit() -> None:
    """An init's life: nothing open, nothing allowed, nothing done."""
    os.setsid()
    os.closerange(0, 1 << 20)
    kernel.drop_all_capabilities()
    while True:
        signal.pause()


def fresh_scratch(megabytes: int) -> None:
    """An empty, writable folder in memory at SCRATCH."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("scratch", SCRATCH, "tmpfs", flags, f"size={megabytes}m,nr_inodes=4k,mode=700")


def drop_scratch() -> None:
    kernel.umount(SCRATCH)


def _reap() -> None:
    """Wait until no child is left."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, 4096):
        chunks.append(chunk)
    return b"".join(chunks)
