"""Statistics of a text, and how well simple models predict it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from charlm.config import DataConfig
from charlm.data.build import hashed_bytes
from charlm.data.corpus import Corpus, open_corpus
from charlm.data.findings import odd_characters, structure
from charlm.data.vocab import Ids, Vocab
from charlm.data.yardsticks import compressed_bits, entropies, ngram_bits

MAX_TRAIN_CHARS, MAX_VAL_CHARS = 8_000_000, 200_000  # limits for the yardsticks
MAX_ORDER = 8  # of the n-gram models


def measure(data: DataConfig) -> dict[str, Any]:
    """Statistics of a text, for JSON or a table. The yardsticks are in bits per character.
    `notices` are lines for the user.

    Raises:
        DataError: the text cannot be read as `data` says.
    """
    corpus = open_corpus(data.model_copy(update={"vocab_min_count": 1, "vocab_size": None}))
    counts = Counter({char: n for char in corpus.vocab.chars if (n := corpus.counts[char])})
    chars = len(corpus)
    by_char = counts if data.unit == "char" else Counter[str]()
    return {
        "source": corpus.source,
        "sha256": corpus.sha256,
        "unit": data.unit,
        "chars": chars,
        "utf8_bytes": sum(n * len(char.encode()) for char, n in by_char.items()) or chars,
        "lines": counts["\n"],
        "parts": {split: len(corpus.split(split)) for split in ("train", "val", "test")},
        "distinct": len(counts),
        "most_frequent": "".join(char for char, _ in counts.most_common(40)),
        "oddities": [asdict(oddity) for oddity in odd_characters(corpus, data)],
        "yardsticks": _yardsticks(corpus),
        "notices": corpus.notices + structure(corpus, data),
    }


def _yardsticks(corpus: Corpus) -> dict[str, Any]:
    """Bits per character of an n-gram model, of compressors, and of the entropy.

    The n-gram model is trained on the training part and scored on the validation part. Compressors
    and entropy are of the training part.
    """
    train_ids = corpus.split("train")
    train = train_ids[max(0, len(train_ids) - MAX_TRAIN_CHARS) :]
    val = corpus.split("val")[:MAX_VAL_CHARS]
    result: dict[str, Any] = {"train_chars": len(train), "val_chars": len(val)}
    if not len(train):
        return result
    result["entropy"] = entropies(train)
    result |= compressed_bits(_bytes(train, corpus.vocab), len(train))
    if len(val):
        bits = ngram_bits(train, val, MAX_ORDER)
        best = int(np.argmin(bits))
        result["ngram"] = {"order": best, "bits_per_char": bits[best]}
    return result


def _bytes(ids: Ids, vocab: Vocab) -> bytes:
    """The text of the ids, in UTF-8; of a vocabulary of bytes, the bytes."""
    codes = np.array([ord(char) for char in vocab.chars], "<u4")[ids]
    return hashed_bytes(codes.tobytes().decode("utf-32-le"), vocab.unit)
