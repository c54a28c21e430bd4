"""Characters of a text that may be mistakes."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.oddities import Oddity, oddities

ENGLISH = (
    'It was the best of times, it was the worst of times; e-mail me at 5 o\'clock ("sharp")!\n'
)
RUSSIAN = (
    "Всё смешалось в доме Облонских. — Кто-то, — сказал он, — из «Московских ведомостей» "
    "пришёл в XIX веке… Дом № 5, квартира 12.\n"
)
JAPANESE = "吾輩は猫である。名前はまだ無い、と（彼は）言った！　「どこで生れたか？」ＮＨＫ—…\n"


def found(text: str) -> dict[str, str]:
    """The characters of each kind that are found in `text`, without line ends."""
    return {oddity.kind: oddity.chars for oddity in oddities(Counter(text))}


def only(text: str) -> Oddity:
    (oddity,) = oddities(Counter(text))
    return oddity


@pytest.mark.parametrize(
    "text",
    [
        "",
        ENGLISH,
        RUSSIAN,
        JAPANESE,
        "A tab\there — and a dash, “quoted” text, it’s so.\n",
        "Ça coûte 5 € à l'âge de 20 ans, cœur brisé. © Noël, où êtes-vous?\n",
        "A Ação não é ©: NÃO, irmã, 1ª e 2º.\n",
        "ESPAÑA: AÑO Nº 1, 20°\n",
        "Füße, Übermut, Ärger; 10 µm² bei ½ Kraft ™\n",
        "Ὅμηρος, ἄνδρα μοι ἔννεπε, μοῦσα\n",
        "Їжак і ґанок, п'ять — Київ\n",
        "ในน้ำมีปลา ในนามีข้าว\n",
        "मैं हिन्दी ड़ पढ़ता हूँ।\n",
        "می‌خواهم بروم به خانهٔ شما، وَ كَتَبَ\n",
        "안녕하세요, 반갑습니다 ㅋㅋ！\n",
        "他说：“好的。”然后，走了……１９８４\n",
        "Δt = 2π λ ν ρ, the Greek letters of physics\n",
        "He said in Russian: всегда будь готов, and left\n",
        "Он сказал: the quick brown fox jumps over the lazy dog, и ушёл совсем далеко домой\n",
        "قال ۝١٢ ثم كتب\n",
        "日本語　と ASCII の空白\n",
        "accents alone: ¨ ¯ ˘\n",
        "smile \U0001f600 and heart ❤\n",
    ],
)
def test_nothing_is_odd_about_a_clean_text(text: str) -> None:
    assert found(text) == {}
    assert found(text * 50) == {}


@pytest.mark.parametrize(
    ("text", "kind", "chars", "advice"),
    [
        ("a\x07b\x1b\x1b\n\t\r", "control characters", "\x1b\x07", "remove them"),
        ("a\x00b\x00\x07", "control characters", "\x00\x07", "NUL"),
        ("it\x92s", "control characters", "\x92", "data.encoding"),
        ("na\ufffdve", "replacement characters", "\ufffd", "data.encoding"),
        ("one\ufefftwo", "byte-order marks", "\ufeff", "inside"),
        ("so\u00adft ze\u200bro \u202eb", "invisible characters", "\u00ad\u200b\u202e", "zero"),
        ("a\u200db", "invisible characters", "\u200d", "zero"),
        ("li\u2028ne", "invisible characters", "\u2028", "seldom"),
        ("x\ue000", "private-use or unassigned", "\ue000", unicodedata.unidata_version),
        ("x\U0005fffe\ud800", "private-use or unassigned", "\ud800\U0005fffe", "newer"),
        ("cafe\u0301", "combining marks", "\u0301", "data.normalize=NFC"),
        (unicodedata.normalize("NFD", "한글"), "combining marks", "ᅡᅳᆫᆯ", "NFC"),
        ("ﬁne ﬂow ﬁt", "compatibility forms", "ﬁﬂ", "data.normalize=NFKC"),
        ("ＡＢ in English", "compatibility forms", "ＡＢ", "data.normalize=NFKC"),
        ("no\u00a0blank", "compatibility forms", "\u00a0", "data.normalize=NFKC"),
        ("mathematical 𝒜 and 5 \u2126", "compatibility forms", "\u2126𝒜", "data.normalize=NFKC"),
        ("ネコはｶﾅです", "compatibility forms", "ｶﾅ", "data.normalize=NFKC"),
        ("日本語の二つの形、A1とＢ２", "compatibility forms", "２Ｂ", "data.normalize=NFKC"),
        ("\u2f00つの部首", "compatibility forms", "\u2f00", "data.normalize=NFKC"),
        ("pаypal, sсope", "look-alike letters", "ас", "script"),
        ("a Greek ο in Ηere", "look-alike letters", "Ηο", "script"),
        ("Привет, мoлoкo и cыр", "look-alike letters", "oc", "script"),
        ("Київ iз Львова", "look-alike letters", "i", "script"),
        ("λόγoς καλός", "look-alike letters", "o", "script"),
        ('"a" and “b” ’', "quotes", "“”", "straight"),
        ("it's and it’s", "quotes", "’", "straight"),
        ("a-b, 1–2 and 3−2", "hyphens and dashes", "–−", "hyphen"),
        ("a b\u00a0c\u2009d\u00a0", "spaces", "\u00a0\u2009", "data.normalize=NFKC"),
        ("a b\u3000c", "spaces", "\u3000", "data.normalize=NFKC"),
    ],
)
def test_each_kind_is_found(text: str, kind: str, chars: str, advice: str) -> None:
    oddity = only(text)
    assert (oddity.kind, oddity.chars) == (kind, chars)
    assert oddity.count == sum(map(text.count, chars))
    assert advice in oddity.advice


@pytest.mark.parametrize("plain", ["naïve café, il a été", "Привет, как дела?", "it’s £5, “so”"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_utf8_read_as_something_else_is_found(plain: str, encoding: str) -> None:
    kind = "wrongly decoded characters"
    broken = plain.encode().decode(encoding, "ignore")
    (oddity,) = (o for o in oddities(Counter(ENGLISH + broken)) if o.kind == kind)
    assert set(oddity.chars) <= set(broken)
    assert oddity.count == sum(broken.count(lead) for lead in "ÃÂâÐ" if lead in oddity.chars) > 0
    assert "data.encoding" in oddity.advice
    assert kind not in found(ENGLISH + plain)


def test_variants_of_a_sign_are_odd_only_if_the_plain_sign_occurs() -> None:
    assert found("“a” ’b") == {}
    assert found("1–2") == {}
    assert found("a—b a-b") == {}  # the em dash is not a variant of the hyphen
    assert "spaces" not in found("a\u2009b")


@pytest.mark.parametrize(
    ("lf", "crlf", "lone_cr", "kinds"),
    [
        (5, 0, 0, {}),
        (5, 5, 0, {"CRLF line ends": 5}),
        (7, 3, 0, {"mixed line ends": 3}),
        (0, 0, 4, {"lone carriage returns": 4}),
        (5, 5, 2, {"CRLF line ends": 5, "lone carriage returns": 2}),
    ],
)
def test_line_ends(lf: int, crlf: int, lone_cr: int, kinds: dict[str, int]) -> None:
    counts = {"a": 10, "\n": lf, "\r": crlf + lone_cr}
    odd = oddities(counts, crlf=crlf, lone_cr=lone_cr)
    assert {oddity.kind: oddity.count for oddity in odd} == kinds
    assert all("data.newlines=lf" in oddity.advice for oddity in odd)


def test_mixed_line_ends_count_the_other_lines() -> None:
    (oddity,) = oddities({"\n": 7000}, crlf=3000)
    assert oddity.advice.startswith("and 4,000 lines")


def rare(n_rare: int, each: int, common: int) -> list[Oddity]:
    return oddities({"的": common, **{chr(0x4E00 + i): each for i in range(n_rare)}})


def test_many_rare_characters_are_counted_with_their_share() -> None:
    (oddity,) = rare(21, 4, 9916)
    assert (oddity.kind, oddity.count, len(oddity.chars)) == ("rare characters", 84, 21)
    assert "21 characters, 0.84% of the text" in oddity.advice
    assert "data.vocab_min_count" in oddity.advice
    assert "under 0.01%" in rare(21, 1, 10**9)[0].advice


def test_few_rare_characters_or_a_short_text_are_not_odd() -> None:
    assert rare(20, 4, 9916) == []
    assert rare(21, 5, 9916) == []
    assert rare(21, 1, 100) == []


def test_the_most_frequent_kind_and_character_come_first() -> None:
    odd = oddities({"a": 99, "\ufffd": 2, "\x01": 3, "\x02": 4, "\u200b": 9}, lone_cr=5)
    assert [oddity.count for oddity in odd] == [9, 7, 5, 2]
    assert odd[1].chars == "\x02\x01"


def test_characters_that_do_not_occur_are_not_odd() -> None:
    assert oddities({"a": 3, "\ufffd": 0, "\x00": 0}) == []


@given(st.dictionaries(st.characters(), st.integers(0, 9)), st.integers(0, 9), st.integers(0, 9))
def test_any_counts_give_at_most_one_oddity_of_each_kind(
    counts: dict[str, int], crlf: int, lone_cr: int
) -> None:
    odd = oddities(counts, crlf, lone_cr)
    assert len({oddity.kind for oddity in odd}) == len(odd)
    assert all(oddity.count > 0 and oddity.chars and oddity.advice for oddity in odd)
    assert all(len(set(oddity.chars)) == len(oddity.chars) for oddity in odd)
    assert [o.count for o in odd] == sorted((o.count for o in odd), reverse=True)


def test_a_hundred_thousand_characters_are_fast() -> None:
    counts = {chr(i): 1 + i % 300 for i in range(32, 103_000)}
    start = time.process_time()
    oddities(counts)
    assert time.process_time() - start < 5  # usually a third of a second
