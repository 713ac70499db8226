"""Chat text is byte for byte what the published Qwen2.5 template gives, by each of our ways to it."""

import json

import pytest
from helpers import ROOT
from qwen_vocab import published_chat_template, qwen_tokenizer_dir

from stratos_jax import prompts
from stratos_jax.model import chat
from stratos_jax.types import Message, UserError

GOLDEN = ROOT / "tests" / "golden" / "chat" / "qwen25.json"
CONVERSATIONS = [
    [("user", "What is 2 + 2?")],
    [("user", "tags {{ x }} and {% y %}, 'quotes' \"two\", a \\n that is none\n\n")],
    [("system", prompts.SKY_T1), ("user", "u"), ("assistant", prompts.BEGIN_THOUGHT + "\n\nt\n\n")],
    [("system", ""), ("user", " spaces "), ("assistant", "a\n"), ("user", "<|im_end|>"), ("assistant", "")],
    [("user", "été 数学 \U0001f600 \u2028"), ("system", "a second rule"), ("user", "go")],
]


@pytest.fixture(scope="module")
def qwen():
    folder = qwen_tokenizer_dir()
    if folder is None:
        pytest.skip("the real vocabulary comes with the package dashscope")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def cases():
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["messages"][0]["content"][:12] or "empty")
def test_rendering_is_the_published_one(case):
    messages = [Message(**message) for message in case["messages"]]
    assert chat.render(messages, add_generation_prompt=case["add_generation_prompt"]) == case["text"]


def test_golden_texts_are_what_the_published_template_gives(qwen):
    """Generates the golden file's content anew; a difference means that one of the two was edited."""
    if published_chat_template() is None:
        pytest.skip("the published template comes with the package trl")
    made = []
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        for prompt in (False, True):
            text = qwen.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            made.append({"messages": messages, "add_generation_prompt": prompt, "text": text})
    assert made == cases()


def test_our_template_gives_the_same(qwen):
    for case in cases():
        options = {"add_generation_prompt": case["add_generation_prompt"], "chat_template": chat.QWEN_TEMPLATE}
        assert qwen.apply_chat_template(case["messages"], tokenize=False, **options) == case["text"]
        ids = qwen.apply_chat_template(case["messages"], tokenize=True, return_dict=False, **options)
        assert ids == qwen(case["text"], add_special_tokens=False)["input_ids"]


def test_template_refuses_tools(qwen):
    with pytest.raises(Exception, match="knows no tools"):
        tools = [{"type": "function", "function": {"name": "f"}}]
        qwen.apply_chat_template([{"role": "user", "content": "u"}], tools=tools, chat_template=chat.QWEN_TEMPLATE)


def test_ids_of_the_real_vocabulary(qwen):
    assert len(qwen) == 151_665
    ids = qwen.convert_tokens_to_ids([chat.END_OF_TEXT, chat.START, chat.END, "<|file_sep|>"])
    assert ids == [151_643, 151_644, 151_645, 151_664]
    text = "Hello world! 12345 \u00e9t\u00e9\n\n  x"
    assert qwen.decode(qwen(text)["input_ids"]) == text


def test_end_tokens(qwen):
    assert chat.end_id(qwen, "template") == 151_645
    assert chat.end_id(qwen, "endoftext") == 151_643
    assert chat.stop_ids(qwen, {"eos_token_id": 151_643}) == (151_643, 151_645)
    assert set(chat.stop_ids(qwen)) == {151_643, 151_645}


def test_a_template_without_an_end_is_refused(qwen):
    import copy

    open_ended = copy.deepcopy(qwen)
    open_ended.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(UserError, match="token of its own"):
        chat.end_id(open_ended, "template")
