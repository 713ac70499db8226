"""A conversation as the text of the tokenizer's own chat template, with the characters at which another label begins.

In: messages. Out: a `Layout`. Every answer is learned where the template shows all turns as they were written; where it
does not (some leave the thought out of earlier answers), the text is what the last answer's prompt is when the model is
used, then that answer, and it alone is learned.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stratos_jax import prompts
from stratos_jax.shards.labels import FORMAT, LEARNED, NONE, answer_borders
from stratos_jax.types import Message, UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Text, where labels begin, the labels, and whether each answer is learned."""

    text: str
    starts: np.ndarray
    labels: np.ndarray
    whole: bool


class Template:
    """The chat template of one tokenizer."""

    def __init__(self, tokenizer: Any):
        if not tokenizer.chat_template:
            raise UserError("the tokenizer has no chat template", do="add one to tokenizer_config.json")
        self._tokenizer = tokenizer
        self._end = self._end_of_answer()

    def layout(self, messages: Sequence[Message]) -> Layout:
        """Lay out a conversation that ends in an answer."""
        plain = [{"role": m.role, "content": m.content} for m in messages]
        return self._verbatim(plain) or self._last_answer(plain)

    def _verbatim(self, plain: list[dict[str, str]]) -> Layout | None:
        """The template's own rendering; None where it changes what was written."""
        text = self._apply(plain, prompt=False)
        starts, labels = [0], [NONE]
        for index, message in enumerate(plain):
            if message["role"] != "assistant":
                continue
            prompt = self._apply(plain[:index], prompt=True)
            begin, content = len(prompt), message["content"]
            content = content if text.startswith(content, begin) else content.strip()
            shown = text if index + 1 == len(plain) else self._apply(plain[: index + 1], prompt=False)
            if not (text.startswith(prompt) and text.startswith(content, begin) and text.startswith(shown)):
                return None
            inner_starts, inner_labels = answer_borders(content)
            end = begin + len(content)
            starts += [*(inner_starts + begin).tolist(), end, end + len(shown[end:].rstrip())]
            labels += [*inner_labels.tolist(), FORMAT | LEARNED, NONE]
        return Layout(text, np.array(starts, np.int64), np.array(labels, np.uint32), True)

    def _last_answer(self, plain: list[dict[str, str]]) -> Layout:
        """The last answer behind its prompt, which may have begun the thought."""
        prompt, answer = self._apply(plain[:-1], prompt=True), plain[-1]["content"]
        thinking = prompt.rstrip().endswith(prompts.THINK)
        if thinking:
            opened = prompt[prompt.rindex(prompts.THINK) :]
            answer = answer.removeprefix(opened) if answer.startswith(opened) else answer.removeprefix(prompts.THINK)
        inner_starts, inner_labels = answer_borders(answer, thinking=thinking)
        begin, end = len(prompt), len(prompt) + len(answer)
        starts = [0, *(inner_starts + begin).tolist(), end, end + len(self._end.rstrip())]
        labels = [NONE, *inner_labels.tolist(), FORMAT | LEARNED, NONE]
        earlier = any(message["role"] == "assistant" for message in plain[:-1])
        text = prompt + answer + self._end
        return Layout(text, np.array(starts, np.int64), np.array(labels, np.uint32), not earlier)

    def _end_of_answer(self) -> str:
        """What the template puts after an answer; it must begin with a token that generation can stop on."""
        probe = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        text = self._apply(probe, prompt=False)
        if "answer" not in text:
            raise UserError("the chat template leaves the answer out", got=repr(text[-80:]))
        end = text[text.rindex("answer") + len("answer") :]
        ids = self._tokenizer(end.rstrip(), add_special_tokens=False)["input_ids"]
        if not ids or (
            ids[-1] not in self._tokenizer.all_special_ids and ids[-1] not in self._tokenizer.added_tokens_decoder
        ):
            raise UserError(
                "the chat template does not end an answer with a token of its own",
                got=repr(end),
                wanted="<|im_end|> or the like: without one the student never learns to stop",
            )
        return end

    def _apply(self, messages: list[dict[str, str]], *, prompt: bool) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
