"""Tokenizers: those of published models, and small ones trained here.

In: a folder (local or gs://) or a hub id; or texts. Out: a `transformers` tokenizer; or a folder that
`AutoTokenizer.from_pretrained` loads with no network, whose ids are those of the SentencePiece model beside it.
"""

import contextlib
import fnmatch
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from stratos_jax import prompts, store
from stratos_jax.model import chat
from stratos_jax.types import UserError

FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("*.model", "chat_template*", "config.json"),
)
SENTENCEPIECE = "sentencepiece.model"
UNKNOWN, SPACE = "<unk>", "\u2581"
SPECIAL = (chat.END_OF_TEXT, chat.START, chat.END)
# One token each, though not special: they stay in decoded text. SentencePiece cannot learn a piece across lines.
WHOLE = (prompts.BEGIN_THOUGHT, prompts.END_THOUGHT, prompts.BEGIN_SOLUTION, prompts.END_SOLUTION, "\n", "\n\n", "\t")
SENTENCE_BYTES = 4096  # training texts are cut at line ends and then at this length


def load_tokenizer(source: str | os.PathLike) -> Any:
    """The tokenizer of a folder or of a hub id."""
    from transformers import AutoTokenizer

    with local_copy(source) as folder:
        try:
            return AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            got = str(error).strip().splitlines()[0][:300]
            do = "name a folder with tokenizer files; a hub id needs a network"
            raise UserError("no tokenizer could be loaded", where=source, got=got, do=do) from error


@contextlib.contextmanager
def local_copy(source: str | os.PathLike) -> Iterator[str]:
    """The tokenizer files of a bucket's folder on the local disk; a local folder as it is."""
    if not store.is_remote(source):
        yield os.fspath(source)
        return
    with tempfile.TemporaryDirectory(prefix="stratos-tokenizer-") as scratch:
        for file in store.list_files(source):
            name = file.url.rsplit("/", 1)[-1]
            if any(fnmatch.fnmatch(name, pattern) for pattern in FILES):
                pathlib.Path(scratch, name).write_bytes(store.read_bytes(file.url))
        yield scratch


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: str | os.PathLike) -> None:
    """Train a byte-pair SentencePiece model on texts and write it as an HF tokenizer folder with a chat template."""
    model = _train(texts, vocab_size)
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / SENTENCEPIECE).write_bytes(model)
    _as_transformers(model).save_pretrained(target)
    settings = target / "tokenizer_config.json"
    known = {**json.loads(settings.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    # Beside a config.json of type qwen2, AutoTokenizer would put Qwen's own splitting in place of this tokenizer's,
    # whatever the class above says; an entry here, though it names no code, makes it read tokenizer.json as it is.
    known["auto_map"] = {"AutoTokenizer": ["none.PreTrainedTokenizerFast"] * 2}
    settings.write_text(json.dumps(known, indent=2) + "\n")  # the name under which transformers before 5 knows it


def _train(texts: Iterable[str], vocab_size: int) -> bytes:
    import sentencepiece

    fixed = 1 + len(SPECIAL) + len(WHOLE) + 256
    if vocab_size <= fixed:
        raise UserError("the vocabulary is too small", got=vocab_size, wanted=f"more than {fixed}, for bytes and tags")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_sentences(texts), model_writer=written, vocab_size=vocab_size, model_type="bpe",
            user_defined_symbols=[*SPECIAL, *WHOLE], unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, unk_piece=UNKNOWN,
            byte_fallback=True, split_digits=True, character_coverage=1.0, normalization_rule_name="identity",
            add_dummy_prefix=False, remove_extra_whitespaces=False, max_sentence_length=2 * SENTENCE_BYTES,
            num_threads=1, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        do = "choose another shards.tokenizer.train_vocab_size, or give more text"
        raise UserError("no tokenizer of this size can be trained", got=str(error)[-200:], do=do) from error
    return written.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), SENTENCE_BYTES // 4):
                yield line[start : start + SENTENCE_BYTES // 4]


def _as_transformers(model: bytes) -> Any:
    """The same tokenizer as transformers has it: merges in the order of the pieces' scores."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size())}
    learned = [p for p, i in vocab.items() if _is_learned(pieces, i)]
    learned.sort(key=lambda piece: (-pieces.get_score(vocab[piece]), vocab[piece]))
    known = set(learned)
    merges = [
        (piece[:cut], piece[cut:])
        for piece in learned
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    bpe = models.BPE(vocab=vocab, merges=merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in WHOLE])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=chat.END, pad_token=chat.END_OF_TEXT,
        clean_up_tokenization_spaces=False, chat_template=chat.template(),
    )  # fmt: skip


def _is_learned(pieces: Any, index: int) -> bool:
    """A piece that merging can make: neither a byte nor a tag nor the unknown."""
    whole = pieces.id_to_piece(index) in (*SPECIAL, *WHOLE)
    return not (whole or pieces.is_byte(index) or pieces.is_unknown(index) or pieces.is_control(index))
