"""Settings of the code grader."""

import dataclasses
from typing import Literal

IsolationMode = Literal["namespaces", "landlock", "seccomp", "rlimits"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CodeConfig:
    """Limits and isolation of one run of a program; a record's own `time_limit_s` and `memory_limit_mb` win."""

    time_limit_s: float = 6.0  # processor time of one test
    memory_limit_mb: int = 1024  # resident, of one program
    wall_factor: float = 2.0  # a test may take so many time limits by the clock (plus one second), e.g. asleep
    patience_factor: float = 10.0  # ... and so many when it waits for a core; past that the verdict is unknown
    stack_mb: int = 1024  # main thread's stack, and address space on top of the memory limit for threads' stacks
    output_mb: int = 16  # of printed text and of any file
    scratch_mb: int = 64  # working folder, in memory
    threads: int = 64
    recursion_limit: int = 50_000  # where a program is called; a script sets its own
    packages: tuple[str, ...] = ("numpy",)  # beside the standard library, where installed
    weakest_isolation: IsolationMode = "landlock"  # less than that, where programs could read the tests, is refused
