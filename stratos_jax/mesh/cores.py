"""A CPU as the device: its cores and its memory, both set before jax is imported.

In: the rows of a step. Out: settings of this process. Someone's own choice of either is left alone. Imports no jax.
"""

import glob
import math
import os
import platform
import sys
from collections.abc import Iterable

from stratos_jax.mesh.hosts import on_cluster

DEVICES, FLAG = "JAX_NUM_CPU_DEVICES", "--xla_force_host_platform_device_count"
TUNABLES = "GLIBC_TUNABLES"
KEEP = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=-1"
ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*")


def count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_device_per_core(rows_per_step: Iterable[int]) -> None:
    """A CPU device for each core, as far as they divide the rows of each step: rows side by side keep all cores busy.

    XLA loses a tenth of two cores when one device shares each operation out among them.
    """
    if DEVICES in os.environ or FLAG in os.environ.get("XLA_FLAGS", "") or on_cluster(os.environ):
        return
    rows = math.gcd(*rows_per_step)
    devices = max((n for n in range(1, min(count(), rows) + 1) if rows % n == 0), default=1)  # refused later: no rows
    os.environ[DEVICES] = str(devices)


def keep_memory() -> None:
    """Start this program anew with a malloc that keeps what is freed, in huge pages, if jax will compute on the CPU.

    XLA takes a step's buffers from malloc and gives them back after it; malloc would take them from the kernel each
    time, 150,000 pages of zeros. Alone on a machine that costs 5 % of a step, beside others up to 20 %.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc":
        return
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(glob.glob(pattern) for pattern in ACCELERATORS):
        return
    os.environ[TUNABLES] = KEEP  # malloc reads it once, when a program starts
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
