"""What a fresh child does to itself before any line of a program runs.

In: the isolation in force, the limits, and file descriptors. Out: never returns; the child ends inside.
"""

import dataclasses
import math
import mmap
import os
import platform
import resource

import kernel

MIB = 1 << 20
PAYLOAD, STDIN, STDOUT = 0, 1, 2  # places in the list of handles; what follows is handed to the entry as 3, 4 ...
FIRST_KEPT = 3


STARTED = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the fork server until a child lets go of it


def count_from_zero() -> None:
    STARTED[:2] = b"\0\0"


def mark_started(slot: int) -> None:
    """In a child, when all walls stand: from now on its end is the program's doing."""
    STARTED[slot] = 1
    STARTED.close()


def started() -> int:
    """How many children got as far as their program."""
    return STARTED[0] + STARTED[1]


@dataclasses.dataclass(frozen=True)
class Isolation:
    """Which walls stand here."""

    namespaces: bool
    landlock: int  # ABI version, 0 for none
    seccomp: bool
    readable: list[str]
    scratch: str


def child(entry, handles: list[int], limits: dict, isolation: Isolation, slot: int) -> None:
    """Confine this process, run `entry(payload, *kept descriptors)` and end with the status that it returns."""
    status = 99  # our own failure to get the program started
    try:
        os.setsid()
        payload = read_all(handles[PAYLOAD])
        kept = arrange(handles)
        os.chdir(isolation.scratch)
        set_limits(limits, own_user_count=isolation.namespaces)
        lock_down(isolation)
        mark_started(slot)
        status = entry(payload, *kept)
    finally:
        os._exit(status)


def read_all(fd: int) -> bytes:
    """The whole of a file in memory, whatever its offset."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def arrange(handles: list[int]) -> list[int]:
    """Standard streams at 0, 1, 2, the kept descriptors from 3 on, everything else closed."""
    null = os.open("/dev/null", os.O_RDWR)
    wanted = [handles[STDIN], handles[STDOUT], null, *handles[STDOUT + 1 :]]
    high = [os.dup2(null if fd < 0 else fd, 200 + i) for i, fd in enumerate(wanted)]
    for i, fd in enumerate(high):
        os.dup2(fd, i)
    os.closerange(len(wanted), 1 << 20)
    return list(range(FIRST_KEPT, len(wanted)))


def set_limits(limits: dict, *, own_user_count: bool) -> None:
    seconds = math.ceil(limits["cpu_s"]) + 1
    pairs = [
        (resource.RLIMIT_AS, (limits["memory_mb"] + limits["address_slack_mb"]) * MIB),
        (resource.RLIMIT_FSIZE, limits["output_mb"] * MIB),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 64 * 1024),
        (resource.RLIMIT_MSGQUEUE, 0),
    ]
    if own_user_count and kernel_version() >= (5, 14):  # before, the count spanned all processes of the user
        pairs.append((resource.RLIMIT_NPROC, limits["threads"]))
    for which, value in pairs:
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def kernel_version() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def lock_down(isolation: Isolation) -> None:
    """No new privileges, no capabilities; Landlock and seccomp where the kernel has them."""
    kernel.no_new_privileges()
    if isolation.landlock:
        readable = ["/"] if isolation.namespaces else [*isolation.readable, "/dev", "/proc/self"]
        kernel.landlock(readable, [isolation.scratch, "/dev/null"], isolation.landlock)
    kernel.drop_all_capabilities()
    if isolation.seccomp:
        kernel.load_seccomp(kernel.seccomp_filter(None if isolation.namespaces else os.getpid()))
