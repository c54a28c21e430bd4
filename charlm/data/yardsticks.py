"""What simple models make of a text, in bits per character: figures to hold a network against."""

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
    """The empirical entropy of a character given the k before it, bits, for k = 0..orders-1.

    Exact, of the text `ids` (N,) itself: over its N - k characters that have k before them. So it
    falls as k grows, and for large k says more about the length of the text than about its
    language. Zero where no character has k before it.
    """
    return [_entropy(contexts, grams) for contexts, grams, _ in _grams(ids, orders)]


def _entropy(contexts: _Ints, grams: _Ints) -> float:
    """H(gram) - H(context) over the positions (P,): both say what stands at each."""
    if not len(grams):
        return 0.0
    bits = (_n_log_n(contexts) - _n_log_n(grams)) / len(grams)
    return max(0.0, bits)  # rounding may leave it just below


def _n_log_n(kinds: _Ints) -> float:
    """The sum of n log2 n over the counts n of the distinct `kinds`."""
    counts = np.bincount(kinds)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts)).sum())


def ngram_bits(train: Ids, val: Ids, order: int) -> list[float]:
    """Mean bits per character of `val` (M,) under n-gram models of `train` (N,), by their order.

    Interpolated Witten-Bell, contexts of 0 to `order` characters: after a context h seen n(h)
    times with t(h) different characters behind it, h' being h without its first character,

        p(c | h) = (n(hc) + t(h) p(c | h')) / (n(h) + t(h)),

    and p(c | h') where h was never seen. Before order 0 comes the uniform distribution over the
    characters of `train` and `val`, so nothing is impossible. A context may reach back into the
    end of `train`, which `val` follows; nothing is learned from `val`.

    Exact: contexts are numbered, not hashed. Takes O((N + M) log(N + M)) an order, and some 30
    bytes a character.

    Source: Witten and Bell (1991), "The zero-frequency problem", IEEE Trans. Inf. Theory 37(4);
    escapes by method C, interpolated as in Chen and Goodman (1998), section 2.4.

    Raises:
        DataError: `val` is empty.
    """
    if not len(val):
        raise DataError("an n-gram model needs a text of 1 character or more to score")
    # of 1 / p, for 0.0 and not -0.0
    return [float(np.log2(1 / p).mean()) for p in ngram_probabilities(train, val, order)]


def ngram_probabilities(train: Ids, val: Ids, order: int) -> Iterator[NDArray[np.float64]]:
    """The probability (M,) of each character of `val` under the models of `ngram_bits`, by their
    order. The array is the same each time, and changed from one to the next."""
    both = np.concatenate([train, val])
    p = np.full(len(val), 1 / len(np.unique(both)))
    for k, (contexts, grams, context_of) in enumerate(_grams(both, order + 1)):
        _interpolate(p, contexts, grams, context_of, trained=max(0, len(train) - k))
        yield p


def _interpolate(
    p: NDArray[np.float64], contexts: _Ints, grams: _Ints, context_of: _Ints, trained: int
) -> None:
    """Take the probabilities p (M,) of the characters scored from order k - 1 to k, in place.

    The arrays are of `_grams`; their first `trained` positions are for counting, the others are
    the last of those scored.
    """
    n_gram = np.bincount(grams[:trained], minlength=len(context_of))  # n(hc)
    n_context = np.bincount(contexts[:trained], minlength=int(contexts.max(initial=0)) + 1)  # n(h)
    followers = np.bincount(context_of[n_gram > 0], minlength=len(n_context))  # t(h)
    scored = contexts[trained:]
    n, t = n_context[scored], followers[scored]
    shorter = p[len(p) - len(scored) :]  # the first characters of all have no k before them
    np.divide(n_gram[grams[trained:]] + t * shorter, n + t, out=shorter, where=n > 0)


def _grams(ids: Ids, orders: int) -> Iterator[tuple[_Ints, _Ints, _Ints]]:
    """For k = 0..orders-1, what stands at each of the N - k positions with k characters before it.

    Yields contexts (N-k,), a number for the k characters before; grams (N-k,), one for these and
    the character there, dense from 0; and context_of (distinct grams,), the context of each.
    """
    alphabet, chars = _numbered(ids)
    contexts = np.zeros_like(chars)
    for k in range(orders):
        distinct, grams = _numbered(contexts * np.int64(len(alphabet)) + chars[k:])
        yield contexts, grams, distinct // max(1, len(alphabet))
        contexts = grams[:-1]  # the k + 1 characters before a position end at the one before it


def _numbered(keys: _Ints) -> tuple[_Ints, _Ints]:
    """The distinct `keys` in order, and the place of each key among them: `np.unique`, but lean."""
    dtype = np.int32 if len(keys) < 2**31 else np.int64
    order = np.argsort(keys)
    keys = keys[order]
    first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    distinct = keys[first]
    del keys  # 8 bytes a character
    places = np.empty(len(order), dtype)
    places[order] = np.cumsum(first, dtype=dtype) - 1
    return distinct, places


def compressed_bits(data: bytes, chars: int) -> dict[str, float]:
    """Bits per character that `gzip -9`, `bzip2 -9` and `xz -9` make of `data`, all it takes.

    `data` is the text encoded, `chars` its length in characters. The three run in threads: they
    release the interpreter's lock. xz may take some 700 MB of memory.

    Raises:
        DataError: there are no characters.
    """
    if chars < 1:
        raise DataError("bits per character need a text of 1 character or more")
    with ThreadPoolExecutor(len(_COMPRESSORS)) as pool:
        packed = pool.map(lambda compress: compress(data), _COMPRESSORS.values())
        return {name: 8 * len(x) / chars for name, x in zip(_COMPRESSORS, packed, strict=True)}
