"""A tokenizer for transformers whose tokens are the characters, or the bytes, of a vocabulary.

The file is that of the library `tokenizers`. No token is special: the text `<unk>` is five tokens.
So each text that can be encoded is decoded to itself.
"""

from __future__ import annotations

from typing import Any

from charlm.data.vocab import UNKNOWN, Vocab
from charlm.visible import is_hidden

Json = dict[str, Any]

# A name that is no token: encoding a character that the vocabulary lacks is then an error.
_NO_TOKEN = "<unk>"  # noqa: S105


def tokenizer_files(vocab: Vocab, context: int) -> dict[str, Json]:
    """The files of a tokenizer, by name."""
    parts = _of_bytes() if vocab.unit == "byte" else _of_chars(vocab)
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "post_processor": None,
            **parts,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
        },
    }


def _of_chars(vocab: Vocab) -> Json:
    return {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},  # each character, line ends too
            "behavior": "Isolated",
            "invert": False,
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {char: id_ for id_, char in enumerate(vocab.chars)},
            "unk_token": UNKNOWN if vocab.limited else _NO_TOKEN,
        },
    }


def _of_bytes() -> Json:
    """Bytes, by the characters that the tokenizer of GPT-2 uses for them: their own where they are
    visible, and for the others, in order, those from U+0100 on (Radford et al. 2019)."""
    others = iter(range(256, 512))
    visible = [chr(b) > " " and not is_hidden(chr(b)) and b != 0xA0 for b in range(256)]
    names = [chr(b) if visible[b] else chr(next(others)) for b in range(256)]
    step: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "pre_tokenizer": step | {"use_regex": False},
        "decoder": step | {"use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {name: b for b, name in enumerate(names)},
            "merges": [],
        },
    }
