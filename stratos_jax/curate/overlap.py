"""Which questions say the same: exact and near duplicates, and overlap with held-out questions.

In: questions. Out: for each one that must go, which other one it is too like, and what they share. Words are compared
without case, punctuation and LaTeX commands' backslashes, so that another typesetting does not hide a copy.
"""

import collections
import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from stratos_jax.types import Problem

WORD = re.compile(r"\w+")
NUM_HASHES, BANDS = 64, 16  # 16 bands of 4 rows find 99.9 % of pairs at Jaccard 0.8, and all that matter at 0.9
PRIME = (1 << 31) - 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A problem that is too like another one."""

    problem_id: str
    other_id: str
    how: str  # exact | near | ngram
    shared: str  # the text they have in common, or how like they are


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; signs and punctuation are passed over."""
    return tuple(WORD.findall(text.lower()))


def duplicates(problems: Sequence[Problem], threshold: float | None, shingle: int) -> list[Hit]:
    """For each problem that repeats an earlier one: which. The first of its like stays."""
    hits, first = [], {}
    for problem in problems:
        other = first.setdefault(_exact(problem.question), problem.id)
        if other != problem.id:
            hits.append(Hit(problem_id=problem.id, other_id=other, how="exact", shared=problem.question[:200]))
    if threshold is None:
        return hits
    gone = {hit.problem_id for hit in hits}
    kept = [p for p in problems if p.id not in gone]
    sets = [_shingles(p.question, shingle) for p in kept]
    for left, right in _candidates(sets):
        if kept[left].id in gone or kept[right].id in gone:
            continue
        union = len(sets[left] | sets[right])
        likeness = len(sets[left] & sets[right]) / union if union else 0.0
        if likeness >= threshold:
            gone.add(kept[right].id)
            text = f"{likeness:.0%} of their {shingle}-word runs"
            hits.append(Hit(problem_id=kept[right].id, other_id=kept[left].id, how="near", shared=text))
    return hits


def contaminated(problems: Sequence[Problem], held_out: Sequence[Problem], ngram: int, common: int) -> list[Hit]:
    """Problems that repeat a held-out question, or share `ngram` words in a row with one.

    A run of words that more than `common` of the problems have is their template, and says nothing.
    """
    exact = {_exact(p.question): p.id for p in held_out}
    owners = {run: p.id for p in held_out for run in _runs(p.question, ngram)} if ngram else {}
    counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    for problem in problems:
        counts.update(_runs(problem.question, ngram) & owners.keys() if ngram else ())
    hits = []
    for problem in problems:
        if (other := exact.get(_exact(problem.question))) is not None:
            hits.append(Hit(problem_id=problem.id, other_id=other, how="exact", shared=problem.question[:200]))
            continue
        shared = sorted(
            r for r in (_runs(problem.question, ngram) & owners.keys() if ngram else ()) if counts[r] <= common
        )
        if shared:
            hits.append(Hit(problem_id=problem.id, other_id=owners[shared[0]], how="ngram", shared=" ".join(shared[0])))
    return hits


def summary(hits: Sequence[Hit]) -> Mapping[str, int]:
    """How many of each sort."""
    return dict(collections.Counter(hit.how for hit in hits))


def _exact(text: str) -> str:
    """What two texts that differ only in white space and case have in common; signs count: 1+2 is not 1-2."""
    return " ".join(text.lower().split())


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {words[i : i + length] for i in range(len(words) - length + 1)}


def _shingles(text: str, length: int) -> set[tuple[str, ...]]:
    """Runs of words, signs among them as words: short questions may differ in a sign alone."""
    words = tuple(re.findall(r"\w+|[^\w\s]", text.lower()))
    return {words[i : i + length] for i in range(max(1, len(words) - length + 1))}


def _candidates(sets: Sequence[set[tuple[str, ...]]]) -> list[tuple[int, int]]:
    """Pairs (earlier, later) that MinHash bands put together, in order."""
    if not sets:
        return []
    rng = np.random.default_rng(0)
    factor_H = rng.integers(1, PRIME, NUM_HASHES, dtype=np.uint64)
    shift_H = rng.integers(0, PRIME, NUM_HASHES, dtype=np.uint64)
    buckets: dict[tuple[int, bytes], list[int]] = collections.defaultdict(list)
    for index, shingles in enumerate(sets):
        hashes_S = np.array([zlib.crc32(" ".join(s).encode()) for s in shingles], np.uint64)
        minima_H = ((hashes_S[:, None] % PRIME * factor_H + shift_H) % PRIME).min(axis=0)
        for band, rows in enumerate(np.split(minima_H, BANDS)):
            buckets[band, rows.tobytes()].append(index)
    pairs = {
        (left, right) for group in buckets.values() for i, left in enumerate(group[:50]) for right in group[i + 1 :]
    }
    return sorted(pairs)
