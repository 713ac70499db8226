"""Says what is wrong with saved steps, without a model and without devices of the run.

In: a folder of checkpoints. Out: problems as text.
"""

from stratos_jax.checkpoint import folders
from stratos_jax.checkpoint.digest import add, text, words_of
from stratos_jax.checkpoint.integrity import Damaged, Integrity, file_problems, read_integrity
from stratos_jax.checkpoint.leaves import LeafReader
from stratos_jax.store import Url


def verify(directory: Url, step: int | None = None, *, deep: bool = False) -> list[str]:
    """What is wrong with a step, or with all steps; with `deep` every byte is read and every leaf digested."""
    found = folders.steps(directory) if step is None else [step]
    problems = [] if found else ["no step that was saved to the end"]
    for number in found:
        problems += [f"step {number}: {problem}" for problem in _verify_step(directory, number, deep)]
    return problems


def _verify_step(directory: Url, step: int, deep: bool) -> list[str]:
    try:
        integrity = read_integrity(directory, step)
    except Damaged as error:
        return [str(error)]
    problems = file_problems(directory, integrity, deep=deep)
    return problems or (_leaf_problems(directory, integrity) if deep else [])


def _leaf_problems(directory: Url, integrity: Integrity) -> list[str]:
    reader, problems = LeafReader(directory, integrity.step), []
    for leaf in integrity.leaves:
        words, first = (0, 0), 0
        for part in reader.parts(leaf.path):
            words, first = add(words, words_of(part, first)), first + part.size
        if text(words) != leaf.digest:
            problems.append(f"leaf {leaf.path}: digest {text(words)}, wanted {leaf.digest}")
    return problems
