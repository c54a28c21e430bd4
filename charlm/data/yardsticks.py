"""Entropies, n-gram models and compressors: bits per character to compare a network with."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.errors import DataError

_Ints = NDArray[Any]  # of an integer type
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 9, mtime=0),
    "bzip2": lambda data: bz2.compress(data, 9),
    "xz": lambda data: lzma.compress(data, preset=9),
}


def entropies(ids: Ids, orders: int = 3) -> list[float]:
    """The empirical entropy of a character, given the k characters before it.

    It is exact for the text itself, over the N - k characters that have k characters before them.
    It decreases as k grows. For a large k it says more about the length of the text than about
    its language.

    Args:
        ids: The text (N,).
        orders: The number of orders.

    Returns:
        The entropy in bits for k = 0..orders-1. Zero if no character has k characters before it.
    """
    return [_entropy(contexts, grams) for contexts, grams, _ in _grams(ids, orders)]


def _entropy(contexts: _Ints, grams: _Ints) -> float:
    """H(gram) - H(context) in bits. Both arrays (N-k,) have one number for each position."""
    if not len(grams):
        return 0.0
    bits = (_n_log_n(contexts) - _n_log_n(grams)) / len(grams)
    return max(0.0, bits)  # rounding may give a value just below zero


def _n_log_n(numbers: _Ints) -> float:
    """The sum of n log2 n over the counts n of the distinct `numbers`."""
    counts = np.bincount(numbers)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts)).sum())


def ngram_bits(train: Ids, val: Ids, order: int) -> list[float]:
    """The mean bits per character of `val` under interpolated Witten-Bell n-gram models of `train`.

    Let a context h occur n(h) times in `train`, followed by t(h) different characters, and let h'
    be h without its first character. Then

        p(c | h) = (n(hc) + t(h) p(c | h')) / (n(h) + t(h)),

    and p(c | h) = p(c | h') if h does not occur. The empty context falls back to the uniform
    distribution over the characters of `train` and `val`, so every probability is positive. `val`
    follows `train`: its first contexts reach back into `train`. Nothing is learned from `val`.

    The models are exact: contexts are numbered, not hashed. Each order takes
    O((N + M) log(N + M)) time. The memory is about 30 bytes for each character.

    Source: Witten and Bell (1991), "The zero-frequency problem", IEEE Trans. Inf. Theory 37(4),
    method C, interpolated as in Chen and Goodman (1998), section 2.4.

    Args:
        train: The training text (N,).
        val: The text to score (M,).
        order: The longest context, in characters.

    Returns:
        The bits per character for contexts of at most 0, 1, ..., `order` characters.

    Raises:
        DataError: `val` is empty.
    """
    if not len(val):
        raise DataError("the text to score with an n-gram model needs at least 1 character")
    # log2(1 / p) instead of -log2(p), because -log2(1) is -0.0.
    return [float(np.log2(1 / p).mean()) for p in ngram_probabilities(train, val, order)]


def ngram_probabilities(train: Ids, val: Ids, order: int) -> Iterator[NDArray[np.float64]]:
    """Yields the probability (M,) of each character of `val` under each model of `ngram_bits`.

    One array is yielded every time and is changed in place from order to order.
    """
    both = np.concatenate([train, val])
    p = np.full(len(val), 1 / len(np.unique(both)))
    for k, (contexts, grams, context_of) in enumerate(_grams(both, order + 1)):
        _interpolate(p, contexts, grams, context_of, trained=max(0, len(train) - k))
        yield p


def _interpolate(
    p: NDArray[np.float64], contexts: _Ints, grams: _Ints, context_of: _Ints, trained: int
) -> None:
    """Changes the probabilities p (M,) of the scored characters from order k - 1 to k, in place.

    The other arrays come from `_grams`. Their first `trained` positions are counted. The other
    positions are the last of the scored ones.
    """
    n_gram = np.bincount(grams[:trained], minlength=len(context_of))  # n(hc)
    n_context = np.bincount(contexts[:trained], minlength=int(contexts.max(initial=0)) + 1)  # n(h)
    followers = np.bincount(context_of[n_gram > 0], minlength=len(n_context))  # t(h)
    scored = contexts[trained:]
    n, t = n_context[scored], followers[scored]
    shorter = p[len(p) - len(scored) :]  # the first k characters of the text have no context
    np.divide(n_gram[grams[trained:]] + t * shorter, n + t, out=shorter, where=n > 0)


def _grams(ids: Ids, orders: int) -> Iterator[tuple[_Ints, _Ints, _Ints]]:
    """Numbers contexts and grams at the N - k positions with k characters before, k = 0..orders-1.

    Yields, for each k:
        contexts (N-k,): the number of the k characters before each position.
        grams (N-k,): the number of these k characters and the one at the position, from 0 on.
        context_of (number of distinct grams,): the context of each gram.
    """
    alphabet, chars = _numbered(ids)
    contexts = np.zeros_like(chars)
    for k in range(orders):
        distinct, grams = _numbered(contexts * np.int64(len(alphabet)) + chars[k:])
        yield contexts, grams, distinct // max(1, len(alphabet))
        contexts = grams[:-1]  # a gram is the next context of the position after it


def _numbered(keys: _Ints) -> tuple[_Ints, _Ints]:
    """The sorted distinct `keys` and the index of each key: `np.unique` with less memory."""
    dtype = np.int32 if len(keys) < 2**31 else np.int64
    order = np.argsort(keys)
    keys = keys[order]
    first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    distinct = keys[first]
    del keys  # 8 bytes for each character
    indices = np.empty(len(order), dtype)
    indices[order] = np.cumsum(first, dtype=dtype) - 1
    return distinct, indices


def compressed_bits(data: bytes, chars: int) -> dict[str, float]:
    """The size of a text after `gzip -9`, `bzip2 -9` and `xz -9`, in bits per character.

    The compressors run in parallel threads, because they release the GIL. xz may need about
    700 MB of memory.

    Args:
        data: The encoded text.
        chars: Its length in characters.

    Returns:
        The bits per character for each compressor, headers included.

    Raises:
        DataError: `chars` is 0.
    """
    if chars < 1:
        raise DataError("bits per character need a text of at least 1 character")
    with ThreadPoolExecutor(len(_COMPRESSORS)) as pool:
        packed = pool.map(lambda compress: compress(data), _COMPRESSORS.values())
        return {name: 8 * len(x) / chars for name, x in zip(_COMPRESSORS, packed, strict=True)}
