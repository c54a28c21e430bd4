"""Characters of a text that may not be meant: broken, invisible, double, or hardly there.

Judged from how often each character occurs, not from where, so these are hints: what is normal in
the script most letters are of is left out, and what remains may still be meant.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

RARE, MANY_RARE = 5, 20  # more than 20 characters that each occur fewer than 5 times


@dataclass(frozen=True)
class Oddity:
    """Characters of one kind, most frequent first, how often they occur, and what may help."""

    kind: str
    chars: str
    count: int
    advice: str


_ADVICE = {
    "control characters": "not text; take them out of the file",
    "replacement characters": "bytes a wrong decoding lost: data.encoding",
    "wrongly decoded characters": "look like UTF-8 read as Latin-1 or cp1252: data.encoding",
    "byte-order marks": "left inside by joining files; take them out of the file",
    "invisible characters": "zero-width, soft hyphen, text direction: seldom meant",
    "private-use or unassigned": (
        f"without meaning in Unicode {unicodedata.unidata_version}: a font's own signs, newer "
        "characters, or a wrong decoding (data.encoding)"
    ),
    "combining marks": "accents (or parts of Hangul) apart from their letters: data.normalize=NFC",
    "compatibility forms": "other shapes of plain characters: data.normalize=NFKC makes them plain",
    "look-alike letters": "of another script than most letters: perhaps typing errors",
    "quotes": "curly beside straight: one \" or ' may do for both",
    "hyphens and dashes": "beside the plain hyphen: perhaps the same sign typed in two ways",
    "spaces": "beside the plain space: data.normalize=NFKC makes them plain",
}

_STRAIGHT_OF = dict.fromkeys("“”„‟", '"') | dict.fromkeys("‘’‚‛´ʼ", "'")
# Not the em dash: most spelling rules that have it have the hyphen as well, for something else.
_OTHER_HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63"

# Compatibility forms by decomposition, but in everyday use: letters of Thai, Lao and Armenian,
# signs on keyboards, and marks that are not made of what NFKC makes them.
_EVERYDAY = set("\u0e33\u0eb3\u0587…‥№µ℃℉")
_OTHER_SHAPES = (  # of decompositions; <super>, <fraction>, <circle>, <square> say something
    *("<compat>", "<noBreak>", "<wide>", "<narrow>", "<small>", "<vertical>", "<font>"),
    *("<initial>", "<medial>", "<final>", "<isolated>"),
)

_LOOKS_LATIN = {
    "Cyrillic": dict(
        zip("АВЕЅІЈКМНОРСТХУаеѕіјорсхуԁһ", "ABESIJKMHOPCTXYaesijopcxydh", strict=True)
    ),
    "Greek": dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρυ", "ABEZHIKMNOPTYXovpu", strict=True)),
}
# Latin letters not taken for another script's: Roman numerals, and letters hardly any text of
# that script has a double of.
_LATIN_ANYWAY = set("IVXSJsjdh")

# What follows in UTF-8 read as Latin-1 or cp1252: é is Ã©, £ is Â£, a curly quote â€œ, р Ñ€.
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
    """What is odd about a text whose characters occur `counts` times, most frequent first.

    `crlf` is how often a carriage return stands before a line feed (which `counts` has too),
    `lone_cr` how often one does not. At most one of a kind; none for a clean text.
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
    """Of `chars`, all in `counts`, with the usual advice unless told another."""
    chars = sorted(chars, key=lambda char: (-counts[char], char))
    return Oddity(kind, "".join(chars), sum(counts[c] for c in chars), advice or _ADVICE[kind])


def _of_kinds(counts: Mapping[str, int]) -> list[Oddity]:
    """The kinds a character is of by itself, or by what else is there."""
    script = _main_script(counts)
    chars: dict[str, list[str]] = defaultdict(list)
    for char in counts:
        if not (char.isascii() and char.isprintable()) and (kind := _kind(char, counts, script)):
            chars[kind].append(char)
    return [_oddity(kind, those, counts, _closer_advice(those)) for kind, those in chars.items()]


def _closer_advice(chars: list[str]) -> str:
    """What control characters among `chars` tell, nothing where there are none of these."""
    if "\0" in chars:
        return "NUL among them: a binary file, or UTF-16 read as something else: data.encoding"
    if any("\x80" <= char <= "\x9f" for char in chars):
        return "U+0080 to U+009F among them: most likely a wrong decoding: data.encoding"
    return ""


def _kind(char: str, counts: Mapping[str, int], script: str) -> str | None:
    """The first kind that fits."""
    category = unicodedata.category(char)
    if char == "\ufffd":
        return "replacement characters"
    if char == "\ufeff":
        return "byte-order marks"
    if category == "Cc":
        return None if char in "\n\t\r" else "control characters"
    if category in ("Co", "Cn", "Cs"):
        return "private-use or unassigned"
    if _is_invisible(char, category, script):
        return "invisible characters"
    if _is_apart(char):
        return "combining marks"
    if _STRAIGHT_OF.get(char) in counts:
        return "quotes"
    if char in _OTHER_HYPHENS and "-" in counts:
        return "hyphens and dashes"
    if category == "Zs" and " " in counts and not (script == "CJK" and char == "\u3000"):
        return "spaces"
    return "compatibility forms" if _is_other_shape(char, counts, script) else None


def _is_invisible(char: str, category: str, script: str) -> bool:
    if char in "\u200c\u200d" and script == "other":
        return False  # Persian and the scripts of India spell with joiners
    # bidirectional AN: the signs Arabic puts around numbers are Cf, and seen
    return category in ("Zl", "Zp") or (
        category == "Cf" and unicodedata.bidirectional(char) != "AN"
    )


def _is_apart(char: str) -> bool:
    """Does `char` follow a letter that it could be joined with? Not so most scripts' vowel signs.

    The vowels and final consonants of Hangul written as single letters are among them.
    """
    if "\u1161" <= char <= "\u1175" or "\u11a8" <= char <= "\u11c2":
        return True
    return unicodedata.combining(char) > 0 and unicodedata.name(char, "").startswith("COMBINING ")


def _is_other_shape(char: str, counts: Mapping[str, int], script: str) -> bool:
    decomposition = unicodedata.decomposition(char)
    if not decomposition or char in _EVERYDAY:
        return False
    tag, *parts = decomposition.split()
    if not tag.startswith("<"):
        return not parts  # one character for another: the Ohm sign is Ω
    if tag not in _OTHER_SHAPES or (tag == "<compat>" and parts[0] == "0020"):
        return False  # the last: accents that stand alone
    if script != "CJK":
        return True
    if tag == "<wide>":  # normal, unless the text writes its letters and digits both ways
        return char.isalnum() and any(plain.isalnum() and plain.isascii() for plain in counts)
    return not "\u3131" <= char <= "\u318e"  # single letters of Hangul


def _script(char: str) -> str:
    """The script of a letter, as far as it matters here."""
    code = ord(char)
    return next((name for name, first, last in _SCRIPTS if first <= code <= last), "other")


def _letters(counts: Mapping[str, int]) -> dict[str, Counter[str]]:
    """The letters of each script, with their counts."""
    letters: dict[str, Counter[str]] = defaultdict(Counter)
    for char, n in counts.items():
        if unicodedata.category(char)[0] == "L":
            letters[_script(char)][char] = n
    return letters


def _main_script(counts: Mapping[str, int]) -> str:
    """The script most letters are of, `other` where there are none."""
    letters = _letters(counts)
    return max(letters, key=lambda script: letters[script].total(), default="other")


def _look_alikes(counts: Mapping[str, int]) -> list[Oddity]:
    """Letters of a script that is not the main one, but look as if they were.

    A script more of whose letters do not look so is there in its own right: a quotation, a formula.
    """
    letters, main = _letters(counts), _main_script(counts)
    chars: list[str] = []
    for script, pairs in _LOOKS_LATIN.items():
        if main == "Latin":
            chars += _mostly_alike(letters[script], set(pairs))
        elif main == script:
            meant = {char: n for char, n in letters["Latin"].items() if char not in _LATIN_ANYWAY}
            chars += _mostly_alike(meant, set(pairs.values()))
    return [_oddity("look-alike letters", chars, counts)] if chars else []


def _mostly_alike(letters: Mapping[str, int], like: set[str]) -> list[str]:
    """The `letters` that are in `like`, if these are more than half of all their occurrences."""
    alike = [char for char in letters if char in like]
    return alike if 2 * sum(letters[c] for c in alike) > sum(letters.values()) else []


def _wrongly_decoded(counts: Mapping[str, int]) -> list[Oddity]:
    """First halves of wrongly decoded characters, with the second halves that go with them.

    Each first half has its second behind it, and stands for a letter with an accent or a sign. In
    a language that has it as a letter there are more of the others from À to ÿ.
    """
    leads = sum(counts.get(lead, 0) for lead in _LEADS)
    genuine = sum(n for c, n in counts.items() if "À" <= c <= "ÿ" and c not in _LEADS)
    halves = {
        lead: [c for c in seconds if c in counts]
        for lead, seconds in _BROKEN.items()
        if 2 * sum(counts.get(c, 0) for c in seconds) >= counts.get(lead, 0) > 0
    }
    halves = {lead: seconds for lead, seconds in halves.items() if seconds}
    if leads <= genuine or not halves:
        return []
    chars = "".join(dict.fromkeys("".join(x + "".join(halves[x]) for x in halves)))
    kind = "wrongly decoded characters"
    return [Oddity(kind, chars, sum(counts[lead] for lead in halves), _ADVICE[kind])]


def _line_ends(lf: int, crlf: int, lone_cr: int) -> list[Oddity]:
    """`lf` counts all line feeds, those of `crlf` among them."""
    found = []
    if crlf and lf > crlf:
        advice = f"and {lf - crlf:,} lines that end in LF alone: data.newlines=lf"
        found.append(Oddity("mixed line ends", "\r\n", crlf, advice))
    elif crlf:
        advice = "two characters a line end, as on Windows: data.newlines=lf"
        found.append(Oddity("CRLF line ends", "\r\n", crlf, advice))
    if lone_cr:
        advice = "carriage returns with no line feed behind them: data.newlines=lf"
        found.append(Oddity("lone carriage returns", "\r", lone_cr, advice))
    return found


def _rare(counts: Mapping[str, int]) -> list[Oddity]:
    """The characters hardly there, unless they are much of the text: then it is merely short."""
    rare = [char for char, n in counts.items() if n < RARE]
    share = sum(counts[char] for char in rare) / max(1, sum(counts.values()))
    if len(rare) <= MANY_RARE or share > 0.1:
        return []
    percent = f"{share:.2%}" if share >= 0.0001 else "under 0.01%"
    advice = f"seen fewer than {RARE} times: {len(rare):,} characters, {percent} of the text"
    advice += ": data.min_count"
    return [_oddity("rare characters", rare, counts, advice)]
