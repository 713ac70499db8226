"""Token ids and labels, beside transformers' own template and beside an independent encoder of the original run."""

import json
import pathlib
import random

import numpy as np
import pytest
import qwen_vocab
import shards_data

from stratos_jax import prompts
from stratos_jax.shards import conversations, labels, render, tokenize
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.types import Conversation, Message, UserError

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "shards"
# The published template for plain chats, with the marks by which transformers knows what is learned.
MARKED_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    folder = qwen_vocab.qwen_tokenizer_dir()
    assert folder is not None, "dashscope carries the vocabulary"
    return tokenize.open_tokenizer(folder)


def config(**changes) -> ShardsConfig:
    return ShardsConfig(sources=(SourceConfig(path="x"),), **changes)


def talk(*texts: str, system: str = "") -> Conversation:
    """A conversation of user and assistant in turn."""
    turns = [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)]
    head = [Message(role="system", content=system)] if system else []
    return Conversation(id="x", messages=(*head, *turns))


def every_shape(count: int) -> list[Conversation]:
    """Conversations with and without system, of one to three turns, with every kind of text at the borders."""
    rng = random.Random(7)
    edges = [
        "",
        "\n",
        "\n\n",
        " ",
        "  \n ",
        "\t",
        "1",
        "\u00e9",
        "\u6570",
        "\U0001f600",
        "<|im_end|>",
        "'",
        "...",
        "\r\n",
    ]
    found = []
    for _ in range(count):
        texts = []
        for index in range(2 * rng.randint(1, 3)):
            inner = (
                shards_data.trace(rng, rng.randint(1, 40)) if index % 2 else shards_data.text(rng, rng.randint(1, 9))
            )
            inner = shards_data.text(rng, rng.randint(1, 9)) if rng.random() < 0.3 else inner
            texts.append(rng.choice(edges) + inner + rng.choice(edges))
        found.append(talk(*texts, system=rng.choice(["", "Be brief.", "Line\nline \\n\\n"])))
    return found


def as_dicts(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in conversation.messages]


def test_clean_equals_transformers(tokenizer):
    shapes = every_shape(200)
    made = render.Renderer(tokenizer, config()).render_many(shapes)
    for conversation, example in zip(shapes, made, strict=True):
        turns = as_dicts(conversation)
        assert isinstance(example, render.Example)
        plain = tokenizer.apply_chat_template(turns, return_dict=True)
        assert labels.tokens_of(example.words).tolist() == plain["input_ids"]
        marked = tokenizer.apply_chat_template(
            turns, chat_template=MARKED_TEMPLATE, return_dict=True, return_assistant_tokens_mask=True
        )
        assert marked["input_ids"] == plain["input_ids"]
        assert labels.learned(example.words).astype(int).tolist() == marked["assistant_masks"]


def original_encoding(tokenizer, conversation: Conversation, cutoff: int) -> tuple[list[int], list[int]]:
    """Ids and labels (-100: not learned) as the original run's data code has them, written from its description."""
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False) if text else []
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    turns = as_dicts(conversation)
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
    system = system or "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ids, wanted = [], []
    for index in range(0, len(turns), 2):
        source = encode("\n") if index else encode(f"<|im_start|>system\n{system}<|im_end|>\n")
        source += encode(f"<|im_start|>user\n{turns[index]['content']}<|im_end|>\n<|im_start|>assistant\n")
        target = [*encode(turns[index + 1]["content"]), end]
        room = cutoff - len(ids)
        if room <= 0:
            break
        if 2 * len(target) < room:
            most = room
        elif 2 * len(source) < room:
            most = room - len(source)
        else:
            most = int(room * (len(target) / (len(source) + len(target))))
        num_target = min(most, len(target))
        num_source = min(max(room - num_target, 0), len(source))
        ids += source[:num_source] + target[:num_target]
        wanted += [-100] * num_source + target[:num_target]
    return ids, wanted


@pytest.mark.parametrize("cutoff", [16_384, 128, 48])
def test_stratos17k_equals_the_original_encoder(tokenizer, cutoff):
    shapes = every_shape(200)
    made = render.Renderer(tokenizer, config(policy="stratos17k", row_tokens=cutoff)).render_many(shapes)
    cut = 0
    for conversation, example in zip(shapes, made, strict=True):
        ids, wanted = original_encoding(tokenizer, conversation, cutoff)
        if isinstance(example, render.Dropped):
            assert example.reason == "nothing_to_learn" and all(label == -100 for label in wanted)
            continue
        tokens, learned = labels.tokens_of(example.words), labels.learned(example.words)
        assert tokens.tolist() == ids
        assert np.where(learned, tokens, -100).tolist() == wanted
        cut += bool(example.cut)
    assert cut == 0 if cutoff == 16_384 else cut > 20


def test_stratos17k_ends_in_endoftext_and_clean_in_im_end(tokenizer):
    row = conversations.read_row(json.dumps(shards_data.rows(1)[0]).encode(), "s", 1)
    for policy, end, after in (("stratos17k", 151643, []), ("clean", 151645, [198])):
        words = render.Renderer(tokenizer, config(policy=policy)).render(row).words
        tokens = labels.tokens_of(words).tolist()
        assert tokens[-1 - len(after)] == end and tokens[len(tokens) - len(after) :] == after
        assert labels.learned(words)[len(tokens) - len(after) - 1]


def test_tail_is_cut_without_an_end_token_when_the_prompt_is_short(tokenizer):
    long = talk("Sum?", "1 2 3 " * 200, system="s")
    example = render.Renderer(tokenizer, config(policy="stratos17k", row_tokens=100)).render(long)
    assert example.cut == "tail" and len(example.words) == 100
    assert 151643 not in labels.tokens_of(example.words)
    assert labels.tokens_of(example.words)[:4].tolist() == [151644, 8948, 198, 82]  # the prompt is whole


@pytest.mark.parametrize("policy", ["clean", "stratos17k"])
def test_goldens(tokenizer, policy):
    """Each piece of these samples was read by a person; see tests/golden/shards/README.md."""
    renderer = render.Renderer(tokenizer, config(policy=policy, row_tokens=200))
    for case in json.loads((GOLDEN / f"{policy}.json").read_text()):
        row = conversations.read_row(json.dumps(case["row"]).encode(), "golden", 1)
        example = renderer.render(row)
        assert labels.tokens_of(example.words).tolist() == case["tokens"]
        assert pieces(tokenizer, example.words) == case["pieces"]


def pieces(tokenizer, words) -> list[list[str]]:
    """[span, learned or not, text] of each run of one label."""
    label = labels.labels_of(words)
    borders = [0, *(np.flatnonzero(np.diff(label.astype(int))) + 1).tolist(), len(words)]
    tokens, learned, spans = labels.tokens_of(words), labels.learned(words), labels.spans_of(words)
    return [
        [labels.SPANS[spans[a]], "learned" if learned[a] else "read", tokenizer.decode(tokens[a:b].tolist())]
        for a, b in zip(borders[:-1], borders[1:], strict=True)
    ]


def test_spans_of_the_published_layout_and_of_think_tags(tokenizer):
    renderer = render.Renderer(tokenizer, config())
    trace = "<|begin_of_thought|>\n\nwhy\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nso\n\n<|end_of_solution|>"
    kinds = lambda answer: [
        (p[0], p[2].strip()) for p in pieces(tokenizer, renderer.render(talk("q", answer)).words)[1:-1]
    ]
    assert [k for k, _ in kinds(trace)] == ["format", "thought", "format", "solution", "format"]
    assert kinds("<think>\nhm\n</think>\n\nseven") == [
        ("format", "<think>"), ("thought", "hm"), ("format", "</think>"), ("solution", "seven"),
        ("format", "<|im_end|>"),
    ]  # fmt: skip
    assert kinds("plain answer") == [("solution", "plain answer"), ("format", "<|im_end|>")]


def test_answer_target_leaves_the_thought_out(tokenizer):
    renderer = render.Renderer(tokenizer, config(target="answer"))
    trace = shards_data.trace(random.Random(1), 30)
    text = tokenizer.decode(labels.tokens_of(renderer.render(talk("q", trace)).words).tolist())
    assert prompts.BEGIN_THOUGHT not in text and prompts.BEGIN_SOLUTION in text
    assert "seven" in tokenizer.decode(
        labels.tokens_of(renderer.render(talk("q", "<think>x</think>seven")).words).tolist()
    )
    unfinished = renderer.render(talk("q", "<|begin_of_thought|> and so on"))
    assert isinstance(unfinished, render.Dropped) and unfinished.reason == "no_solution"


@pytest.mark.parametrize("policy", ["clean", "stratos17k"])
def test_prefix_keeps_the_first_part_of_the_trace(tokenizer, policy):
    talked = talk("q", " ".join(str(i) for i in range(100)), "more", "word " * 80)
    whole = render.Renderer(tokenizer, config(policy=policy)).render(talked)
    half = render.Renderer(tokenizer, config(policy=policy, prefix_fraction=0.5)).render(talked)
    assert half.cut == "prefix"
    assert (whole.words[: len(half.words)] == half.words).all()
    last_answer = len(tokenizer("word " * 80)["input_ids"]) + 1  # and the end token
    removed = labels.learned(whole.words).sum() - labels.learned(half.words).sum()
    assert removed == last_answer // 2


def test_too_long_is_dropped_or_cut_and_never_without_being_said(tokenizer):
    long = talk("q", "word " * 500)
    dropped = render.Renderer(tokenizer, config(row_tokens=100)).render(long)
    assert isinstance(dropped, render.Dropped) and dropped.reason == "too_long" and dropped.tokens > 500
    kept = render.Renderer(tokenizer, config(row_tokens=100, too_long="keep_head")).render(long)
    assert kept.cut == "tail" and len(kept.words) == 100
    prompt_only = render.Renderer(tokenizer, config(row_tokens=20, too_long="keep_head")).render(long)
    assert isinstance(prompt_only, render.Dropped) and prompt_only.reason == "nothing_to_learn"


R1_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>{{ m['content'] }}{% else %}"
    "<|im_end|>{{ m['content'].split('</think>')[-1] }}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|><think>\n{% endif %}"
)


def test_a_template_that_forgets_thoughts_still_trains_the_last_one(tokenizer):
    tokenizer = tokenize.open_tokenizer(qwen_vocab.qwen_tokenizer_dir())
    tokenizer.chat_template = R1_TEMPLATE
    renderer = render.Renderer(tokenizer, config())
    one = renderer.render(talk("q", "<think>\nhm\n</think>\n\nseven"))
    assert tokenizer.decode(labels.tokens_of(one.words).tolist()) == (
        "<|im_start|>q<|im_end|><think>\nhm\n</think>\n\nseven<|endoftext|>"
    )
    assert one.cut == ""
    assert [p[:2] for p in pieces(tokenizer, one.words)][1] == ["thought", "learned"]
    two = renderer.render(talk("q", "<think>\nhm\n</think>\n\nseven", "r", "<think>\nha\n</think>\n\neight"))
    assert two.cut == "history"
    assert tokenizer.decode(labels.tokens_of(two.words)[labels.learned(two.words)].tolist()) == (
        "ha\n</think>\n\neight<|endoftext|>"
    )


def test_unusable_tokenizers_are_refused(tokenizer):
    tokenizer = tokenize.open_tokenizer(qwen_vocab.qwen_tokenizer_dir())
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(UserError, match="does not end an answer"):
        render.Renderer(tokenizer, config())
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        render.Renderer(tokenizer, config())
