"""Linux system calls that Python lacks: namespaces, mounts, capabilities, Landlock, seccomp.

In: plain numbers and paths. Out: an `OSError` where the kernel refuses. Knows nothing of programs or tests.
"""

import ctypes
import errno
import functools
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_CAPBSET_DROP = 4, 8, 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2

# Numbers that are the same on every architecture (the table was unified in Linux 5.1).
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 442, 444, 445, 446

MACHINE = os.uname().machine
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where that architecture has no such call.
SYSCALLS = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    "execve": (59, 221), "execveat": (322, 281), "socket": (41, 198), "pivot_root": (155, 41),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122), "sched_setparam": (142, 118),
}  # fmt: skip
DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    "personality": (135, 92), "migrate_pages": (256, 238), "move_pages": (279, 239), "setpriority": (141, 140),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "ioprio_set": (251, 30), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "lookup_dcookie": (212, 18), "vhangup": (153, 58),
}  # fmt: skip
# What Landlock does not cover and a file's owner may do to any file it can name.
OWNERS_DENIED = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip


def call(number: int, *args) -> int:
    """Raw system call by number."""
    result = libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"syscall {number}")
    return result


def checked(name: str, *args) -> int:
    """A libc function that returns -1 on error."""
    result = getattr(libc, name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


def unshare(flags: int) -> None:
    checked("unshare", flags)


def setns(fd: int, kind: int) -> None:
    checked("setns", fd, kind)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encode = lambda text: None if text is None else os.fsencode(text)
    checked("mount", encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data))


def umount(target: str) -> None:
    checked("umount2", os.fsencode(target), MNT_DETACH)


def make_read_only(target: str, *, recursive: bool = True) -> None:
    """The mount: read-only, no set-uid, no devices; works on mounts locked by a user namespace too."""
    at_recursive, read_only_nosuid_nodev = 0x8000, 1 | 2 | 4
    attr = struct.pack("QQQQ", read_only_nosuid_nodev, 0, 0, 0)
    flags = at_recursive if recursive else 0
    call(SYS_MOUNT_SETATTR, -100, os.fsencode(target), flags, attr, ctypes.c_size_t(len(attr)))


def pivot_root(new_root: str) -> None:
    """Make `new_root` the root and let go of the old one."""
    os.chdir(new_root)
    number = SYSCALLS["pivot_root"][MACHINE == "aarch64"]
    assert number is not None
    call(number, b".", b".")
    umount(".")
    os.chdir("/")


def prctl(option: int, *args: int) -> int:
    return checked("prctl", option, *[ctypes.c_ulong(a) for a in (*args, 0, 0, 0, 0)[:4]])


def set_capabilities(mask: int) -> None:
    """Effective = permitted = mask; inheritable none."""
    header = struct.pack("Ii", 0x20080522, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    checked("capset", header, struct.pack("6I", low, low, 0, high, high, 0))


def get_permitted() -> int:
    """Mask of the permitted capabilities."""
    header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    checked("capget", header, data)
    words = struct.unpack("6I", data.raw)
    return words[1] | words[4] << 32


def drop_all_capabilities() -> None:
    """No capability now, none by exec, none by ambient set."""
    for number in range(64):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break  # past the last capability, or not allowed; the two steps below are what binds
    libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    set_capabilities(0)


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers; 0 where there is none."""
    try:
        return call(SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def landlock(readable: list[str], writable: list[str], abi: int) -> None:
    """From here on: read and map files below `readable`, everything below `writable`, no TCP, no signals to outside."""
    execute, write_file, read_file, read_dir = 1, 2, 4, 8
    all_access = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    tcp = 3 if abi >= 4 else 0
    scoped = 3 if abi >= 6 else 0
    attr = struct.pack("QQQ", all_access, tcp, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = call(SYS_LANDLOCK_CREATE, attr, ctypes.c_size_t(len(attr)), 0)
    file_access = execute | write_file | read_file | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    for paths, access in ((readable, read_file | read_dir), (writable, all_access & ~execute)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # not there, so not readable either
            allowed = access if os.path.isdir(path) else access & file_access
            call(SYS_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", allowed, fd), 0)
            os.close(fd)
    call(SYS_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


@functools.cache
def seccomp_filter(own_pid: int | None) -> bytes:
    """A BPF program that refuses new processes, exec, sockets but AF_UNIX, and what a test has no use for.

    `own_pid`: without namespaces; other processes, the host's sockets and the modes of files are out of reach, too.
    """
    load, jump_eq, jump_ge, jump_set, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    arm = MACHINE == "aarch64"
    number = lambda name: (SYSCALLS.get(name) or DENIED.get(name) or OWNERS_DENIED[name])[arm]
    code: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (jump_eq, 1, 0, AUDIT_ARCH[MACHINE]),
        (give, 0, 0, kill),
        (load, 0, 0, 0),
    ]
    if not arm:
        code += [(jump_ge, 0, 1, 0x40000000), (give, 0, 0, kill)]  # the x32 doors to the same calls
    alone = ["pidfd_send_signal", "socket", *OWNERS_DENIED] if own_pid else []  # a socketpair remains
    for name in [*DENIED, "fork", "vfork", "execve", "execveat", *alone]:
        if number(name) is not None:
            code += [(jump_eq, 0, 1, number(name)), (give, 0, 0, refuse)]
    code += [(jump_eq, 0, 1, number("clone3")), (give, 0, 0, absent)]  # libc then falls back to clone
    clone_thread, af_unix, low_argument_0 = 0x10000, 1, 16
    code += [
        (jump_eq, 0, 4, number("clone")),
        (load, 0, 0, low_argument_0),
        (jump_set, 0, 1, clone_thread),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
        (jump_eq, 0, 4, number("socket")),
        (load, 0, 0, low_argument_0),
        (jump_eq, 0, 1, af_unix),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    if own_pid:
        signals = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
        for name in (*signals, "prlimit64", "sched_setaffinity", "sched_setparam"):
            code += [
                (jump_eq, 0, 5, number(name)),
                (load, 0, 0, low_argument_0),
                (jump_eq, 1, 0, own_pid),
                (jump_eq, 0, 1, own_pid if name in signals else 0),
                (give, 0, 0, allow),
                (give, 0, 0, refuse),
            ]
    code += [(give, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def no_new_privileges() -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def load_seccomp(filter_bytes: bytes) -> None:
    """Install a filter for this process and all threads to come; needs `no_new_privileges` before."""
    buffer = ctypes.create_string_buffer(filter_bytes, len(filter_bytes))
    program = struct.pack("HxxxxxxQ", len(filter_bytes) // 8, ctypes.addressof(buffer))
    checked("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def seccomp_available() -> bool:
    """Whether filters exist here and we know this machine's call numbers."""
    return sys.platform == "linux" and MACHINE in AUDIT_ARCH and libc.prctl(21, 0, 0, 0, 0) >= 0
