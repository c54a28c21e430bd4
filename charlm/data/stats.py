"""Statistics of a text, and how well simple models predict it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from charlm.config import DataConfig
from charlm.data.build import hashed_bytes
from charlm.data.corpus import Corpus, Split, open_corpus
from charlm.data.oddities import oddities
from charlm.data.vocab import CHUNK_CHARS, Ids, Vocab
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
    counts, crlf = _count(corpus)
    chars = sum(counts.values())
    by_char = counts if data.unit == "char" else Counter[str]()
    odd = oddities(by_char, crlf, by_char["\r"] - crlf) if by_char else []
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
        "oddities": [asdict(oddity) for oddity in odd],
        "yardsticks": _yardsticks(corpus),
        "notices": corpus.notices,
    }


def _count(corpus: Corpus) -> tuple[Counter[str], int]:
    """The number of occurrences of each character, and of the pair CR LF."""
    counts, crlf = np.zeros(len(corpus.vocab), np.int64), 0
    cr, lf = (corpus.vocab.chars.find(char) for char in "\r\n")
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in ("all",) if "all" in corpus.parts else splits:
        ids = corpus.parts[split]
        for start in range(0, len(ids), CHUNK_CHARS):
            chunk = ids[start : start + CHUNK_CHARS + 1]  # one more, so that no pair is missed
            crlf += int(((chunk[:-1] == cr) & (chunk[1:] == lf)).sum()) if cr >= 0 else 0
            counts += np.bincount(chunk[:CHUNK_CHARS], minlength=len(counts))
    present = {char: int(n) for char, n in zip(corpus.vocab.chars, counts, strict=True) if n}
    return Counter(present), crlf


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
