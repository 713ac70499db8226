"""Problems made from a seed: each needs as many steps, one after the other, as its level says.

In: a `ProceduralConfig`. Out: `Problem`s with exact answers, the held-out ones different from all others; and for each
kind the way a person would write the steps down, read off the question's text alone.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Sequence

from stratos_jax.curate.config import ProceduralConfig
from stratos_jax.types import Problem, UserError

LEVELS = {"easy": (1, 2), "medium": (3, 5), "hard": (6, 7)}  # how many steps
SOURCE = "procedural"
LETTERS = "abcdefghij"
NUM_DOORS = 8
MAX_REPEATS = 200  # tries to find a question that is not there yet


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of problem: `make` gives a question and its answer, `steps` reads a question and works it out."""

    make: Callable[[random.Random, int], tuple[str, int]]
    steps: Callable[[str], tuple[list[str], int]]
    pattern: re.Pattern[str]  # how a question of this kind begins


def make_problems(config: ProceduralConfig) -> tuple[list[Problem], list[Problem]]:
    """(training, held out): kinds and levels in turn, no question twice."""
    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown or not config.kinds:
        raise UserError("no such kind of problem", got=", ".join(unknown) or "none", wanted=", ".join(KINDS))
    seen: set[str] = set()
    held_out = _make("held-out", config.held_out, config, seen)  # first: they do not depend on the number of the others
    return _make("train", config.problems, config, seen), held_out


def work_out(question: str) -> tuple[list[str], int]:
    """The steps and the answer of a question of any kind."""
    for kind in KINDS.values():
        if kind.pattern.match(question):
            return kind.steps(question)
    raise UserError("a question of no known kind", got=question[:80])


def _make(prefix: str, count: int, config: ProceduralConfig, seen: set[str]) -> list[Problem]:
    rng = random.Random(f"{config.seed} {prefix}")
    problems = []
    cells = [(kind, level) for level in LEVELS for kind in config.kinds]
    for index in range(count):
        kind, level = cells[index % len(cells)]
        question, gold = _new_question(kind, level, rng, seen)
        metadata = {"kind": kind, "level": level}
        problem = Problem(
            id=f"{prefix}-{index:05d}",
            source=SOURCE,
            kind="math",
            question=question,
            gold=str(gold),
            metadata=metadata,
        )
        problems.append(problem)
    return problems


def _new_question(kind: str, level: str, rng: random.Random, seen: set[str]) -> tuple[str, int]:
    for _ in range(MAX_REPEATS):
        question, gold = KINDS[kind].make(rng, rng.randint(*LEVELS[level]))
        if question not in seen:
            seen.add(question)
            return question, gold
    raise UserError(
        f"there are not enough different {level} problems of the kind {kind!r}", do="ask for fewer problems"
    )


def _make_dial(rng: random.Random, num_steps: int) -> tuple[str, int]:
    start, turns = rng.randrange(10), [rng.randrange(1, 10) for _ in range(num_steps)]
    text = " ".join(f"{letter}+{turn}" for letter, turn in zip(LETTERS, turns))
    question = f"A dial with the digits 0 to 9 shows {start}. Turn it {text}. What does it show?"
    return question, (start + sum(turns)) % 10


def _dial_steps(question: str) -> tuple[list[str], int]:
    state = int(_found(r"shows (\d)", question))
    steps = []
    for letter, turn in _additions(question):
        steps.append(f"{letter}:{state}+{turn}={state + turn}")
        state = (state + turn) % 10
    return steps, state


def _make_total(rng: random.Random, num_steps: int) -> tuple[str, int]:
    start, numbers = rng.randrange(10, 40), [rng.randrange(1, 10) for _ in range(num_steps)]
    text = " ".join(f"{letter}+{number}" for letter, number in zip(LETTERS, numbers))
    return f"Start with {start}. Add {text}. What is the total?", start + sum(numbers)


def _total_steps(question: str) -> tuple[list[str], int]:
    state = int(_found(r"Start with (\d+)", question))
    steps = []
    for letter, number in _additions(question):
        ones = state % 10
        state += number
        steps.append(f"{letter}:{ones}+{number}={ones + number},{state}")
    return steps, state


def _make_machine(rng: random.Random, num_steps: int) -> tuple[str, int]:
    start = state = rng.randrange(10)
    words = []
    for letter in LETTERS[:num_steps]:
        if rng.random() < 0.5:
            number = rng.randrange(1, 10)
            state = (state + number) % 10
            words.append(f"{letter}+{number}")
        else:
            number = rng.randrange(2, 4)
            state = state * number % 10
            words.append(f"{letter}x{number}")
    return f"A machine keeps the last digit. Start with {start}. Do {' '.join(words)}. What does it show?", state


def _machine_steps(question: str) -> tuple[list[str], int]:
    state = int(_found(r"Start with (\d)", question))
    steps = []
    for letter, sign, text in re.findall(r"\b([a-j])([+x])(\d)", question):
        value = state + int(text) if sign == "+" else state * int(text)
        steps.append(f"{letter}:{state}{sign}{text}={value}")
        state = value % 10
    return steps, state


def _make_doors(rng: random.Random, num_steps: int) -> tuple[str, int]:
    ring = rng.sample(range(1, NUM_DOORS + 1), NUM_DOORS)
    leads = {room: ring[(i + 1) % NUM_DOORS] for i, room in enumerate(ring)}
    start = rng.choice(ring)
    text = " ".join(f"{room}>{leads[room]}" for room in sorted(leads))
    question = f"Doors lead {text}. Start at {start} and go through {num_steps} doors. Where are you?"
    return question, ring[(ring.index(start) + num_steps) % NUM_DOORS]


def _doors_steps(question: str) -> tuple[list[str], int]:
    leads = {int(a): int(b) for a, b in re.findall(r"(\d)>(\d)", question)}
    room, num_steps = int(_found(r"Start at (\d)", question)), int(_found(r"through (\d)", question))
    steps = []
    for letter in LETTERS[:num_steps]:
        steps.append(f"{letter} {room}>{leads[room]}")
        room = leads[room]
    return steps, room


def _additions(question: str) -> Sequence[tuple[str, int]]:
    return [(letter, int(number)) for letter, number in re.findall(r"\b([a-j])\+(\d)", question)]


def _found(pattern: str, question: str) -> str:
    match = re.search(pattern, question)
    if match is None:
        raise UserError("a question that cannot be read", got=question[:80], wanted=pattern)
    return match.group(1)


KINDS = {
    "dial": Kind(make=_make_dial, steps=_dial_steps, pattern=re.compile("A dial with")),
    "total": Kind(make=_make_total, steps=_total_steps, pattern=re.compile("Start with")),
    "machine": Kind(make=_make_machine, steps=_machine_steps, pattern=re.compile("A machine keeps")),
    "doors": Kind(make=_make_doors, steps=_doors_steps, pattern=re.compile("Doors lead")),
}
