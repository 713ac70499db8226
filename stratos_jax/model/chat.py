"""Conversations as the text of Qwen2.5's chat format, and the token that ends a turn.

In: messages. Out: the same bytes as the published chat template gives, by plain string work; a template for tokenizers
trained here; the ids at which generation stops.

The trap: the published Stratos models were trained with turns that end in `<|endoftext|>`, without the `<|im_end|>` of
the template. Whoever samples from such a model must stop at both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stratos_jax.types import Message, UserError

START, END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
ROLES = ("system", "user", "assistant")
EndToken = Literal["template", "endoftext"]


def template(default_system: str = "") -> str:
    """A Jinja chat template of this format; `default_system` stands where a conversation has no system message."""
    default = f"{START}system\\n{default_system}{END}\\n" if default_system else ""
    first = "{%- if messages[0].role != 'system' %}{{- '" + default.replace("'", "\\'") + "' }}{%- endif %}\n"
    return (
        "{%- if tools %}{{- raise_exception('this template knows no tools') }}{%- endif %}\n"
        + (first if default else "")
        + "{%- for message in messages %}\n"
        + f"    {{{{- '{START}' + message.role + '\\n' + message.content + '{END}\\n' }}}}\n"
        + "{%- endfor %}\n"
        + f"{{%- if add_generation_prompt %}}{{{{- '{START}assistant\\n' }}}}{{%- endif %}}\n"
    )


QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
QWEN_TEMPLATE = template(QWEN_SYSTEM)


def render(
    messages: Sequence[Message], *, add_generation_prompt: bool = False, default_system: str = QWEN_SYSTEM
) -> str:
    """The conversation's text, byte for byte as the template gives it."""
    parts = []
    if default_system and (not messages or messages[0].role != "system"):
        parts.append(f"{START}system\n{default_system}{END}\n")
    for message in messages:
        parts.append(f"{START}{message.role}\n{message.content}{END}\n")
    if add_generation_prompt:
        parts.append(f"{START}assistant\n")
    return "".join(parts)


def end_id(tokenizer: Any, policy: EndToken) -> int:
    """The token that ends a trained turn: the chat template's own, or `<|endoftext|>`."""
    if policy == "endoftext":
        return _id_of(tokenizer, END_OF_TEXT)
    probe = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    text = tokenizer.apply_chat_template(probe, tokenize=False)
    after = text[text.rindex("answer") + len("answer") :]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in tokenizer.added_tokens_decoder:
        raise UserError("the chat template does not end a turn with a token of its own", got=repr(after))
    return ids[0]


def stop_ids(tokenizer: Any, generation_config: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """All tokens at which sampling stops, whichever of the two ends the model was trained with."""
    known = (generation_config or {}).get("eos_token_id")
    ids = [*known] if isinstance(known, list) else [known]
    ids += [tokenizer.eos_token_id, end_id(tokenizer, "template")]
    if END_OF_TEXT in tokenizer.get_vocab():
        ids.append(_id_of(tokenizer, END_OF_TEXT))
    return tuple(dict.fromkeys(token for token in ids if token is not None))


def _id_of(tokenizer: Any, token: str) -> int:
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise UserError(f"the tokenizer has no {token}", where=tokenizer.name_or_path, do="use end token 'template'")
    return found
