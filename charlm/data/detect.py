"""Describes bytes that could not be read as text, and advises what to do.

chardet recognizes encodings and file formats. An encoding is named only if it decodes the bytes,
and if `data stats` would not call the result wrongly decoded.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from itertools import pairwise
from unicodedata import category

from charlm.data.oddities import oddities, script_of

SAMPLE = 1 << 16  # bytes looked at

_EAST_ASIAN = ("cp932", "euc_jis_2004", "gb18030", "big5hkscs", "cp949")  # two bytes or more
_CANDIDATES = (
    *("cp1252", "iso8859-1", "iso8859-15", "mac-roman", "cp850", "cp437"),
    *("cp1250", "iso8859-2", "mac-latin2", "cp852", "cp1257", "iso8859-13", "iso8859-4"),
    *("cp1251", "koi8-r", "koi8-u", "iso8859-5", "mac-cyrillic", "cp866"),
    *("cp1253", "iso8859-7", "cp1254", "iso8859-9", "cp1255", "iso8859-8", "cp1256", "iso8859-6"),
    "cp874",
    *_EAST_ASIAN,
    *("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8"),
)
# The more common encoding is named if it gives the same text: the rest of the file may need it.
_COMMON = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "euc_jis_2004": "euc_jp",
    "big5hkscs": "big5",
}
_FORMATS = (  # that chardet does not know, or takes for UTF-16
    (re.compile(rb"PK\x03\x04"), "zip, as .docx, .xlsx, .odt and .epub"),
    (re.compile(rb".{5}\0\0\0{\"", re.DOTALL), "safetensors"),
    (re.compile(rb"\x93NUMPY"), "npy"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "an old Microsoft Office file"),
)
_PACKED = {"gzip": ".gz", "x-bzip2": ".bz2", "x-xz": ".xz"}
_NEVER_IN_A_TEXT = re.compile(rb"[\0-\x06\x0e-\x19\x1c-\x1f]")  # of 8-bit units
_WRONG = ("control characters", "private-use or unassigned")  # oddities of wrong decodings
_WORD = re.compile(r"[^\W\d_]+")
_SIGNS = re.compile(r"([^\W\d_])([^\w\s\0-\x7f’‐‑–—…·\xad]+)(?=([^\W\d_]))")  # inside a word
_LOOKED_AT = 10_000  # characters
_MISPLACED = 0.05  # the largest share of misplaced characters in a text
_ENOUGH = 50  # characters that are not ASCII, to be sure
# shares of the best confidence of chardet; encodings above the first do not really differ
_CLOSE, _NEAR = 0.98, 0.7
_FEW = 2  # different bytes that are not ASCII; fewer are no evidence
_NO_IDEA = 0.04  # below this confidence of chardet, the first of the candidates is used

_BYTES = "train on bytes with data.unit=byte"
_REPLACE = f"read bad bytes as U+FFFD with data.errors=replace, or {_BYTES}"


def advise(sample: bytes, encoding: str) -> str:
    """What these bytes are, if that can be known, and what to do: the end of an error message.

    Args:
        sample: bytes that could not be read in this encoding, from the start of a file.
    """
    kind = _format(sample)
    if kind in _PACKED:
        return f"it is a {kind} file: unpack it first, or let its name end in {_PACKED[kind]}"
    if kind:
        return f"it is not a text ({kind}): extract its text first, or {_BYTES}"
    found, sure = ("utf-8", True) if _is_damaged_utf8(sample) else _encoding(sample)
    if found and codecs.lookup(found).name == codecs.lookup(encoding).name:
        return f"most of it is {encoding}: repair the file, {_REPLACE}"
    if found and sure:
        return f"it is {found}: set data.encoding={found}"
    if found:
        return f"perhaps it is {found}: try data.encoding={found}, {_REPLACE}"
    if _NEVER_IN_A_TEXT.search(sample):
        return f"it is not a text in an encoding that is recognized: {_BYTES}"
    return f"its encoding is not recognized: set data.encoding, {_REPLACE}"


def _format(sample: bytes) -> str:
    """The format of a file that is not a text, as the second part of a MIME type; or nothing."""
    import chardet  # slow to import, and seldom needed

    if not _NEVER_IN_A_TEXT.search(sample):
        return ""  # a text may start with BM or MZ
    found = next((name for pattern, name in _FORMATS if pattern.match(sample)), "")
    mime = chardet.detect(sample)["mime_type"] or ""
    return found or ("" if mime.endswith(("/octet-stream", "/plain")) else mime.partition("/")[2])


def _is_damaged_utf8(sample: bytes) -> bool:
    """Whether bad bytes are few among the characters of several bytes."""
    text = sample.decode("utf-8", "replace")
    n_bad = text.count("\ufffd")
    n_good = sum(not char.isascii() for char in text) - n_bad
    return n_good >= 10 * n_bad and _looks_like_text(text.replace("\ufffd", ""))


def _encoding(sample: bytes) -> tuple[str | None, bool]:
    """The encoding of a text, or None; and whether it is certain."""
    confidence, texts, misplaced = _ranked(sample), {}, {}
    for name in confidence:
        text = _decode(sample, name)
        if text is not None:
            share = _misplaced(text)
            if name.startswith("utf-") or share <= _MISPLACED:
                texts[name], misplaced[name] = text, round(share, 2)
    if not texts:
        return _utf_16(sample), False
    top = max(confidence[name] for name in texts)
    near = [name for name in texts if confidence[name] >= _NEAR * top]
    is_short = len(set(sample) - set(range(128))) < _FEW
    if top < _NO_IDEA or is_short:
        near.sort(key=_CANDIDATES.index)
    best = min(near, key=lambda name: misplaced[name])
    text = texts[best]
    rivals = [
        name
        for name in near
        if confidence[name] > _CLOSE * confidence[best] and misplaced[name] <= misplaced[best]
    ]
    # few other texts are valid in UTF and in East Asian encodings
    if not best.startswith("utf-") and best not in _EAST_ASIAN:
        rivals += [name for name in _EAST_ASIAN if _decode(sample, name) is not None]
    is_close = any(_decode(sample, name) != text for name in rivals)
    n_special = sum(best.startswith("utf-") or not char.isascii() for char in text)
    common = _COMMON.get(best, best)
    return (
        common if _decode(sample, common) == text else best,
        n_special >= _ENOUGH and top >= _NO_IDEA and not is_close,
    )


def _ranked(sample: bytes) -> dict[str, float]:
    """The encodings that chardet considers and its confidence in each, the best first."""
    import chardet

    if not _NEVER_IN_A_TEXT.search(sample):  # lines in ASCII are no evidence, and mislead chardet
        sample = b"".join(line for line in sample.splitlines(True) if not line.isascii())
        sample = b"  " + sample  # so that it is not taken for a file that starts with BM or MZ
    found = chardet.detect_all(
        sample, True, prefer_superset=False, compat_names=False, include_encodings=_CANDIDATES,
        no_match_encoding="utf-8",
    )  # fmt: skip
    return {each["encoding"]: each["confidence"] for each in found if each["encoding"]}


def _utf_16(sample: bytes) -> str | None:
    """The byte order of a text without spaces and line ends: the upper bytes vary less."""
    even, odd = len(set(sample[::2])), len(set(sample[1::2]))
    name = "utf-16-be" if even < odd else "utf-16-le"
    return name if even != odd and _decode(sample, name) else None


def _decode(sample: bytes, encoding: str) -> str | None:
    """The text of the sample, without a character that its end may cut; None if it is no text."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        text = decoder.decode(sample, final=len(sample) < SAMPLE).removeprefix("\ufeff")
    except (LookupError, UnicodeError):
        return None
    return text if _looks_like_text(text) else None


def _looks_like_text(text: str) -> bool:
    """Whether `data stats` finds almost no signs of a wrong decoding in a text."""
    odd = {oddity.kind: oddity for oddity in oddities(Counter(text))}
    controls = odd["control characters"].chars if "control characters" in odd else ""
    if "wrongly decoded characters" in odd or any(c == "\0" or c >= "\x7f" for c in controls):
        return False
    return 100 * sum(odd[kind].count for kind in _WRONG if kind in odd) <= len(text)


def _misplaced(text: str) -> float:
    """The share of the non-ASCII characters at positions that are typical of a wrong decoding.

    These are capitals after small letters, letters of two scripts side by side, and signs inside
    words of letters that have capitals. Looks only at the start of the lines that are not ASCII.
    """
    text = "".join(line for line in text.splitlines(True) if not line.isascii())[:_LOOKED_AT]
    n = sum(
        (a.islower() and b.isupper())
        or (not a.isascii() and not b.isascii() and len({script_of(a), script_of(b), "CJK"}) == 3)
        for word in _WORD.findall(text)
        for a, b in pairwise(word)
        if not (a + b).isascii()
    )
    n += sum(
        category(sign)[0] in "PS"
        for before, signs, after in _SIGNS.findall(text)
        if before.lower() != before.upper() and after.lower() != after.upper()
        for sign in signs
    )
    return float(n / max(1, sum(not char.isascii() for char in text)))
