"""Fills the generated parts of README.md from the code itself: verbs, configs, folders.

usage: python scripts/readme.py            write them
       python scripts/readme.py --check    exit 1 where they are out of date
"""

import ast
import difflib
import importlib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SKIP = {"__init__.py", "__pycache__"}
OUTSIDE = {  # folders that have no module docstring to quote
    "configs/": "one file per experiment",
    "scripts/": "quickstart, tests, GPU check, this page's tables",
    "benchmarks/": "speed, both sides in one run",
    "tests/": "mirrors the package; parity, golden files, chaos",
    "docs/": "architecture, decisions, benchmarks, walk-throughs, log",
}


def verbs() -> str:
    """One row per verb: what it does, and a command that works."""
    rows = ["| verb | what it does | example |", "|---|---|---|"]
    for path in sorted((ROOT / "stratos_jax/verbs").glob("[a-z]*.py")):
        verb = importlib.import_module(f"stratos_jax.verbs.{path.stem}")
        rows.append(f"| `{path.stem}` | {verb.HELP} | `{verb.EXAMPLE}` |")
    return "\n".join(rows)


def configs() -> str:
    """One row per config, from its docstring."""
    rows = ["| config | what it reproduces | chips | expected scores |", "|---|---|---|---|"]
    for path in sorted((ROOT / "configs").glob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
        chips = field(doc, "Chips").split(" for the training")[0] or "this machine"
        rows.append(f"| [{path.stem}](configs/{path.name}) | {first} | {chips} | {field(doc, 'Scores') or '-'} |")
    return "\n".join(rows)


def field(doc: str, name: str) -> str:
    """A labelled paragraph of a docstring, on one line."""
    found = re.search(rf"^{name}:\s+(.*?)(?=^\w+:\s|^\s*$|\Z)", doc + "\n", re.M | re.S)
    return " ".join(found.group(1).split()).rstrip(".") if found else ""


def tree() -> str:
    """Rooms and their first line, in the order of the data."""
    order = (
        *("types.py", "config.py", "recipe.py", "prompts.py", "store", "grading", "curate", "shards", "model", "mesh"),
        *("checkpoint", "train", "convert", "plan", "engine", "evaluate", "launch", "pipeline.py", "verbs", "cli.py"),
    )
    package = ROOT / "stratos_jax"
    there = {p.name for p in package.iterdir() if p.name not in SKIP}
    assert not there - set(order), f"say where {there - set(order)} comes in scripts/readme.py"
    lines = ["```", "stratos_jax/"]
    for name in (n for n in order if n in there):
        lines.append(f"  {name + ('' if name.endswith('.py') else '/'):<14}{half_line(package / name)}")
    lines += [f"{name:<16}{text}" for name, text in OUTSIDE.items() if (ROOT / name).exists()]
    return "\n".join([*lines, "```"])


def half_line(path: pathlib.Path) -> str:
    """The first clause of a module's docstring."""
    file = path if path.suffix else path / "__init__.py"
    doc = ast.get_docstring(ast.parse(file.read_text())) or ""
    return re.split(r"[.;:](\s|$)", doc.split("\n\n")[0].replace("\n", " "))[0].strip()


def filled(text: str) -> str:
    """The page with every marked part made anew."""
    for name, make in (("verbs", verbs), ("configs", configs), ("tree", tree)):
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
        assert re.search(pattern, text, re.S), f"README.md has no part {name}"
        part = make()
        text = re.sub(pattern, lambda m, part=part: m.group(1) + part + m.group(2), text, flags=re.S)
    return text


def main() -> int:
    """Write the page, or compare it."""
    page = ROOT / "README.md"
    old, new = page.read_text(), filled(page.read_text())
    if "--check" not in sys.argv:
        page.write_text(new)
        return 0
    print("\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), "README.md", "made anew", lineterm="")))
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())
