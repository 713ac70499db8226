"""Programs that attack the grader: each is contained, none is judged right, the next one finds all as it was."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from stratos_jax.grading import code, code_task
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.grading.sandbox import Sandbox, SandboxError

CONFIG = CodeConfig(
    packages=(),
    time_limit_s=0.5,
    wall_factor=1.0,
    patience_factor=200,
    memory_limit_mb=256,
    stack_mb=256,
    output_mb=4,
    scratch_mb=8,
)
SECRET = "wmbsbujpo"  # stands in the tests and expected outputs alone; programs spell it shifted by one


@pytest.fixture(scope="module", params=["namespaces", pytest.param("landlock", marks=pytest.mark.slow)])
def sandbox(request):
    try:
        opened = Sandbox(packages=(), stack_mb=CONFIG.stack_mb, mode=request.param)
    except SandboxError as error:
        pytest.skip(f"the kernel has no {request.param}: {error}")
    with opened:
        yield opened


def judge(sandbox, program, tests, **more):
    return code.grade_one(sandbox, code_task.read({"id": "p", "code": program, "tests": tests, **more}, CONFIG), CONFIG)


def script(output=SECRET, given=""):
    return {"kind": "stdin", "cases": [{"input": given, "output": output}]}


CALL = {"kind": "call", "fn_name": "f", "cases": [{"args": [1], "expected": SECRET}]}
ASSERT = {"kind": "assert", "code": f"assert f(1) == '{SECRET}'\nassert f(2) == '{SECRET}'"}
HUNT = "SECRET = ''.join(chr(ord(c) - 1) for c in 'xnctcvkqp')\n"
assert "".join(chr(ord(c) - 1) for c in "xnctcvkqp") == SECRET


def processes():
    """Ids of all processes but this one's helpers that come and go."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def assert_clean(sandbox):
    """The next program on the same worker runs as if nothing had been before it."""
    checks = "import os, builtins, sys, threading\nassert os.listdir('.') == [], os.listdir('.')\n"
    checks += "assert len('ab') == 2 and threading.active_count() == 1 and 'poison' not in sys.modules\n"
    checks += "open('w', 'w').write('x')\nprint(input())"
    found = judge(sandbox, checks, script("fine", "fine"))
    assert found.reason == "code.passed", found


RESOURCES = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb that hides its errors": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "fork by libc": "import ctypes\nif ctypes.CDLL(None).fork() < 0: raise SystemExit(1)",
    "clone by number": "import ctypes\nif ctypes.CDLL(None).syscall(56 if __import__('os').uname().machine == 'x86_64' "
    "else 220, 17, 0, 0, 0, 0) < 0: raise SystemExit(1)",
    "clone3 by number": "import ctypes\nif ctypes.CDLL(None).syscall(435, bytes(88), 88) < 0: raise SystemExit(1)",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "orphan daemon": f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(99)\nprint('{SECRET}')",
    "daemon by subprocess": f"import subprocess\nsubprocess.Popen(['sleep', '99'])\nprint('{SECRET}')",
    "shell": "import os\nif os.system('true'): raise SystemExit(1)",
    "exec": "import os, sys\nos.execv(sys.executable, ['python'])",
    "10 GB": "x = bytearray(10 << 30)",
    "10 GB piece by piece": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "10 GB shared": "import mmap\nx = mmap.mmap(-1, 10 << 30)\nwhile True: x.write(b'1' * (1 << 20))",
    "10 GB of int": "x = 1 << (10 << 33)",
    "resident over the limit": f"x = bytearray(b'1') * (300 << 20)\nprint('{SECRET}')",
    "endless output": "while True: print('x' * 1000)",
    "endless output that hides its errors": "import os\nwhile True:\n    try: os.write(1, b'x' * 10**6)\n"
    "    except OSError: pass",
    "full disk": "for i in range(10**6):\n    open(str(i), 'wb').write(b'x' * 10**6)",
    "files without end": "for i in range(10**6):\n    open(str(i), 'w').close()\nprint(1)",
    "folders in folders": "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
    "processor": "while True: pass",
    "sleep": "import time\ntime.sleep(99)",
    "ignores all signals": "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "swallows every exception": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "never ends its threads": f"import threading as t\nprint('{SECRET}')\nt.Thread(target=t.Event().wait).start()",
    "endless at exit": f"import atexit\natexit.register(lambda: [0 for _ in iter(int, 1)])\nprint('{SECRET}')",
    "lifts its limits": "import resource\nfor n in range(16):\n    s, h = resource.getrlimit(n)\n"
    "    resource.setrlimit(n, (h, h))\nx = bytearray(10 << 30)",
    "crash": "import ctypes\nctypes.string_at(0)",
    "abort": "import os\nos.abort()",
    "kills itself": f"import os, signal\nprint('{SECRET}', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("name", RESOURCES)
def test_resources(sandbox, name):
    before = processes()
    found = judge(sandbox, RESOURCES[name], script())
    assert found.outcome == "wrong", found
    assert_clean(sandbox)
    left = [pid for pid in processes() - before if owner_is_sandbox(pid, sandbox)]
    assert left == []


def owner_is_sandbox(pid, sandbox):
    """Whether a process descends from the sandbox and is none of its own two."""
    try:
        chain, status = pid, pathlib.Path(f"/proc/{pid}/stat").read_text()
        while chain > 1:
            chain = int(pathlib.Path(f"/proc/{chain}/stat").read_text().rpartition(")")[2].split()[1])
            if chain == sandbox._process.pid:
                return " Z " not in status
    except OSError:
        pass
    return False


def reach(tmp_path):
    """Attacks on files, processes and the network; each prints the secret only where it got through."""
    outside = tmp_path / "outside.txt"
    outside.write_text(SECRET)
    won = f"print('{SECRET}')"
    tries = {
        "reads a file outside": f"print(open({str(outside)!r}).read())",
        "reads it through a link": f"import os\nos.symlink({str(outside)!r}, 'l')\nprint(open('l').read())",
        "reads it through /proc": f"print(open('/proc/1/root{outside}').read())",
        "writes outside": f"open({str(tmp_path / 'new')!r}, 'w').write('x')\n{won}",
        "writes through a link": f"import os\nos.symlink({str(tmp_path)!r}, 'd')\nopen('d/new', 'w').write('x')\n{won}",
        "changes a mode outside": f"import os\nos.chmod({str(outside)!r}, 0)\n{won}",
        "changes the mode of a folder above": f"import os\nos.chmod({str(tmp_path)!r}, 0)\n{won}",
        "changes times outside": f"import os\nos.utime({str(outside)!r}, (0, 0))\n{won}",
        "changes an owner outside": f"import os\nos.chown({str(outside)!r}, 12345, 12345)\n{won}",
        "changes the mode of the interpreter": f"import os, json\nos.chmod(json.__file__, 0o600)\n{won}",
        "changes attributes outside": f"import os\nos.setxattr({str(outside)!r}, 'user.x', b'1')\n{won}",
        "truncates outside": f"import os\nos.truncate({str(outside)!r}, 0)\n{won}",
        "renames outside": f"import os\nos.rename({str(outside)!r}, {str(outside) + '2'!r})\n{won}",
        "removes outside": f"import os\nos.unlink({str(outside)!r})\n{won}",
        "makes a hard link": f"import os\nos.link({str(outside)!r}, 'l')\nprint(open('l').read())",
        "writes to the interpreter": f"import os, json\nopen(json.__file__, 'a').write('#')\n{won}",
        "adds to the library": f"import os\nopen(os.path.dirname(os.__file__) + '/poison.py', 'w').write('')\n{won}",
        "reads the home": f"import os\nos.chdir({str(pathlib.Path.home())!r})\n[open(n) for n in os.listdir()]\n{won}",
        "reads the shadow file": f"open('/etc/shadow').read()\n{won}",
        "reads the grader's environment": f"open('/proc/{os.getpid()}/environ').read()\n{won}",
        "reads the memory of process 1": f"open('/proc/1/mem', 'rb').seek(4096)\n{won}",
        "network": f"import socket\nsocket.create_connection(('127.0.0.1', 22), 1)\n{won}",
        "network, any family": f"import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n{won}",
        "netlink": f"import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n{won}",
        "name service": f"import socket\nsocket.gethostbyname('example.org')\n{won}",
        "url": f"import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')\n{won}",
        "kills the parent": f"import os\nos.kill(os.getppid() or 999999, 9)\n{won}",
        "kills the grader": f"import os\nos.kill({os.getpid()}, 0)\n{won}",
        "limits the grader": f"import resource\nresource.prlimit({os.getpid()}, resource.RLIMIT_CPU, (1, 1))\n{won}",
        "pins the grader": f"import os\nos.sched_setaffinity({os.getpid()}, {{0}})\n{won}",
        "a socket of the host": f"import socket\nsocket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})\n{won}",
        "mounts": f"import ctypes\nif ctypes.CDLL(None).mount(b'a', b'/tmp', b'tmpfs', 0, 0): exit(1)\n{won}",
        "unmounts": f"import ctypes\nif ctypes.CDLL(None).umount2(b'/tmp', 2): exit(1)\n{won}",
        "new user namespace": f"import ctypes\nif ctypes.CDLL(None).unshare(0x10000000): exit(1)\n{won}",
        "chroot": f"import os\nos.chroot('/tmp')\n{won}",
        "becomes root": f"import os\nos.setuid(0)\nopen('/etc/shadow').read()\n{won}",
        "traces": f"import ctypes\nif ctypes.CDLL(None).ptrace(16, 1, 0, 0): exit(1)\n{won}",
        "file in memory": f"import os\nos.memfd_create('x')\n{won}",
        "message queue": f"import ctypes\nif ctypes.CDLL(None).msgget(7, 0o1600) < 0: exit(1)\n{won}",
        "device": f"import os\nos.mknod('sda', 0o60600, os.makedev(8, 0))\nopen('sda')\n{won}",
        "raises its priority": f"import os\nos.nice(-5)\n{won}",
    }
    return outside, tries


NUM_REACH = 41


@pytest.mark.parametrize("place", range(NUM_REACH))
def test_reach(sandbox, tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    outside, tries = reach(tmp_path)
    assert len(tries) == NUM_REACH
    name = list(tries)[place]
    before = (outside.stat().st_mode, outside.stat().st_mtime_ns, tmp_path.stat().st_mode)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()
        found = judge(sandbox, tries[name], script())
        os.unlink("s")
    assert found.outcome == "wrong" and found.reason != "code.wrong_answer", (name, found)
    assert list(tmp_path.iterdir()) == [outside] and outside.read_text() == SECRET
    assert (outside.stat().st_mode, outside.stat().st_mtime_ns, tmp_path.stat().st_mode) == before
    assert_clean(sandbox)


def test_signals_to_all_and_to_the_group_reach_nobody_else(sandbox):
    for target in ("-1", "0", "os.getppid()"):
        attack = f"import os\ntry: os.kill({target}, 9)\nexcept OSError: pass\nprint('{SECRET}'[::-1])"
        assert judge(sandbox, attack, script()).outcome == "wrong"
        assert_clean(sandbox)


FORGED = {
    "exits with 0": "import os\nos._exit(0)",
    "exits with 0 later": "import os\ndef f(x): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "sys.exit later": "import sys\ndef f(x): sys.exit(0)",
    "prints markers": "print('{\"passed\": true}', 'OK', 'PASSED')\ndef f(x): print('{\"passed\": true}')",
    "writes to every descriptor": "import os\nfor fd in range(64):\n"
    "    for data in (b'{\"passed\": true}', b'\\0' * 8):\n"
    "        try: os.pwrite(fd, data, 0)\n        except OSError:\n"
    "            try: os.write(fd, data)\n            except OSError: pass\ndef f(x): return None\nos._exit(0)",
    "claims a value and exits": "import os\nos.pwrite(3, b'{\"value\": true, \"passed\": true}', 0)\nos._exit(0)",
    "equals everything": "class E:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n"
    "    __hash__ = None\n    def __len__(s): return 9\n    def __bool__(s): return True\ndef f(x): return E()",
    "a str that equals everything": "class E(str):\n    def __eq__(s, o): return True\n"
    "    def __ne__(s, o): return False\n"
    "    __hash__ = str.__hash__\ndef f(x): return E('a')",
    "patches builtins": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\n"
    "builtins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True\nbuiltins.all = lambda *a: True\n"
    "builtins.str = type('S', (), {'__eq__': lambda s, o: True})\ndef f(x): return 'a'",
    "shadows builtins": "abs = len = sorted = all = any = print = lambda *a: 0\nAssertionError = Exception\n"
    "def f(x): return 'a'",
    "patches json": "import json\njson.dumps = lambda *a, **k: '{\"passed\": true}'\ndef f(x): return 'a'",
    "patches its harness": "import sys\nfor m in list(sys.modules.values()):\n"
    "    for n in ('run_tests', 'tell', 'examine', 'finish', 'revive'):\n"
    "        if hasattr(m, n): setattr(m, n, lambda *a: None)\ndef f(x): return 'a'",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise SystemExit(0)",
    "trace": "import sys, os\ndef t(*a):\n    return t\nsys.settrace(t)\nsys.setprofile(lambda *a: os._exit(0))\n"
    "def f(x): return 'a'",
    "raises what ends tests": "class Stop(BaseException): pass\ndef f(x): raise GeneratorExit",
    "not implemented": "def f(x): return NotImplemented",
    "never answers": "import time\ndef f(x): time.sleep(99)",
    "hangs up": "import os\ndef f(x):\n    os.closerange(3, 64)\n    return 'a'",
    "floods the line": "import os\ndef f(x):\n    while True: os.write(3, b'\\xff' * 65536)",
    "huge value": "def f(x): return 'a' * 10**9",
    "endless value": "def f(x):\n    while True: yield x",
    "deep value": "def f(x):\n    v = []\n    for _ in range(10**5): v = [v]\n    return v",
    "cyclic value": "def f(x):\n    v = []\n    v.append(v)\n    return v",
}  # fmt: skip


@pytest.mark.parametrize("tests", [script(), CALL, ASSERT], ids=["script", "call", "assert"])
@pytest.mark.parametrize("name", FORGED)
def test_forged_success(sandbox, name, tests):
    found = judge(sandbox, FORGED[name], tests)
    assert found.outcome == "wrong", found
    assert_clean(sandbox)


YES = "lambda s, *o: True"
ZERO = "lambda s, *o: 0"
AGREEABLE = {
    "compares and counts as one likes": "class E:\n"
    + "".join(f"    __{n}__ = {YES}\n" for n in "eq ne lt le gt ge contains instancecheck".split())
    + "".join(f"    __{n}__ = {ZERO}\n" for n in "add sub mul truediv radd rsub rmul abs round neg hash".split())
    + "    __float__ = lambda s: 3.0\n    __index__ = __int__ = lambda s: 3\n"
    + "def f(x): return E()",
    "a float that does": "class E(float):\n"
    + "".join(f"    __{n}__ = {YES}\n" for n in "eq ne lt le gt ge".split())
    + "".join(f"    __{n}__ = {ZERO}\n" for n in "add sub mul radd rsub rmul abs round neg hash".split())
    + "def f(x): return E(1.5)",
    "not a number": "def f(x): return float('nan')",
    "its own abs and isclose": "import math\nabs = lambda x: 0\nclass math:\n    isclose = lambda *a, **k: True\n"
    "def f(x): return 1.5",
    "a patched math": "import math\nmath.isclose = lambda *a, **k: True\nmath.fabs = lambda x: 0\ndef f(x): return 1.5",
}


@pytest.mark.parametrize(
    "check", ["abs(f(1) - 3) < 1e-6", "f(1) == 3", "3 == f(1)", "2.9 < f(1) < 3.1", "math.isclose(f(1), 3.14)",
              "round(f(1), 1) == 3", "f(1) in (3, 4)", "{3: True}.get(f(1))", "[f(1)] == [3]", "max(f(1), 3) == 3.25"]
)  # fmt: skip
@pytest.mark.parametrize("name", AGREEABLE)
def test_objects_that_agree_with_everything(sandbox, name, check):
    found = judge(sandbox, AGREEABLE[name], {"kind": "assert", "code": f"import math\nassert {check}"})
    assert found.outcome == "wrong", found


SPIES = {
    "memory": HUNT + "import gc\nfound = []\nfor o in gc.get_objects():\n"
    "    values = list(o.values()) if isinstance(o, dict) else list(o) if isinstance(o, (list, tuple)) else []\n"
    "    found += [v for v in values if isinstance(v, str) and SECRET in v and v != SECRET]\n"
    "if found: GOT",
    "own pages": HUNT + "import ctypes, re\nneedle = re.compile(f\"== '[{SECRET[0]}]{SECRET[1:]}\".encode())\n"
    "for line in open('/proc/self/maps').readlines():\n"
    "    lo, hi = (int(x, 16) for x in line.split()[0].split('-'))\n"
    "    if 'rw' in line and needle.search(ctypes.string_at(lo, hi - lo)): GOT",
    "frames": HUNT + "import sys\nframe = sys._getframe()\nwhile frame:\n"
    "    if any(SECRET in str(v) for k, v in frame.f_locals.items() if k != 'SECRET' and frame.f_back): GOT\n"
    "    frame = frame.f_back",
    "descriptors": HUNT + "import os\nfor fd in range(64):\n    try: data = os.pread(fd, 10**6, 0)\n"
    "    except OSError: continue\n    if SECRET.encode() in data: GOT",
    "other processes": HUNT + "import os\nfor pid in os.listdir('/proc'):\n"
    "    if pid.isdigit() and int(pid) != os.getpid():\n        for name in ('mem', 'environ', 'maps', 'fd'):\n"
    "            try:\n                p = f'/proc/{pid}/{name}'\n"
    "                os.listdir(p) if name == 'fd' else open(p, 'rb').read(1)\n"
    "                if os.readlink('/proc/self') != pid: GOT\n            except OSError: pass",
    "linecache": HUNT + "import linecache\nfor n in ('tests.py', 'solution.py', '<string>'):\n"
    "    if SECRET in ''.join(linecache.getlines(n)): GOT",
    "working folder": HUNT + "import os\nfor root, _, files in os.walk(os.getcwd()):\n    if files: GOT",
}  # fmt: skip


def spy_program(name, kind, plant=""):
    """Says `got it` where the spy finds the secret of the tests; `plant` puts it within reach."""
    spy = SPIES[name].replace("GOT", "LOOT.append(1)")
    program = f"{plant}LOOT = []\ndef look():\n{indent(spy)}\n"
    if kind == "script":
        return program + "look()\nprint('got it' if LOOT else 'nothing')"
    return (
        program + "def f(x):\n    try: look()\n    except OSError: pass\n    return 'got it' if LOOT else 'nothing'\n"
    )


SPIED = {
    "script": {"kind": "stdin", "cases": [{"input": "", "output": "got it"}, {"input": "", "output": SECRET}]},
    "call": {**CALL, "cases": [{"args": [1], "expected": "got it"}, {"args": [1], "expected": SECRET}]},
    "assert": {"kind": "assert", "code": f"x = '{SECRET}'\nassert f(x[:0]) == 'got it', x == '{SECRET}'"},
}


@pytest.mark.parametrize("kind", SPIED)
@pytest.mark.parametrize("name", SPIES)
def test_tests_and_expected_outputs_cannot_be_read(sandbox, name, kind):
    found = judge(sandbox, spy_program(name, kind), SPIED[kind])
    assert found.outcome == "wrong", found
    assert kind == "assert" or "failed test 0" in found.extracted, found


@pytest.mark.parametrize("name", ["memory", "own pages", "frames", "descriptors", "working folder"])
def test_the_spies_find_what_is_within_their_reach(sandbox, name):
    """Each spy can see: so that it finds nothing above is the sandbox's doing."""
    plant = f"x = \"(x == '{SECRET}')\"\nimport os\nos.write(os.open('f', os.O_CREAT | os.O_RDWR), x.encode())\n"
    found = judge(sandbox, spy_program(name, "script", plant), SPIED["script"])
    assert "failed test 1" in found.extracted, found


def indent(text):
    return "\n".join("    " + line for line in text.splitlines())


POISON = """
import builtins, json, os, sys, types
builtins.open = builtins.print = builtins.len = None
sys.modules["poison"] = types.ModuleType("poison")
json.loads = json.dumps = os.read = os.write = None
sys.stdin = sys.stdout = None
os.environ.clear()
open_ = os.open("left.txt", os.O_CREAT | os.O_WRONLY)
os.chmod(".", 0)
"""


@pytest.mark.parametrize("tests", [script(), CALL, ASSERT], ids=["script", "call", "assert"])
def test_a_poisoned_worker_serves_the_next_program_as_ever(sandbox, tests):
    server = sandbox._process.pid
    assert judge(sandbox, POISON, tests).outcome == "wrong"
    assert_clean(sandbox)
    assert sandbox._process.pid == server


def test_programs_see_nothing_of_the_programs_before_them(sandbox):
    judge(sandbox, "x = 'earlier-' + 'program'\nprint(x)", script())
    hunt = "import gc\nneedle = 'earlier' + '-'\nhits = [o for o in gc.get_objects() if needle in repr(o)[:10**4]]\n"
    found = judge(
        sandbox, hunt + "print('seen' if any('+ \\'program' in repr(h) for h in hits) else 'no')", script("no")
    )
    assert found.reason == "code.passed", found


WITHOUT_ROOT = """
import json, os, sys
from stratos_jax.grading import code, sandbox
from stratos_jax.grading.code_config import CodeConfig
programs = json.load(sys.stdin)
tests = {"kind": "stdin", "cases": [{"input": "", "output": "fine"}]}
records = [{"id": str(i), "code": program, "tests": tests} for i, program in enumerate(programs)]
verdicts = list(code.grade(records, CodeConfig(packages=(), time_limit_s=1)))
print(json.dumps([os.getuid(), sandbox.probe_modes()[0], [v.reason for v in verdicts]]))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_without_root():
    """The same walls for a user without any privilege, where the kernel lets users make namespaces."""
    programs = [
        "print('fine')",
        "import os\nos.fork()\nprint('fine')",
        "import socket\nsocket.socket()\nprint('fine')",
        "import os\nos.listdir(os.environ['HOME'])\nprint('fine')",
        f"open({__file__!r})\nprint('fine')",
        "import os, json\nopen(json.__file__, 'a')\nprint('fine')",
    ]
    command = ["unshare", "--map-user=1000", "--map-group=1000", sys.executable, "-c", WITHOUT_ROOT]
    if os.geteuid() != 0:
        command = command[3:]
    done = subprocess.run(command, input=json.dumps(programs), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    uid, mode, reasons = json.loads(done.stdout)
    failed = "code.runtime_error"
    assert uid != 0 and reasons == ["code.passed", failed, failed, "code.passed", failed, failed], (mode, reasons)


def test_a_program_cannot_outlive_a_killed_grader(tmp_path):
    """The fork server notices that its grader is gone, and everything in it dies with it."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from stratos_jax.grading.sandbox import *\nimport dataclasses\ns = Sandbox(packages=(), stack_mb=64)\n"
            "limits = dataclasses.replace(PROBE, cpu_s=60, wall_s=60)\nprint(s._process.pid, flush=True)\n"
            "s.script('while True: pass', b'', limits)",
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        server = int(child.stdout.readline())
        time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 120
    while pathlib.Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not pathlib.Path(f"/proc/{server}").exists()
