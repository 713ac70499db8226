"""The fork server: waits on a socket for jobs and runs each program in a clean, confined child of its own.

In: argv[1], JSON with `control` (fd), `mode`, `readable`, `packages`, `scratch`, `stack_mb`; then messages on the
control socket, each a JSON header with file descriptors. Out: one JSON reply per message: how each child ended.
Nothing of a program reaches this process: children read their own payload from the descriptors they are given.
"""

import array
import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import confine
import exam
import kernel
import program
import room

sys.path.pop(0)

SHORTEST_WAIT_S = 0.01


def main() -> None:
    options = json.loads(sys.argv[1])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) == signal.SIG_IGN:  # inherited, from nohup say; a program's death must show
            signal.signal(number, signal.SIG_DFL)
    widen_stack(options["stack_mb"] << 20, options["control"])
    control = socket.socket(fileno=options["control"])
    try:
        isolation = settle(options, control.fileno())
    except OSError as error:
        control.send(json.dumps({"problem": error.strerror or str(error)}).encode())
        return
    sys.path.extend(options["packages"])
    program.preload()
    gc.collect()
    gc.freeze()
    cells = room.Cells(2) if isolation.namespaces else None
    control.send(json.dumps({"landlock": isolation.landlock, "seccomp": isolation.seccomp}).encode())
    serve(control, isolation, cells)


def widen_stack(wanted: int, control: int) -> None:
    """The main thread's stack is laid out at exec, so a deeper one takes one more exec."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != limit:
        resource.setrlimit(resource.RLIMIT_STACK, (limit, hard))
        os.set_inheritable(control, True)
        os.execv(sys.executable, sys.orig_argv)


def settle(options: dict, control: int) -> confine.Isolation:
    """Take up the isolation that the mode names; OSError where the kernel refuses."""
    mode = options["mode"]
    if mode == "namespaces":
        room.enter(options["readable"], control)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no program may look into this process or into another program
    landlock = kernel.landlock_abi() if mode in ("namespaces", "landlock") else 0
    seccomp = mode != "rlimits" and kernel.seccomp_available()
    if mode == "landlock" and not landlock:
        raise OSError(0, "this kernel has no Landlock")
    if mode in ("landlock", "seccomp") and not seccomp:
        raise OSError(0, "this kernel has no seccomp filters")
    if seccomp:
        kernel.seccomp_filter(None)  # built here once, inherited by every child
    return confine.Isolation(
        namespaces=mode == "namespaces",
        landlock=landlock,
        seccomp=seccomp,
        readable=options["readable"],
        scratch=room.SCRATCH if mode == "namespaces" else os.path.join(options["scratch"], "box"),
    )


def serve(control: socket.socket, isolation: confine.Isolation, cells: room.Cells | None) -> None:
    """One message, one reply, until the other side hangs up."""
    while True:
        data, ancillary, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(16 * 4))
        if not data:
            return
        fds = array.array("i", b"".join(payload for _, _, payload in ancillary)).tolist()
        request = json.loads(data)
        for package in request["preload"]:
            __import__(package)
        try:
            reply = run(request, fds, isolation, cells, control)
            if cells and not isolation.seccomp:
                cells.renew()  # a program may have left processes
        except OSError as error:
            reply = {"problem": f"{type(error).__name__}: {error}"}
        finally:
            for fd in fds:
                os.close(fd)
        control.send(json.dumps(reply).encode())


def run(
    request: dict, fds: list[int], isolation: confine.Isolation, cells: room.Cells | None, control: socket.socket
) -> dict:
    """Start the children that a request names, wait for them within its limits, and leave nothing behind."""
    limits = request["limits"]
    start = lambda entry, handles: spawn(entry, handles, limits, isolation, cells, len(children))
    enter_scratch(isolation, limits["scratch_mb"])
    confine.count_from_zero()
    children: list[int] = []
    try:
        if request["kind"] == "exam":
            ours, theirs = socket.socketpair()
            with ours, theirs:
                children.append(start(exam.examine, [fds[0], -1, -1, fds[1], ours.fileno()]))
                children.append(start(exam.answer, [fds[2], -1, -1, theirs.fileno()]))
        else:
            children.append(start(getattr(program, request["kind"]), fds))
        reply = wait(children, limits, control)
        if reply["killed"] or confine.started() == len(children):
            return reply
        return {"problem": "a child failed before its program began"}
    except BaseException:
        for pid in children:
            end(pid)
        raise
    finally:
        leave_scratch(isolation)


def spawn(
    entry, handles: list[int], limits: dict, isolation: confine.Isolation, cells: room.Cells | None, slot: int
) -> int:
    """Fork a child, in a process namespace of its own where there are any, that confines itself and runs `entry`."""
    pid = cells.fork(slot) if cells else os.fork()
    if pid == 0:
        confine.child(entry, handles, limits, isolation, slot)
    return pid


def wait(children: list[int], limits: dict, control: socket.socket) -> dict:
    """Until the first child ends or a limit is passed; then everything of all children is dead and counted."""
    started = time.monotonic()
    main = os.pidfd_open(children[0])
    poller = select.poll()
    poller.register(main, select.POLLIN)
    poller.register(control, 0)  # hang-ups are always reported: the grader is gone, so nobody wants the answer
    killed = ""
    while not killed:
        cpu, delayed = sum(map(cpu_seconds, children)), sum(map(queued_seconds, children))
        wall = time.monotonic() - started
        left = min(limits["cpu_s"] - cpu, limits["wall_s"] - (wall - delayed), limits["patience_s"] - wall)
        if left <= 0:
            killed = "cpu" if cpu >= limits["cpu_s"] else "starved" if wall >= limits["patience_s"] else "wall"
            break
        ready = [fd for fd, _ in poller.poll(max(left, SHORTEST_WAIT_S) * 1000)]
        if control.fileno() in ready:
            raise SystemExit
        if ready:
            break
    os.close(main)
    wall = time.monotonic() - started
    if killed:
        end(children[0], reap=False)
    return {"killed": killed, "wall_s": wall, "exits": [end(pid, spare=pid == children[0]) for pid in children]}


def end(pid: int, *, spare: bool = False, reap: bool = True) -> dict:
    """Kill (unless it ended by itself) and reap one child; what it used. Its pid namespace dies with it."""
    if not spare:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return {}
    if not reap:
        return {}
    _, status, usage = os.wait4(pid, 0)
    try:
        os.killpg(pid, signal.SIGKILL)  # where no pid namespace does it
    except (ProcessLookupError, PermissionError):
        pass
    return {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / 1024,
    }


def cpu_seconds(pid: int) -> float:
    """What all threads of a living process have used; 0 for a dead one, whose use is counted when it is reaped."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def queued_seconds(pid: int) -> float:
    """How long a process was ready but had no core: a busy machine's fault, not the program's."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def enter_scratch(isolation: confine.Isolation, megabytes: int) -> None:
    if isolation.namespaces:
        room.fresh_scratch(megabytes)
    else:
        os.mkdir(isolation.scratch, mode=0o700)


def leave_scratch(isolation: confine.Isolation) -> None:
    if isolation.namespaces:
        room.drop_scratch()
    else:
        empty(isolation.scratch)
        os.rmdir(isolation.scratch)


def empty(folder: str) -> None:
    """Remove all that a program left, however deep: each folder's contents move up before it is removed."""
    os.chmod(folder, 0o700)
    top, fresh = os.open(folder, os.O_RDONLY | os.O_DIRECTORY), 0
    while names := os.listdir(top):
        for name in names:
            if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=top)
                continue
            os.chmod(name, 0o700, dir_fd=top)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            for deeper in os.listdir(inner):
                fresh += 1
                os.rename(deeper, f".{fresh}.{os.urandom(8).hex()}", src_dir_fd=inner, dst_dir_fd=top)
            os.close(inner)
            os.rmdir(name, dir_fd=top)
    os.close(top)


if __name__ == "__main__":
    main()
