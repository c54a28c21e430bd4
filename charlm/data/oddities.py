"""Finds characters that may be mistakes: broken, invisible, duplicate or very rare ones.

Only the number of times that each character occurs is used, not its position. So the results are
hints. Characters that are normal in the main script of the text are not reported, and a reported
character may still be intended.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from charlm.visible import is_hidden

RARE = 5  # a character that occurs fewer times is rare
MANY_RARE = 20  # rare characters are reported if there are more of them


@dataclass(frozen=True)
class Oddity:
    """Characters of one kind that may be mistakes.

    Args:
        kind: The kind, as `data stats` shows it.
        chars: The characters, most frequent first.
        count: How often they occur in total.
        advice: A short explanation, and the setting that may help.
    """

    kind: str
    chars: str
    count: int
    advice: str


_ADVICE = {
    "control characters": "not text; remove them from the file",
    "replacement characters": "bytes lost by a wrong decoding: data.encoding",
    "wrongly decoded characters": "look like UTF-8 read as Latin-1 or cp1252: data.encoding",
    "byte-order marks": "left inside the text when files were joined; remove them from the file",
    "invisible characters": "zero-width, soft hyphen, text direction: seldom intended",
    "private-use or unassigned": (
        f"have no meaning in Unicode {unicodedata.unidata_version}: special signs of a font, newer "
        "characters, or a wrong decoding (data.encoding)"
    ),
    "combining marks": "accents (or parts of Hangul) apart from their letters: data.normalize=NFC",
    "compatibility forms": "variants of plain characters: data.normalize=NFKC makes them plain",
    "look-alike letters": "from another script than most letters: perhaps typing errors",
    "quotes": "curly and straight quotes are mixed: one \" or ' may be enough",
    "hyphens and dashes": "mixed with the plain hyphen: perhaps one sign typed in two ways",
    "spaces": "mixed with the plain space: data.normalize=NFKC makes them plain",
}

_STRAIGHT_OF = dict.fromkeys("“”„‟", '"') | dict.fromkeys("‘’‚‛´ʼ", "'")
# Without the em dash: languages that use it also use the hyphen, for another purpose.
_OTHER_HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63"

# Unicode decomposes these characters, but they are in everyday use: letters of Thai, Lao and
# Armenian, signs on keyboards, and signs that NFKC would change in meaning.
_EVERYDAY = set("\u0e33\u0eb3\u0587…‥№µ℃℉")
# Tags of decompositions. Not <super>, <fraction>, <circle>, <square>: these carry meaning.
_VARIANTS = (
    *("<compat>", "<noBreak>", "<wide>", "<narrow>", "<small>", "<vertical>", "<font>"),
    *("<initial>", "<medial>", "<final>", "<isolated>"),
)

_LOOKS_LATIN = {
    "Cyrillic": dict(
        zip("АВЕЅІЈКМНОРСТХУаеѕіјорсхуԁһ", "ABESIJKMHOPCTXYaesijopcxydh", strict=True)
    ),
    "Greek": dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρυ", "ABEZHIKMNOPTYXovpu", strict=True)),
}
# Latin letters that are never reported in another script: Roman numerals, and letters whose
# look-alike is rare in that script.
_LATIN_ANYWAY = set("IVXSJsjdh")

# UTF-8 that is read as Latin-1 or cp1252: é becomes Ã©, £ becomes Â£, a curly quote â€œ, р Ñ€.
# From the first character of each sequence to the characters that may come second.
_BROKEN = {
    "Ã": "©¨¡³±¼¶¤§«®¯²¹»¢£¥¦¬\u00a0\u00adŸ\x9f",
    "Â": "£©®°«»§·±¿¡½¼¾´\u00a0",
    "â": "€\x80",
    "Ð": "°²³´µ¶·¸¹»¼½¾¿",
}
_LEADS = set(_BROKEN) | {"Ñ"}

_SCRIPTS = (  # first and last code point
    ("Latin", 0x41, 0x24F),
    ("Greek", 0x370, 0x3FF),
    ("Cyrillic", 0x400, 0x52F),
    ("CJK", 0x1100, 0x11FF),
    ("Cyrillic", 0x1C80, 0x1C8F),
    ("Latin", 0x1E00, 0x1EFF),
    ("Greek", 0x1F00, 0x1FFF),
    ("Latin", 0x2C60, 0x2C7F),
    ("CJK", 0x2E80, 0x9FFF),
    ("Cyrillic", 0xA640, 0xA69F),
    ("Latin", 0xA720, 0xA7FF),
    ("CJK", 0xAC00, 0xD7FF),
    ("CJK", 0xF900, 0xFAFF),
    ("CJK", 0xFF66, 0xFFDC),
    ("CJK", 0x20000, 0x3FFFF),
)


def oddities(counts: Mapping[str, int], crlf: int = 0, lone_cr: int = 0) -> list[Oddity]:
    """Finds characters of a text that may be mistakes.

    Args:
        counts: How often each character occurs.
        crlf: The number of carriage returns before a line feed. `counts` includes them.
        lone_cr: The number of other carriage returns.

    Returns:
        At most one `Oddity` of each kind, the most frequent kind first. Empty for a clean text.
    """
    counts = {char: n for char, n in counts.items() if n > 0}
    found = [
        *_of_kinds(counts),
        *_look_alikes(counts),
        *_wrongly_decoded(counts),
        *_line_ends(counts.get("\n", 0), crlf, lone_cr),
        *_rare(counts),
    ]
    return sorted(found, key=lambda oddity: (-oddity.count, oddity.kind))


def _oddity(kind: str, chars: list[str], counts: Mapping[str, int], advice: str = "") -> Oddity:
    """An `Oddity` of these characters, with the usual advice for the kind if `advice` is empty."""
    chars = sorted(chars, key=lambda char: (-counts[char], char))
    return Oddity(kind, "".join(chars), sum(counts[c] for c in chars), advice or _ADVICE[kind])


def _of_kinds(counts: Mapping[str, int]) -> list[Oddity]:
    """The kinds that `_kind` decides, one character at a time."""
    script = _main_script(counts)
    chars: dict[str, list[str]] = defaultdict(list)
    for char in counts:
        if not (char.isascii() and char.isprintable()) and (kind := _kind(char, counts, script)):
            chars[kind].append(char)
    return [_oddity(kind, found, counts, _control_advice(found)) for kind, found in chars.items()]


def _control_advice(chars: list[str]) -> str:
    """Advice for control characters whose cause is known, or an empty string."""
    if "\0" in chars:
        return "NUL among them: a binary file, or UTF-16 read as something else: data.encoding"
    if any("\x80" <= char <= "\x9f" for char in chars):
        return "U+0080 to U+009F among them: most likely a wrong decoding: data.encoding"
    return ""


def _kind(char: str, counts: Mapping[str, int], script: str) -> str | None:
    """The first kind that a character belongs to, or None. `script` is the main script."""
    category = unicodedata.category(char)
    if char == "\ufffd":
        return "replacement characters"
    if char == "\ufeff":
        return "byte-order marks"
    if category == "Cc":
        return None if char in "\n\t\r" else "control characters"
    if category in ("Co", "Cn", "Cs"):
        return "private-use or unassigned"
    # Persian and the scripts of India use joiners in their spelling
    if is_hidden(char) and not (script == "other" and char in "\u200c\u200d"):
        return "invisible characters"
    if _is_combining(char):
        return "combining marks"
    if _STRAIGHT_OF.get(char) in counts:
        return "quotes"
    if char in _OTHER_HYPHENS and "-" in counts:
        return "hyphens and dashes"
    if category == "Zs" and " " in counts and not (script == "CJK" and char == "\u3000"):
        return "spaces"
    return "compatibility forms" if _is_variant(char, counts, script) else None


def _is_combining(char: str) -> bool:
    """Whether `char` follows a letter that NFC may join it with.

    This includes the vowels and final consonants of Hangul as separate characters, but not the
    vowel signs of most other scripts.
    """
    if "\u1161" <= char <= "\u1175" or "\u11a8" <= char <= "\u11c2":
        return True
    return unicodedata.combining(char) > 0 and unicodedata.name(char, "").startswith("COMBINING ")


def _is_variant(char: str, counts: Mapping[str, int], script: str) -> bool:
    """Whether NFKC replaces `char` by plain characters without a change of meaning."""
    decomposition = unicodedata.decomposition(char)
    if not decomposition or char in _EVERYDAY:
        return False
    tag, *parts = decomposition.split()
    if not tag.startswith("<"):
        return not parts  # a single character: the Ohm sign is Ω
    if tag not in _VARIANTS or (tag == "<compat>" and parts[0] == "0020"):
        return False  # 0020: an accent on its own
    if script != "CJK":
        return True
    if tag == "<wide>":  # normal, unless the text has letters and digits of both widths
        return char.isalnum() and any(plain.isalnum() and plain.isascii() for plain in counts)
    return not "\u3131" <= char <= "\u318e"  # separate letters of Hangul


def script_of(char: str) -> str:
    """The script of a letter: Latin, Greek, Cyrillic, CJK or other."""
    code = ord(char)
    return next((name for name, first, last in _SCRIPTS if first <= code <= last), "other")


def _letters(counts: Mapping[str, int]) -> dict[str, Counter[str]]:
    """The letters of each script, with their counts."""
    letters: dict[str, Counter[str]] = defaultdict(Counter)
    for char, n in counts.items():
        if unicodedata.category(char)[0] == "L":
            letters[script_of(char)][char] = n
    return letters


def _main_script(counts: Mapping[str, int]) -> str:
    """The script of most letters, or "other" if there are no letters."""
    letters = _letters(counts)
    return max(letters, key=lambda script: letters[script].total(), default="other")


def _look_alikes(counts: Mapping[str, int]) -> list[Oddity]:
    """Letters that look like letters of the main script, but belong to another script.

    If most letters of the other script have no look-alike, the text really uses that script, for
    example in a quotation or a formula. Then nothing is reported.
    """
    letters, main = _letters(counts), _main_script(counts)
    chars: list[str] = []
    for script, pairs in _LOOKS_LATIN.items():
        if main == "Latin":
            chars += _alike(letters[script], set(pairs))
        elif main == script:
            latin = {char: n for char, n in letters["Latin"].items() if char not in _LATIN_ANYWAY}
            chars += _alike(latin, set(pairs.values()))
    return [_oddity("look-alike letters", chars, counts)] if chars else []


def _alike(letters: Mapping[str, int], look_alikes: set[str]) -> list[str]:
    """The `letters` that are in `look_alikes`, if they make up more than half of the letters."""
    alike = [char for char in letters if char in look_alikes]
    return alike if 2 * sum(letters[c] for c in alike) > sum(letters.values()) else []


def _wrongly_decoded(counts: Mapping[str, int]) -> list[Oddity]:
    """Characters of wrongly decoded sequences, the first of each and those that come second.

    A first character (a lead, such as Ã) may also be a real letter of a language. Such a text has
    more of the other letters from À to ÿ than leads, and then nothing is reported. A lead is
    reported only if there are at least half as many characters that may come second.
    """
    leads = sum(counts.get(lead, 0) for lead in _LEADS)
    genuine = sum(n for c, n in counts.items() if "À" <= c <= "ÿ" and c not in _LEADS)
    found = {
        lead: [c for c in seconds if c in counts]
        for lead, seconds in _BROKEN.items()
        if 2 * sum(counts.get(c, 0) for c in seconds) >= counts.get(lead, 0) > 0
    }
    found = {lead: seconds for lead, seconds in found.items() if seconds}
    if leads <= genuine or not found:
        return []
    chars = "".join(dict.fromkeys("".join(lead + "".join(found[lead]) for lead in found)))
    kind = "wrongly decoded characters"
    return [Oddity(kind, chars, sum(counts[lead] for lead in found), _ADVICE[kind])]


def _line_ends(lf: int, crlf: int, lone_cr: int) -> list[Oddity]:
    """Mixed and unusual line ends. `lf` counts all line feeds, also those of `crlf`."""
    found = []
    if crlf and lf > crlf:
        advice = f"and {lf - crlf:,} lines that end in LF alone: data.newlines=lf"
        found.append(Oddity("mixed line ends", "\r\n", crlf, advice))
    elif crlf:
        advice = "two characters for each line end, as on Windows: data.newlines=lf"
        found.append(Oddity("CRLF line ends", "\r\n", crlf, advice))
    if lone_cr:
        advice = "carriage returns without a line feed after them: data.newlines=lf"
        if not lf:
            advice = "the only line ends, so the text is one long line: data.newlines=lf"
        found.append(Oddity("lone carriage returns", "\r", lone_cr, advice))
    return found


def _rare(counts: Mapping[str, int]) -> list[Oddity]:
    """Rare characters. If they are more than a tenth of the text, the text is only short."""
    rare = [char for char, n in counts.items() if n < RARE]
    share = sum(counts[char] for char in rare) / max(1, sum(counts.values()))
    if len(rare) <= MANY_RARE or share > 0.1:
        return []
    percent = f"{share:.2%}" if share >= 0.0001 else "under 0.01%"
    advice = f"occur fewer than {RARE} times: {len(rare):,} characters, {percent} of the text"
    advice += ": data.vocab_min_count"
    return [_oddity("rare characters", rare, counts, advice)]
