"""Conversations made up for tests of the shards: every shape, and traces of a wanted length."""

import json
import pathlib
import random

WORDS = "the sum of two odd numbers is even so we check each case and find that x equals 7 or \\frac{1}{2} .".split()
ODD = [
    "naive cafe",
    "\u00e9t\u00e9",
    "\u6570\u5b66\u9898",
    "\U0001f600 ok",
    "  two  spaces",
    "tab\tand\nnewline",
    "```python\nx = 1\n```",
]


def text(rng: random.Random, words: int) -> str:
    """Some words, now and then an unusual one."""
    return " ".join(rng.choice(ODD) if rng.random() < 0.05 else rng.choice(WORDS) for _ in range(words))


def trace(rng: random.Random, words: int) -> str:
    """An answer as the published data set lays it out."""
    thought, solution = text(rng, words), text(rng, max(1, words // 4))
    return (
        f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
    )


def row(rng: random.Random, index: int, words: int = 30, system: str = "Think first.") -> dict:
    """One row in the shape of the published data set."""
    turns = [{"from": "user", "value": text(rng, 8)}, {"from": "assistant", "value": trace(rng, words)}]
    return {"id": f"row-{index}", "source": rng.choice(["math", "code"]), "system": system, "conversations": turns}


def rows(count: int, *, seed: int = 0, words: tuple[int, int] = (5, 60)) -> list[dict]:
    """Rows with answers of random length."""
    rng = random.Random(seed)
    return [row(rng, index, rng.randint(*words)) for index in range(count)]


def write(path: pathlib.Path, records: list[dict]) -> pathlib.Path:
    """Rows as a JSONL file."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    return path


def tiny_tokenizer(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """A small tokenizer with a chat template, which loads in a moment."""
    from stratos_jax.model import tokenizer

    rng = random.Random(seed)
    tokenizer.train_tokenizer([text(rng, 30) for _ in range(200)], 400, folder)
    return folder
