"""The code grader on each kind of test, each kind of failure, and the public labelled sets."""

import itertools
import json
import socket
import sys
import threading
import time

import pytest
from helpers import test_data_dir

from stratos_jax.grading import code, code_task, pool
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.grading.sandbox import Sandbox
from stratos_jax.types import UserError

CONFIG = CodeConfig(packages=())


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(packages=(), stack_mb=CONFIG.stack_mb) as opened:
        yield opened


@pytest.fixture
def verdict(sandbox):
    def judge(program, tests, **more):
        task = code_task.read({"id": "p", "code": program, "tests": tests, **more}, CONFIG)
        return code.grade_one(sandbox, task, CONFIG)

    return judge


def stdin(*cases):
    return {"kind": "stdin", "cases": [{"input": i, "output": o} for i, o in cases]}


def call(name, *cases):
    return {"kind": "call", "fn_name": name, "cases": [{"args": a, "expected": e} for a, e in cases]}


@pytest.mark.parametrize(
    "program, given, printed",
    [
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", "1 2\n3\n", "6\n"),
        ("a = int(input())\nprint(a)\nimport sys\nsys.exit()", "7\n", "7\n"),
        ("print(open(0).read().upper(), end='')\nexit(0)", "abc", "ABC"),
        ("import os\nos.write(1, os.read(0, 10))", "abc", "abc"),
        ("print(len(open('/dev/stdin').read()))", "abc", "3"),
        ("import threading\nt=threading.Thread(target=lambda: print(input()))\nt.start()", "hi", "hi"),
        (
            "import threading\nb = threading.Barrier(50)\nts = [threading.Thread(target=b.wait) for _ in range(50)]\n"
            "[t.start() for t in ts]\n[t.join() for t in ts]\nprint(len(ts))",
            "",
            "50",
        ),
        ("import atexit\natexit.register(print, 'bye')\nprint('hi')", "", "hi\nbye\n"),
        ("if __name__ == '__main__':\n    print(1)", "", "1"),
        ("open('a.txt', 'w').write('x')\nprint(open('/tmp/a.txt').read())", "", "x"),
        ("import asyncio\nasync def f(): print(2)\nasyncio.run(f())", "", "2"),
        ("import multiprocessing as m\nq = m.Queue()\nprint(3)\nq.close()", "", "3"),
    ],
)
def test_scripts_run_as_on_a_judge(verdict, program, given, printed):
    assert verdict(program, stdin((given, printed))).reason == "code.passed"


def test_deep_recursion_in_the_main_thread_and_in_a_thread_with_a_large_stack(verdict):
    deep = "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
    compare = "class A:\n def __init__(s, n): s.n = n\n def __lt__(s, o): return s.n < 1 or A(s.n-1) < A(s.n-1)\n"
    in_thread = "import threading\nthreading.stack_size(512 << 20)\nt = threading.Thread(target=lambda: print({}))\n"
    assert verdict(deep + "print(f(90_000))", stdin(("", "90000"))).reason == "code.passed"
    depth = 20_000 if sys.version_info < (3, 12) else 5_000  # Python 3.12 has a limit of its own for recursion in C
    recurse_in_c = deep + compare + f"print(A({depth}) < A({depth}))"
    assert verdict(recurse_in_c, stdin(("", "True"))).reason == "code.passed"
    in_thread = deep + in_thread.format("f(90_000)") + "t.start()\nt.join()"
    assert verdict(in_thread, stdin(("", "90000"))).reason == "code.passed"


def test_big_input_and_output(verdict):
    numbers = " ".join(map(str, range(300_000)))
    program = "import sys\nprint(*sorted(map(int, sys.stdin.read().split()), reverse=True))"
    expected = " ".join(map(str, reversed(range(300_000))))
    assert verdict(program, stdin((numbers, expected))).reason == "code.passed"


@pytest.mark.parametrize(
    "program, reason",
    [
        ("print(2)", "code.wrong_answer"),
        ("print(1)\nimport sys\nsys.exit(3)", "code.runtime_error"),
        ("print(1)\n1/0", "code.runtime_error"),
        ("print(1)\nimport sys\nsys.exit('no')", "code.runtime_error"),
        ("print(1", "code.compile_error"),
        ("print(1)\nx = bytearray(3 << 30)", "code.memory_limit"),
        ("print(1)\nwhile True: pass", "code.time_limit"),
        ("print(1, flush=True)\nimport time\ntime.sleep(99)", "code.time_limit"),
        *(
            (f"print(1, flush=True)\nimport os\nos.kill(os.getpid(), {number})", "code.runtime_error")
            for number in (1, 2, 6, 9, 11, 14, 15)
        ),
        ("print(1, flush=True)\nimport os\nos.abort()", "code.runtime_error"),
        ("print(1, flush=True)\nimport signal, time\nsignal.setitimer(0, 0.05)\ntime.sleep(9)", "code.runtime_error"),
        ("print(1, flush=True)\nimport ctypes\nctypes.string_at(0)", "code.runtime_error"),
        ("print(1)\nwhile True: print('x' * 10**6)", "code.output_limit"),
    ],
)
def test_reasons_of_scripts(verdict, program, reason):
    found = verdict(program, stdin(("", "1")), time_limit_s=0.5)
    assert (found.outcome, found.reason) == ("wrong", reason)


def test_the_failing_test_is_named(verdict):
    found = verdict("print(input())", stdin(("1", "1"), ("2", "2"), ("3", "4")))
    assert found.reason == "code.wrong_answer" and "failed test 2 of 3" in found.extracted.splitlines()[-1]


@pytest.mark.parametrize(
    "program, cases",
    [
        ("def f(a, b): return a + b", [([1, 2], 3), ([[1], [2]], [1, 2])]),
        ("class Solution:\n    def f(self, a: List[int]) -> int: return Counter(a)[1]", [([[1, 1, 2]], 2)]),
        ("def f(n): return ((i, i) for i in range(n))", [([2], [[0, 0], [1, 1]])]),
        ("def f(n): return map(str, range(n))", [([2], ["0", "1"])]),
        ("def f(n): return {n: (n,)}", [([2], {"2": [2]})]),
        ("seen = []\ndef f(n):\n    seen.append(n)\n    return len(seen)", [([5], 1), ([5], 1)]),
        ("def f(n): return n / 2", [([2], 1)]),
    ],
)
def test_calls_compare_json_values(verdict, program, cases):
    assert verdict(program, call("f", *cases)).reason == "code.passed"


@pytest.mark.parametrize(
    "program, expected, reason",
    [
        ("def f(): return True", 1, "code.wrong_answer"),
        ("def f(): return {1, 2}", [1, 2], "code.wrong_answer"),
        ("def f(): return '1'", 1, "code.wrong_answer"),
        ("def f(): return object()", 1, "code.runtime_error"),
        ("def g(): return 1", 1, "code.runtime_error"),
        ("def f(): exit(0)", 1, "code.runtime_error"),
        ("def f(): return f()", 1, "code.runtime_error"),
    ],
)
def test_calls_that_fail(verdict, program, expected, reason):
    assert verdict(program, call("f", ([], expected))).reason == reason


ASSERTS = """
import math
data = [3, 1, 2]
order(data)
assert data == [1, 2, 3]
assert twice(lambda x: x + 1, 5) == 7
assert math.isclose(half(1), 0.5)
pair = Pair(1, 2)
assert total([pair, Pair(3, 4)]) == 10
pair.left = 5
assert total([pair]) == 7
assert list(count(3)) == [0, 1, 2] and {*count(2)} == {0, 1}
try:
    half('x')
except TypeError:
    pass
else:
    assert False
"""
PROGRAM = """
def order(x): x.sort()
def twice(f, x): return f(f(x))
def half(x): return x / 2
class Pair:
    def __init__(self, left, right): self.left, self.right = left, right
def total(pairs): return sum(p.left + p.right for p in pairs)
def count(n): yield from range(n)
"""


def test_asserts_see_arguments_changed_callbacks_objects_and_exceptions(verdict):
    assert verdict(PROGRAM, {"kind": "assert", "code": ASSERTS}).reason == "code.passed"
    broken = PROGRAM.replace("x.sort()", "x.reverse()")
    assert verdict(broken, {"kind": "assert", "code": ASSERTS}).reason == "code.wrong_answer"


VECTOR = """
class Vector:
    def __init__(self, *parts): self.parts = parts
    def __add__(self, other): return Vector(*(a + b for a, b in zip(self.parts, other.parts)))
    def __eq__(self, other): return isinstance(other, Vector) and self.parts == other.parts
    def __lt__(self, other): return self.parts < other.parts
    def __len__(self): return len(self.parts)
    def __getitem__(self, place): return self.parts[place]
    def __contains__(self, part): return part in self.parts
    def __str__(self): return f"<{self.parts}>"
    @property
    def size(self): return sum(self.parts)
    @classmethod
    def zero(cls): return cls(0, 0)
"""
USES = """
v = Vector(1, 2) + Vector(3, 4)
assert v == Vector(4, 6) and not v == Vector(4, 7) and v != Vector(0, 0) and v != (4, 6)
assert Vector(1, 2) < v and len(v) == 2 and v[1] == 6 and 4 in v and 5 not in v
assert str(v) == "<(4, 6)>" and v.size == 10 and Vector.zero().parts == (0, 0) and isinstance(v, Vector)
assert not isinstance(3, Vector) and sorted([v, Vector(1, 2)])[0] == Vector(1, 2) and list(v.parts) == [4, 6]
"""


def test_asserts_on_objects_of_the_programs_own_class(verdict):
    assert verdict(VECTOR, {"kind": "assert", "code": USES}).reason == "code.passed"
    wrong = VECTOR.replace("a + b", "a - b")
    assert verdict(wrong, {"kind": "assert", "code": USES}).reason == "code.wrong_answer"


@pytest.mark.parametrize(
    "tests, reason",
    [
        ("def check(f): assert f(1) == 2", "unknown.bad_tests"),
        ("assert (", "unknown.bad_tests"),
        ("assert g(1) == 2", "code.runtime_error"),
        ("assert f(1) == 3", "code.wrong_answer"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)\nunittest.main()",
         "code.passed"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 3)\nunittest.main()",
         "code.wrong_answer"),
    ],
)  # fmt: skip
def test_test_code_that_tests_nothing_or_ends_by_itself(verdict, tests, reason):
    assert verdict("def f(x): return x + 1", {"kind": "assert", "code": tests}).reason == reason


def test_an_entry_point_calls_check(verdict):
    tests = {"kind": "assert", "code": "def check(f): assert f(1) == 2", "entry_point": "inc"}
    assert verdict("def inc(x): return x + 1", tests).reason == "code.passed"
    assert verdict("def inc(x): return x", tests).reason == "code.wrong_answer"


CUSTOM = """
def check(input, output, expected):
    n, got = int(input), sorted(map(int, output.split()))
    return sum(got) == n and len(got) == int(expected)
"""


@pytest.mark.parametrize(
    "checker, program, reason",
    [
        (CUSTOM, "n = int(input())\nprint(1, n - 1)", "code.passed"),
        (CUSTOM, "n = int(input())\nprint(n - 3, 3)", "code.passed"),
        (CUSTOM, "n = int(input())\nprint(n)", "code.wrong_answer"),
        ("def check(input, output, expected): return 1 / 0", "print(1)", "unknown.bad_tests"),
        ("x = 1", "print(1)", "unknown.bad_tests"),
    ],
)
def test_a_custom_checker_runs_apart_from_the_program(verdict, checker, program, reason):
    found = verdict(program, stdin(("7\n", "2")), checker={"kind": "custom", "code": checker})
    assert found.reason == reason


def test_declared_checkers_reach_calls_and_scripts(verdict):
    thirds = "def f(): return [1 / 3, 2 / 3]"
    assert verdict(thirds, call("f", ([], [0.333333, 0.666667]))).reason == "code.wrong_answer"
    loose = {"kind": "floats", "tolerance": 1e-5}
    assert verdict(thirds, call("f", ([], [0.333333, 0.666667])), checker=loose).reason == "code.passed"
    assert verdict("def f(): return {3, 1}", call("f", ([], [1, 3])), checker="unordered").reason == "code.passed"
    assert verdict("print(1,   2)", stdin(("", "1 2")), checker="tokens").reason == "code.passed"


def test_packages_of_the_configuration_can_be_imported_and_others_not():
    pytest.importorskip("numpy")
    program = "import numpy as np\ndef f(n): return np.arange(n) * 2"
    record = {"id": "p", "code": program, "tests": call("f", ([3], [0, 2, 4]))}
    with_numpy = CodeConfig(packages=("numpy",))
    assert [v.reason for v in code.grade([record, record], with_numpy)] == ["code.passed"] * 2
    assert [v.reason for v in code.grade([record], CONFIG)] == ["code.runtime_error"]
    tests = {"kind": "assert", "code": "assert f(2) == [0, 2]"}
    assert [v.reason for v in code.grade([{**record, "tests": tests}], with_numpy)] == ["code.passed"]


def test_packages_below_the_temporary_folder(tmp_path, monkeypatch):
    package = tmp_path / "odd_place"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "later.py").write_text("VALUE = 7")
    monkeypatch.syspath_prepend(tmp_path)
    program = "import odd_place\ndef f():\n    from odd_place import later\n    return later.VALUE"
    record = {"id": "p", "code": program, "tests": call("f", ([], 7))}
    assert [v.reason for v in code.grade([record], CodeConfig(packages=("odd_place",)))] == ["code.passed"]


def test_verdicts_keep_the_order_and_stop_when_nobody_reads():
    slow = "import time\ntime.sleep(0.3)\nprint(1)"
    records = [{"id": str(i), "code": slow if i == 0 else "print(1)", "tests": stdin(("", "1"))} for i in range(6)]
    assert [v.id for v in code.grade(records, CONFIG, workers=3)] == list("012345")
    endless = ({"id": str(i), "code": "print(1)", "tests": stdin(("", "1"))} for i in itertools.count())
    verdicts = code.grade(endless, CONFIG)
    assert next(verdicts).id == "0"
    verdicts.close()
    sleeper = {"id": "s", "code": "import time\ntime.sleep(600)", "tests": stdin(("", "1")), "time_limit_s": 600}
    verdicts = code.grade([records[1], sleeper], CONFIG, workers=2)
    started = time.monotonic()
    assert next(verdicts).id == "1"
    verdicts.close()
    assert time.monotonic() - started < 300  # it does not wait for the one that sleeps


def test_a_helper_that_is_made_while_the_reader_leaves_does_no_work():
    """It would hold the reader up for as long as its work lasts."""
    making, made, worked = threading.Event(), threading.Event(), []

    class Helper:
        def close(self):
            pass

    def make():
        if threading.current_thread().name.endswith("_1"):
            making.set()
            made.wait(30)
        return Helper()

    def work(helper, item):
        making.wait(30)
        worked.append(item)
        return item

    results = pool.ordered(work, [1, 2], make, 2)
    assert next(results) == 1
    threading.Timer(0.2, made.set).start()
    results.close()
    assert worked == [1]


def test_bad_test_code_is_told_from_a_program_that_takes_long_to_begin(verdict):
    """The examiner gives up at once; the program, still on its way, must not pass for one that could not be started."""
    program = "def f(x): return x + 1\n" + "#" * (48 << 20)
    assert verdict(program, {"kind": "assert", "code": "assert ("}).reason == "unknown.bad_tests"


def test_a_fork_server_that_dies_is_replaced_and_the_verdict_stands():
    task = code_task.read({"id": "p", "code": "print(1)", "tests": stdin(("", "1"))}, CONFIG)
    with Sandbox(packages=(), stack_mb=64) as sandbox:
        sandbox._control.shutdown(socket.SHUT_RDWR)
        assert code.grade_one(sandbox, task, CONFIG).reason == "code.passed"
        sandbox.restart = lambda: None
        sandbox._control.shutdown(socket.SHUT_RDWR)
        assert code.grade_one(sandbox, task, CONFIG).reason == "unknown.infra"


def test_bad_records_are_refused_with_all_that_is_wrong():
    record = {"id": "p", "tests": {"kind": "call", "fn_name": "a b", "cases": []}, "time_limit_s": -1, "checker": "any"}
    with pytest.raises(UserError) as error:
        list(code.grade([record], CONFIG))
    for part in ("`code` and `response`", "fn_name", "cases", "time_limit_s", "checker", "record 1"):
        assert part in str(error.value)


def test_weak_isolation_is_refused(monkeypatch):
    monkeypatch.setattr(code, "probe_modes", lambda: ("seccomp", {"namespaces": "no", "landlock": "no"}))
    with pytest.raises(UserError, match="isolates programs less"):
        code.require_isolation(CodeConfig(weakest_isolation="landlock"))


STARTER = """
def poly(xs, x):
    return sum(c * x**i for i, c in enumerate(xs))

def root(xs):
    import math
    'Find x with poly(xs, x) == 0.'
"""


def test_helpers_that_the_problem_defines_are_not_the_programs_to_change(verdict):
    tests = {"kind": "assert", "code": "assert abs(poly([1, 2], root([1, 2]))) < 1e-6"}
    honest = STARTER + "    return -xs[0] / xs[1]\n"
    cheat = "def poly(xs, x): return 0\ndef root(xs): return 7\n"
    assert verdict(honest, tests, starter_code=STARTER).reason == "code.passed"
    assert verdict(cheat, tests, starter_code=STARTER).reason == "code.wrong_answer"
    assert verdict(cheat, tests).reason == "code.passed"  # nobody said what `poly` is


def load(name):
    folder = test_data_dir()
    return [] if folder is None else [json.loads(line) for line in (folder / name).read_text().splitlines()]


def humanevalpack(which, step=1):
    for row in load("verifier_humanevalpack_python.jsonl")[::step]:
        tests = {"kind": "assert", "code": row["test"]}
        code = row["prompt"] + row[which]
        yield {"id": row["task_id"], "code": code, "tests": tests, "time_limit_s": 2, "starter_code": row["prompt"]}


def mbpp(step=1):
    for row in load("mbpp.jsonl")[::step]:
        checks = "\n".join([row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]])
        yield {"id": row["task_id"], "code": row["code"], "tests": {"kind": "assert", "code": checks}}


def test_humanevalpack_labels():
    right = list(code.grade(humanevalpack("canonical_solution"), CONFIG, workers=2))
    assert [(v.id, v.reason) for v in right if v.outcome != "right"] == []
    wrong = list(code.grade(humanevalpack("buggy_solution", step=4), CONFIG, workers=2))
    assert [(v.id, v.reason) for v in wrong if v.outcome != "wrong"] == []


def test_mbpp_references():
    verdicts = list(code.grade(mbpp(step=5), CONFIG, workers=2))
    assert [(v.id, v.reason) for v in verdicts if v.outcome != "right"] == []


@pytest.mark.slow
def test_all_labels():
    wrong = list(code.grade(humanevalpack("buggy_solution"), CONFIG, workers=2))
    assert [(v.id, v.reason) for v in wrong if v.outcome != "wrong"] == []
    verdicts = list(code.grade(mbpp(), CONFIG, workers=2))
    assert [(v.id, v.reason) for v in verdicts if v.outcome != "right"] == []
