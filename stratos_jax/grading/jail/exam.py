"""Test code that holds its expected values, run apart from the program that it tests.

Two processes, each confined: the examiner runs the test code, the candidate holds the program. The examiner calls the
program's functions over a socket; only plain values cross, by copy, and handles on everything else. So the program
cannot read the tests, patch what the tests use, or return an object that claims to equal everything, and ending the
process is no way to pass. In: payloads and the socket. Out (examiner): on the result descriptor, `passed` or `error`.
"""

import ast
import builtins
import json
import random
import socket
import sys
import types

import program
import wire


def answer(payload: bytes, channel: int) -> int:
    """The candidate: load the program, tell what it defines, then do what the examiner asks until it hangs up."""
    job = json.loads(payload)
    program.open_streams()
    sys.setrecursionlimit(job["recursion_limit"])
    line = wire.Line(socket.socket(fileno=channel), wire.Exporter(open_objects=True))
    line.send({"ready": True})
    problem = load(job["code"])
    if problem:
        line.send({"problem": problem})
        return 1
    names = sys.modules["solution"].__dict__
    line.send({"names": {name: line.exporter.encode(value) for name, value in names.items() if name[:2] != "__"}})
    line.serve()
    return 0


def load(code: str) -> list[str]:
    """Execute the program as module `solution`; [kind, text] of what went wrong."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        compiled = compile(code, "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
        return ["compile", str(error)]
    try:
        exec(compiled, module.__dict__)
    except BaseException as error:
        return [type(error).__name__, str(error)[:200]]
    return []


def examine(payload: bytes, result: int, channel: int) -> int:
    """The examiner: run the test code against the candidate's names; 0 and `passed` only after its last line."""
    job = json.loads(payload)
    random.seed(0)  # the same verdict every time
    program.open_streams()
    line = wire.Line(socket.socket(fileno=channel), wire.Exporter(open_objects=False))
    line.receive()  # an examiner that ended first would have the candidate killed before it began
    try:
        tests = compile(job["code"], "tests.py", "exec", dont_inherit=True)
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        trusted = module.__dict__
        helpers = helper_names(job["starter_code"], trusted)
    except Exception as error:
        program.tell(result, "bad_tests", f"{type(error).__name__}: {error}")
        return 1
    try:
        told = line.receive()
        if "problem" in told:
            program.tell(result, *told["problem"])
            return 1
        offered = {name: value for name, value in told["names"].items() if name not in helpers}
        run_tests(tests, trusted, choose(ast.parse(job["code"]), offered, line), line)
    except Untested:
        program.tell(result, "bad_tests", "the test code never uses the program")
        return 1
    except BaseException as error:
        kind = error.kind if isinstance(error, wire.RemoteError) else type(error).__name__
        program.tell(result, kind, str(error))
        return 1
    program.os.pwrite(result, b'{"passed": true}', 0)
    return 0


class Untested(Exception):
    """The test code ran to its end and asked the program nothing."""


def run_tests(tests: types.CodeType, scope: dict, chosen: dict, line: wire.Line) -> None:
    """Returns where every check held; raises otherwise."""
    scope.update(chosen)
    try:
        exec(tests, scope)
    except SystemExit as error:  # of the test code itself, as `unittest.main` ends; the program's never comes here
        if error.code:
            raise AssertionError("the tests ended with a failure") from None
    copied = any(not isinstance(value, (wire.Remote, types.ModuleType)) for value in chosen.values())
    if not line.exchanges and not copied:
        raise Untested


def helper_names(starter_code: str, scope: dict) -> set[str]:
    """Run what the problem itself defines in full (helpers of its tests) here, where the program cannot change it."""
    try:
        tree = ast.parse(starter_code)
    except SyntaxError:
        return set()  # a signature to be completed, which defines nothing
    whole = [node for node in tree.body[:-1] if not is_stub(node)]  # what stands last is to be completed
    exec(compile(ast.Module(whole, []), "starter.py", "exec"), scope)
    return {name for name in scope if not name.startswith("__")}


def is_stub(node: ast.stmt) -> bool:
    """A function or class whose body only documents: the program is to fill it in."""
    if isinstance(node, ast.ClassDef):
        return any(is_stub(inner) for inner in node.body) or all(is_blank(inner) for inner in node.body)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and all(is_blank(inner) for inner in node.body)


def is_blank(node: ast.stmt) -> bool:
    idle = (ast.Pass, ast.Import, ast.ImportFrom, ast.Raise)
    return isinstance(node, idle) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def choose(tests: ast.Module, offered: dict, line: "wire.Line") -> dict:
    """Which of the program's names the test code gets; a program may not slip in its own `abs` or `math`.

    Names that the tests bind themselves are theirs. A built-in's name comes from the program only where the tests use
    none of its other names (a task may ask for a function `sum`); a standard module's name never, where the tests use
    it as a module.
    """
    loads = [node for node in ast.walk(tests) if isinstance(node, ast.Name)]
    bound = {node.id for node in loads if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tests):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    used = {node.id for node in loads if isinstance(node.ctx, ast.Load)} - bound
    as_module = {
        node.value.id
        for node in ast.walk(tests)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    asked = {name for name in used if name in offered}
    modules = {name for name in asked if name in sys.stdlib_module_names and name in as_module}
    shadowing = {name for name in asked if hasattr(builtins, name)}
    if asked - modules - shadowing:
        asked -= shadowing
    decode = line.exporter.decode
    return {name: __import__(name) if name in modules else decode(offered[name], line) for name in asked}
