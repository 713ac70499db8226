"""A trained tokenizer gives the same ids as SentencePiece and as the HF folder made from it."""

import random

import pytest

from stratos_jax import prompts
from stratos_jax.model import chat, tokenizer
from stratos_jax.types import UserError

ODD = (
    "  ",
    "\n",
    "\n\n\n",
    "\t",
    "a",
    "b1",
    "\u00e9",
    "\u65e5",
    "\U0001f389",
    chat.END,
    "\u2581",
    "\r",
    "\x00",
    "<|im_",
    "12",
)


def corpus(count: int = 400) -> list[str]:
    rng = random.Random(0)
    words = (
        "the sum of two odd numbers is even so we check each case and x equals \\frac{1}{2} therefore answer".split()
    )
    return [" ".join(rng.choice(words) for _ in range(40)) + f"\nno {rng.randint(0, 999)}" for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train_tokenizer(corpus(), 400, path)
    return path


def test_same_ids_as_sentencepiece(folder):
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / tokenizer.SENTENCEPIECE))
    ours = tokenizer.load_tokenizer(folder)
    rng = random.Random(1)
    odd = ["".join(rng.choice(ODD) for _ in range(rng.randint(0, 30))) for _ in range(500)]
    assert len(ours) == pieces.vocab_size() == 400
    for text in [*corpus(20), *odd, *tokenizer.WHOLE, *tokenizer.SPECIAL, " lead", "trail "]:
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert ids == pieces.encode(text), text
        assert ours.decode(ids) == text.replace("\u2581", " ")


def test_chat_format_and_ends(folder):
    ours = tokenizer.load_tokenizer(folder)
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": prompts.BEGIN_THOUGHT}]
    text = ours.apply_chat_template(messages, tokenize=False)
    assert text == f"<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n{prompts.BEGIN_THOUGHT}<|im_end|>\n"
    assert ours.convert_tokens_to_ids(list(tokenizer.SPECIAL)) == [1, 2, 3]
    assert ours.eos_token_id == 3 and ours.pad_token_id == 1
    assert len(ours(prompts.BEGIN_THOUGHT)["input_ids"]) == 1
    assert set(chat.stop_ids(ours)) == {1, 3}
    ids = ours(text)["input_ids"]
    assert prompts.BEGIN_THOUGHT in ours.decode(ids, skip_special_tokens=True)


def test_training_is_repeatable(folder, tmp_path):
    tokenizer.train_tokenizer(corpus(), 400, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_too_small_or_too_large(tmp_path):
    with pytest.raises(UserError, match="too small"):
        tokenizer.train_tokenizer(corpus(), 200, tmp_path)
    with pytest.raises(UserError, match="no tokenizer of this size"):
        tokenizer.train_tokenizer(["a b", "b a"], 4000, tmp_path)


def test_no_tokenizer_there(tmp_path):
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        tokenizer.load_tokenizer(tmp_path)
