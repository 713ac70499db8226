"""A conversation as token ids with a label on each: is it learned, and is it thought, solution or format.

In: a `Conversation` and a fast Hugging Face tokenizer. Out: an `Example`, whose `words` hold a token id in the low 24
bits and its label in the high 8; or a `Dropped` with the reason.
Policy "clean" gives the ids of the tokenizer's own chat template, policy "stratos17k" those of the original run.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from stratos_jax import prompts
from stratos_jax.shards.config import ShardsConfig
from stratos_jax.shards.labels import FORMAT, LEARNED, NONE, TOKEN_BITS, answer_borders, learned
from stratos_jax.shards.template import Template
from stratos_jax.types import Conversation, Message, UserError

Cut = Literal["", "tail", "both", "prefix", "history"]  # history: earlier answers are read, not learned
Reason = Literal["too_long", "nothing_to_learn", "no_solution"]


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A tokenized sample: `words` uint32[N], and what was cut off it."""

    words: np.ndarray
    cut: Cut = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """A sample that does not become one, and why."""

    reason: Reason
    tokens: int


class Renderer:
    """Renders conversations with one tokenizer under one config."""

    def __init__(self, tokenizer: Any, config: ShardsConfig):
        self._tokenizer, self._config = tokenizer, config
        if not tokenizer.is_fast:
            raise UserError(
                "the tokenizer does not say where its tokens lie in the text",
                got=type(tokenizer).__name__,
                wanted="a fast tokenizer (tokenizer.json)",
            )
        if len(tokenizer) >= 1 << TOKEN_BITS:
            raise UserError("the vocabulary is too large", got=len(tokenizer), wanted=f"below {1 << TOKEN_BITS}")
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        if config.policy == "stratos17k":
            self._end_id = _stratos17k_end(tokenizer)
        else:
            self._template = Template(tokenizer)

    def render(self, conversation: Conversation) -> Example | Dropped:
        """One conversation as the config's policy has it."""
        return self.render_many([conversation])[0]

    def render_many(self, conversations: Sequence[Conversation]) -> list[Example | Dropped]:
        """Many conversations, with one call to the tokenizer."""
        chosen = [_with_target(c, self._config.target) for c in conversations]
        whole = [c for c in chosen if c is not None]
        examples = iter(self._stratos17k(whole) if self._config.policy == "stratos17k" else self._clean(whole))
        return [Dropped("no_solution", 0) if c is None else next(examples) for c in chosen]

    def _clean(self, conversations: Sequence[Conversation]) -> list[Example | Dropped]:
        """Ids of the whole text under the tokenizer's template, labelled by where each token's last character lies."""
        layouts = [self._template.layout(c.messages) for c in conversations]
        encodings = self._backend.encode_batch([layout.text for layout in layouts], add_special_tokens=False)
        limit, examples = self._config.row_tokens, []
        for encoding, layout in zip(encodings, layouts, strict=True):
            ids = np.array(encoding.ids, np.uint32)
            label_N = _label_at(encoding, layout.starts, layout.labels)
            words, cut = _prefix(ids | (label_N << TOKEN_BITS), self._config.prefix_fraction)
            cut = cut or ("" if layout.whole else "history")
            if len(words) > limit and self._config.too_long == "drop":
                examples.append(Dropped("too_long", len(words)))
                continue
            if len(words) > limit:
                words, cut = words[:limit], "tail"
            examples.append(_checked(words, cut))
        return examples

    def _stratos17k(self, conversations: Sequence[Conversation]) -> list[Example | Dropped]:
        """Each piece tokenized by itself, the turn ended by <|endoftext|>, the tail cut at the row's length."""
        pieces = [_stratos17k_pieces(c.messages) for c in conversations]
        flat = [text for conversation in pieces for turn in conversation for text in turn]
        encodings = iter(self._backend.encode_batch(flat, add_special_tokens=False))
        examples = []
        for conversation in pieces:
            turns = []
            for *prompt, answer in conversation:
                ids = [i for _ in prompt for i in next(encodings).ids]
                target = next(encodings)
                turns.append((np.array(ids, np.uint32), self._answer_words(answer, target)))
            words, cut = _cut_turns(turns, self._config.row_tokens)
            words, short = _prefix(words, self._config.prefix_fraction)
            examples.append(_checked(words, short or cut))
        return examples

    def _answer_words(self, answer: str, encoding: Any) -> np.ndarray:
        label_N = _label_at(encoding, *answer_borders(answer))
        words = np.array(encoding.ids, np.uint32) | (label_N << TOKEN_BITS)
        return np.append(words, np.uint32(self._end_id | (FORMAT | LEARNED) << TOKEN_BITS))


def _with_target(conversation: Conversation, target: str) -> Conversation | None:
    """The conversation with its answers as they are to be learned; None where an answer has no solution part."""
    if target == "trace":
        return conversation
    messages = []
    for message in conversation.messages:
        if message.role == "assistant":
            found = solution_part(message.content)
            if found is None:
                return None
            message = Message(role="assistant", content=found)
        messages.append(message)
    return dataclasses.replace(conversation, messages=tuple(messages))


def solution_part(answer: str) -> str | None:
    """An answer without its thought; None where the thought never ends."""
    if prompts.BEGIN_SOLUTION in answer:
        return answer[answer.index(prompts.BEGIN_SOLUTION) :]
    if prompts.END_THINK in answer:
        return answer[answer.index(prompts.END_THINK) + len(prompts.END_THINK) :].lstrip() or None
    return None if prompts.BEGIN_THOUGHT in answer or prompts.THINK in answer else answer


def _label_at(encoding: Any, starts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label of each token: that of its first character, or of its last where the first is only read."""
    spans_N2 = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    at = lambda place_N: labels[np.searchsorted(starts, place_N, side="right") - 1]
    first_N = at(spans_N2[:, 0])
    return np.where(first_N == NONE, at(np.maximum(spans_N2[:, 0], spans_N2[:, 1] - 1)), first_N)


def _stratos17k_pieces(messages: Sequence[Message]) -> list[list[str]]:
    """For each pair of turns: the prompt's pieces, then the answer."""
    system = messages[0].content if messages[0].role == "system" else ""
    body = messages[1:] if messages[0].role == "system" else messages
    turns = []
    for index in range(0, len(body), 2):
        first = prompts.STRATOS17K_SYSTEM.format(system or prompts.STRATOS17K_DEFAULT_SYSTEM)
        before = prompts.STRATOS17K_SEPARATOR if index else first
        turns.append([before, prompts.STRATOS17K_USER.format(body[index].content), body[index + 1].content])
    return turns


def _cut_turns(turns: Sequence[tuple[np.ndarray, np.ndarray]], limit: int) -> tuple[np.ndarray, Cut]:
    """Fit pairs of turns into `limit` tokens, pair by pair; what does not fit is cut at its end, and later pairs go."""
    kept, used, cut = [], 0, ""
    for prompt, answer in turns:
        if used >= limit:
            cut = cut or "tail"
            break
        num_prompt, num_answer = fit_lengths(len(prompt), len(answer), limit - used)
        if num_prompt < len(prompt):
            cut = "both"
        elif num_answer < len(answer):
            cut = cut or "tail"
        kept += [prompt[:num_prompt], answer[:num_answer]]
        used += num_prompt + num_answer
    return np.concatenate(kept), cut


def fit_lengths(prompt: int, answer: int, limit: int) -> tuple[int, int]:
    """Tokens that stay of a prompt and its answer: the longer side gives way, or both in proportion."""
    if answer * 2 < limit:
        most = limit
    elif prompt * 2 < limit:
        most = limit - prompt
    else:
        most = int(limit * (answer / (prompt + answer)))
    answer = min(most, answer)
    return min(max(limit - answer, 0), prompt), answer


def _prefix(words: np.ndarray, fraction: float) -> tuple[np.ndarray, Cut]:
    """Keep the first part of the last answer's learned tokens, at least one, and nothing after it."""
    if fraction == 1.0 or not learned(words).any():
        return words, ""
    mask = learned(words)
    last = int(np.flatnonzero(mask)[-1])
    unlearned = np.flatnonzero(~mask[: last + 1])
    first = int(unlearned[-1]) + 1 if len(unlearned) else 0
    return words[: first + int(np.ceil(fraction * (last + 1 - first)))], "prefix"


def _checked(words: np.ndarray, cut: Cut) -> Example | Dropped:
    return Example(words, cut) if learned(words).any() else Dropped("nothing_to_learn", len(words))


def _stratos17k_end(tokenizer: Any) -> int:
    vocabulary = tokenizer.get_added_vocab()
    missing = [t for t in ("<|im_start|>", "<|im_end|>", prompts.STRATOS17K_END) if t not in vocabulary]
    if missing:
        raise UserError(
            "policy 'stratos17k' needs the special tokens of Qwen",
            got=f"a tokenizer without {', '.join(missing)}",
            do="use policy 'clean', or a Qwen2.5 tokenizer",
        )
    return vocabulary[prompts.STRATOS17K_END]
