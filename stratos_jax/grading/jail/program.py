"""Runs one program in a confined child: as a script that reads standard input, or one call of one of its functions.

In: the payload, JSON with the program's text, and the descriptor for the result. Out: the exit status of the program as
a plain interpreter would give it; on the result descriptor, JSON that is the program's own claim: `value` of a call, or
`error`, the name of what it raised. The grader compares the value; it takes nothing that stands there on trust.
"""

import atexit
import builtins
import collections
import collections.abc
import json
import os
import site
import sys
import threading
import types

MODULES = (
    "abc array ast base64 bisect calendar cmath collections contextlib copy dataclasses datetime decimal enum "
    "fractions functools hashlib heapq inspect io itertools json math numbers operator queue random re signal socket "
    "statistics string struct textwrap threading time traceback types typing unittest"
)
JUDGE_STARS = "string collections heapq bisect copy math random statistics itertools functools operator typing"
THREAD_STACK = 16 << 20
JUDGE_NAMES: dict = {}  # what call-based judges put in scope before a `class Solution`


def preload() -> None:
    """In the fork server, once: what programs import most, so that they need not."""
    for name in MODULES.split():
        __import__(name)
    threading.stack_size(THREAD_STACK)  # the system's default is the main thread's, far too large for many threads
    site.setquit()  # the interpreter was started without `site`, whose `exit` programs use
    site.setcopyright()
    site.sethelper()
    for name in JUDGE_STARS.split():
        module = sys.modules[name]
        JUDGE_NAMES[name] = module
        JUDGE_NAMES.update(
            {n: getattr(module, n) for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")}
        )
    for name in dir(builtins):
        JUDGE_NAMES.pop(name, None)  # math.pow must not hide pow
    JUDGE_NAMES.update({"sys": sys, "re": sys.modules["re"], "json": json, "datetime": sys.modules["datetime"]})


def stdin(payload: bytes, result: int) -> int:
    """Run a program as a script, on a judge's terms."""
    job = json.loads(payload)
    open_streams()
    status = run_module("__main__", job, result)
    return finish(status)


def call(payload: bytes, result: int) -> int:
    """Load a program as a module and call one of its functions, or a method of its class `Solution`."""
    job = json.loads(payload)
    open_streams()
    sys.setrecursionlimit(job["recursion_limit"])
    status = run_module("solution", job, result)
    if status:
        return status
    try:
        function = find(sys.modules["solution"].__dict__, job["function"])
        value = plain(function(*job["args"], **job["kwargs"]))
        text = json.dumps({"value": value})
    except BaseException as error:
        tell(result, type(error).__name__, str(error))
        return 1
    os.pwrite(result, text.encode("utf-8", "surrogatepass"), 0)
    return finish(0)


def open_streams() -> None:
    """Fresh text streams over descriptors 0 and 1, as the interpreter makes them at start-up."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.argv = ["solution.py"]


def run_module(name: str, job: dict, result: int) -> int:
    """Execute the text as module `name`; the status with which a plain interpreter would end, 0 for going on."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    if name == "solution" and "class Solution" in job["code"]:
        module.__dict__.update(JUDGE_NAMES)
    try:
        code = compile(job["code"], "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
        tell(result, "compile", str(error))
        return 1
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        return exit_status(error.code) if name == "__main__" else refuse_exit(result)
    except BaseException as error:
        tell(result, type(error).__name__, str(error))
        return 1
    return 0


def exit_status(code: object) -> int:
    return 0 if code is None else code & 0xFF if isinstance(code, int) else 1


def refuse_exit(result: int) -> int:
    """A module that exits while it is loaded has no function to call."""
    tell(result, "SystemExit", "while the program was loaded")
    return 1


def finish(status: int) -> int:
    """What the interpreter does at its end: wait for threads, run exit handlers, flush."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        return 120 if isinstance(error, OSError) else status
    return status


def tell(result: int, kind: str, text: str) -> None:
    """The program's own account of its end: chooses the words of a verdict, never its outcome."""
    os.pwrite(result, json.dumps({"error": kind, "text": text[:200]}).encode(), 0)


def find(names: dict, function: str):
    """The bare function, or the method of a fresh `Solution`; the class wins, as on the judges that use it."""
    solution = names.get("Solution")
    if isinstance(solution, type) and hasattr(solution, function):
        return getattr(solution(), function)
    return names[function]


def plain(value):
    """A returned value as JSON: tuples are lists, iterators are materialised, sets are marked as such."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return {"__set__": [plain(item) for item in value]}
    if isinstance(value, (list, tuple, collections.deque, range)) or hasattr(value, "__next__"):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, array.array
        return plain(value.tolist())
    if isinstance(value, (collections.abc.KeysView, collections.abc.ValuesView, collections.abc.ItemsView, map, zip)):
        return [plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} is no JSON value")
