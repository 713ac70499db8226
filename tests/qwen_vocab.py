"""The real Qwen2.5 vocabulary as an HF tokenizer folder, built from the token ranks that the package dashscope carries.

Out: `qwen_tokenizer_dir()`, a folder that `AutoTokenizer` loads offline, with the special tokens of the published
Qwen2.5-Instruct at their published ids; None where dashscope is not installed. It is built once and kept in the
temporary folder. The chat template in it is the published one, from the package trl, or ours where trl is missing.
"""

import base64
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import tempfile

FORMAT = 3  # of the kept folder; raise it when what is written below changes
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
ADDED = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)


@functools.cache
def qwen_tokenizer_dir() -> pathlib.Path | None:
    """The folder with the real Qwen2.5 tokenizer, or None where its vocabulary is not installed."""
    ranks_file = _in_package("dashscope", "resources/qwen.tiktoken")
    if ranks_file is None:
        return None
    owner = os.getuid() if hasattr(os, "getuid") else 0
    name = f"stratos-qwen25-tokenizer-{owner}-{FORMAT}-{ranks_file.stat().st_size}"
    folder = pathlib.Path(tempfile.gettempdir()) / name
    if not folder.is_dir():
        building = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}."))
        _build(ranks_file, building)
        try:
            building.rename(folder)
        except OSError:  # another test process was faster
            shutil.rmtree(building)
    return folder


def published_chat_template() -> str | None:
    """The chat template of Qwen2.5-Instruct as published; None where the package trl is not installed."""
    path = _in_package("trl", "chat_templates/qwen2_5.jinja")
    return path.read_text() if path else None


def qwen_ranks() -> dict[bytes, int]:
    """The published token ranks: bytes of a token -> its id."""
    path = _in_package("dashscope", "resources/qwen.tiktoken")
    assert path is not None
    return _read_ranks(path)


def _read_ranks(path: pathlib.Path) -> dict[bytes, int]:
    pairs = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _in_package(package: str, path: str) -> pathlib.Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = pathlib.Path(spec.origin).parent / path
    return found if found.is_file() else None


def _build(ranks_file: pathlib.Path, folder: pathlib.Path) -> None:
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    ranks = _read_ranks(ranks_file)
    spell = _byte_spelling()
    vocab = {spell(token): rank for token, rank in ranks.items()}
    halves = (_last_merge(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1)
    merges = [(spell(left), spell(right)) for left, right in halves]
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    tokenizer.eos_token = "<|im_end|>"  # only now: it would have taken the first free id
    tokenizer.chat_template = published_chat_template() or _our_template()
    tokenizer.save_pretrained(folder)
    generation = {"bos_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643], "pad_token_id": 151643}
    sampling = {"repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    (folder / "generation_config.json").write_text(json.dumps({**generation, **sampling}, indent=2))


def _our_template() -> str:
    from stratos_jax.model.chat import QWEN_TEMPLATE

    return QWEN_TEMPLATE


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge makes this one: what merging by rank leaves just before it."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(parts[i] + parts[i + 1], len(ranks)) for i in range(len(parts) - 1)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        assert pairs[best] < ranks[token], token
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _byte_spelling():
    """Bytes spelled in the printable characters that byte-level BPE files use."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return lambda token: "".join(letters[byte] for byte in token)
