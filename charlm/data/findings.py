"""What a user should know about a text before a model is trained on it."""

from __future__ import annotations

import bisect
from collections import Counter
from itertools import accumulate

from charlm.config import DataConfig
from charlm.data.corpus import Corpus, Split
from charlm.data.oddities import Oddity, oddities
from charlm.data.sources import find_sources
from charlm.data.vocab import CHUNK_CHARS

# kinds of oddities that a model learns as if they were text; of the others, a text may be full
SERIOUS = (
    *("mixed line ends", "CRLF line ends", "lone carriage returns", "control characters"),
    *("replacement characters", "wrongly decoded characters", "byte-order marks"),
)
_LOOKED_AT = 100_000  # characters, for the question whether a text is a list
_MIN_LINES, _SHORT = 50, 40
_CLOSING = tuple(".,;:!?{}()[]-–—…\"'”’»")  # a line of prose, verse or code often ends with these


def findings(corpus: Corpus, data: DataConfig) -> list[str]:
    """What may be wrong with a text, one line each, with the setting that mends it."""
    odd = [it for it in odd_characters(corpus, data) if it.kind in SERIOUS]
    return [_about(it) for it in odd] + structure(corpus, data)


def _about(odd: Oddity) -> str:
    kind = odd.kind.removesuffix("s") if odd.count == 1 else odd.kind
    return f"{odd.count:,} {kind} ({shown_chars(odd.chars)}): {odd.advice}"


def structure(corpus: Corpus, data: DataConfig) -> list[str]:
    """What a text is made of, if it is several files or looks like a list."""
    lines = [_about_files(data)]
    if data.unit == "char" and data.documents == "none" and _looks_like_list(corpus):
        lines.append(
            "the lines look like a list, such as names; data.documents=lines makes each line a "
            "document of its own"
        )
    return [line for line in lines if line]


def odd_characters(corpus: Corpus, data: DataConfig) -> list[Oddity]:
    """The oddities of a text of characters; none in one of bytes."""
    if data.unit == "byte":
        return []
    known = set(corpus.vocab.chars)  # the others are read as U+FFFD
    counts = Counter({char: n for char, n in corpus.counts.items() if char in known})
    crlf = _count_crlf(corpus)
    return oddities(counts, crlf, counts["\r"] - crlf)


def shown_chars(chars: str) -> str:
    """The first of these characters, all visible."""
    return repr(chars[:20])[1:-1] + "..." * (len(chars) > 20)


def _count_crlf(corpus: Corpus) -> int:
    """The number of times that LF follows CR."""
    cr, lf = (corpus.vocab.chars.find(char) for char in "\r\n")
    if min(cr, lf) < 0:
        return 0
    splits: tuple[Split, ...] = ("train", "val", "test")
    total = 0
    for split in ("all",) if "all" in corpus.parts else splits:
        ids = corpus.parts[split]
        for start in range(0, len(ids), CHUNK_CHARS):
            chunk = ids[start : start + CHUNK_CHARS + 1]  # one more, so that no pair is missed
            total += int(((chunk[:-1] == cr) & (chunk[1:] == lf)).sum())
    return total


def _about_files(data: DataConfig) -> str:
    """`4 files are joined; held out: the last 10%, from c.txt`; empty for one file."""
    sources = find_sources(data.path, data)
    if len(sources) == 1:
        return ""
    joined = f"{len(sources):,} files are joined"
    held_out = data.val_fraction + data.test_fraction
    if not held_out or data.documents == "lines":  # documents are shuffled
        return joined
    held = f"{joined}; held out: the last {100 * held_out:.3g}%"
    paths = [source.path for source in sources]
    if any(path is None or path.suffix in (".gz", ".bz2", ".xz") for path in paths):
        return held  # their sizes are not known
    ends = list(accumulate(path.stat().st_size for path in paths if path))
    first = bisect.bisect_right(ends, ends[-1] * (1 - held_out))
    return f"{held}, from {sources[first].name}"


def _looks_like_list(corpus: Corpus) -> bool:
    """Whether the lines of a text are short, different, and end without a sign.

    A list of names, words or titles has such lines. Prose has long lines or empty ones, and code
    has indented ones.
    """
    text = corpus.vocab.decode(corpus.split("train")[:_LOOKED_AT].tolist())
    lines = [line.removesuffix("\r") for line in text.split("\n")[:-1]]
    if len(lines) < _MIN_LINES:
        return False
    n, lengths = len(lines), sorted(map(len, lines))
    return (
        lengths[n // 2] <= _SHORT
        and lengths[n * 95 // 100] <= 2 * _SHORT
        and sum(bool(line.strip()) for line in lines) >= 0.98 * n
        and sum(line.endswith(_CLOSING) for line in lines) <= 0.1 * n
        and sum(line[:1].isspace() for line in lines) <= 0.02 * n
        and len(set(lines)) >= 0.5 * n
    )
