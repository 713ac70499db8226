"""What is said of a token besides its id: is it learned, and is it thought, solution or format.

A sample is one array of words: a token id in the low 24 bits and its label in the high 8.
"""

import re

import numpy as np

from stratos_jax import prompts

SPANS = ("none", "thought", "solution", "format")
NONE, THOUGHT, SOLUTION, FORMAT = range(4)
LEARNED = 4  # bit of the label beside the span's two
TOKEN_BITS = 24


def tokens_of(words: np.ndarray) -> np.ndarray:
    """Token ids, int32."""
    return (words & ((1 << TOKEN_BITS) - 1)).astype(np.int32)


def labels_of(words: np.ndarray) -> np.ndarray:
    """Labels, uint8: the span in the low two bits, `LEARNED` above them."""
    return (words >> TOKEN_BITS).astype(np.uint8)


def spans_of(words: np.ndarray) -> np.ndarray:
    """Spans, uint8."""
    return labels_of(words) & 3


def learned(words: np.ndarray) -> np.ndarray:
    """Which tokens the loss counts, bool."""
    return (labels_of(words) & LEARNED) != 0


TAGS = {
    prompts.BEGIN_THOUGHT: THOUGHT,
    prompts.END_THOUGHT: FORMAT,
    prompts.BEGIN_SOLUTION: SOLUTION,
    prompts.END_SOLUTION: FORMAT,
    prompts.THINK: THOUGHT,
    prompts.END_THINK: SOLUTION,
}
TAG = re.compile("|".join(map(re.escape, TAGS)))


def answer_borders(answer: str, *, thinking: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Characters of an answer at which a label begins: tags are format, and each says what follows it.

    `thinking` says that the prompt has opened the thought already.
    """
    found = list(TAG.finditer(answer))
    starts, labels = [0], [THOUGHT if thinking else FORMAT if found else SOLUTION]
    for tag in found:
        starts += [tag.start(), tag.end()]
        labels += [FORMAT, TAGS[tag.group()]]
    return np.array(starts, np.int64), np.array(labels, np.uint32) | LEARNED
