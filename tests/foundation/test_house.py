"""The rules of docs/architecture.md, read off the source itself."""

import ast
import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stratos_jax"
RANKS = (
    ("types",),
    ("config", "prompts", "store"),
    ("grading", "model", "mesh", "checkpoint"),
    ("curate", "shards", "train", "engine", "convert"),
    ("plan", "evaluate", "launch"),
    ("recipe",),
    ("pipeline",),
    ("verbs",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
SIDEWAYS = {("train", "shards.loader")}  # the only import within a rank, besides a room's own files
JAX_FREE = ("types", "config", "prompts", "store", "grading", "curate", "launch", "recipe", "cli", "verbs")
MAX_LINES = 400
NOT_ASCII = {
    "grading/math_lex.py",
    "grading/math_words.py",
    "train/display.py",
}  # tables of signs that people write or see

modules = sorted(PACKAGE.rglob("*.py"))


def room_of(path: pathlib.Path) -> str:
    """The first name under the package: a folder, or a file without its ending."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> list[str]:
    """Dotted names under stratos_jax that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.removeprefix("stratos_jax.") for name in found if name.startswith("stratos_jax.")]


def broken_rules(path: pathlib.Path) -> list[str]:
    room, broken = room_of(path), []
    if room == "__init__":
        return []
    for name in imports(path):
        other = name.split(".")[0]
        if other in ("__version__", room):
            continue
        assert other in RANK, f"{path} imports {name}: give the room {other} a rank in this test"
        sideways = any(room == a and name.startswith(b) for a, b in SIDEWAYS)
        if RANK[other] >= RANK[room] and not sideways and (room, other) != ("cli", "verbs"):
            broken.append(f"{room} imports {name}")
    return broken


@pytest.mark.parametrize("path", modules, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    assert not broken_rules(path)


def test_the_import_rule_can_fire(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "store").mkdir()
    bad = tmp_path / "store" / "bad.py"
    bad.write_text("def f():\n    from stratos_jax.train import loop\n")
    assert broken_rules(bad) == ["store imports train.loop"]


@pytest.mark.parametrize("path", modules, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_one_noun(path):
    text = path.read_text()
    assert text.isascii() or str(path.relative_to(PACKAGE)) in NOT_ASCII, "only ASCII"
    assert len(text.splitlines()) <= MAX_LINES
    if path.name != "__init__.py" or text:
        assert ast.get_docstring(ast.parse(text)), "a module says what comes in and what goes out"


def importers(library: str) -> set[str]:
    found = set()
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            if any(name == library or name.startswith(library + ".") for name in names):
                found.add(room_of(path))
    return found


def test_only_the_model_knows_flax_and_only_the_store_knows_the_cloud():
    assert importers("flax") <= {"model"}
    assert importers("google.cloud") <= {"store"}
    assert importers("orbax") <= {"checkpoint"}


def test_light_rooms_import_without_jax():
    # What lies in a jail is no module: those files run as programs, inside the sandbox.
    names = [m for m in modules if (room_of(m) in JAX_FREE or m.name == "config.py") and m.parent.name != "jail"]
    dotted = sorted({"stratos_jax." + ".".join(m.relative_to(PACKAGE).with_suffix("").parts) for m in names})
    code = f"""
        import importlib, sys
        class NoJax:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("jax", "jaxlib", "flax", "torch", "transformers"):
                    raise ImportError(f"{{name}} is not to be imported here")
        sys.meta_path.insert(0, NoJax())
        for name in {dotted!r}:
            importlib.import_module(name.removesuffix(".__init__"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_is_quick_and_light():
    code = "import sys, stratos_jax; print(len(sys.modules), 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(len(sys.modules))"], capture_output=True, text=True
    )
    count, jax = done.stdout.split()
    assert jax == "False" and int(count) - int(bare.stdout) < 20


def test_every_verb_says_what_it_does_and_shows_an_example():
    import importlib

    for path in sorted((PACKAGE / "verbs").glob("[a-z]*.py")):
        verb = importlib.import_module(f"stratos_jax.verbs.{path.stem}")
        assert verb.HELP and "\n" not in verb.HELP
        assert verb.EXAMPLE.startswith(f"stratos {path.stem}")
        assert callable(verb.configure) and callable(verb.run)
