"""The features of small texts, marked by hand, and of random texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.insight.features import FEATURES, match_brackets, open_bracket, read_features

# Feature, text, and the expected value at each character: # for True, or a digit.
MARKED = [
    ("in double quotes", 'a "b c" d', "  ####   "),
    ("in double quotes", '"a\nb" c', "####   "),
    ("in double quotes", '"a\n\nb" c', "        "),  # an empty line: no quotation
    ("in double quotes", '"a\\"b" c', "#####   "),
    ("in double quotes", '"""a "b" """', "########### "),
    ("in double quotes", "“a” “b” c", "## ##   "[:2] + "  ## " + "  "),
    ("in single quotes", "don't 'say so' it's", "      ####### "[:13] + "      "),
    ("in single quotes", "x = 'a' + \"'\"", "    ##       "),
    ("in quotes", "x = 'a' + \"'\"", "    ##    ## "),
    ("in a comment", "a # b\nc", "  ### "[:5] + "  "),
    ("in a comment", '"# a" #include', "              "),
    ("in a comment", "/* a\n */ b", "########   "[:8] + "  "),
    ("in a comment", "x; // a\nhttp://b", "  ##### "[:7] + "         "),
    ("in round brackets", "f(a)(b))", " ## ##  "),
    ("in round brackets", ":) (a", "     "),  # no bracket has a partner
    ("in square brackets", "([a)]", "     "),  # crossed: the inner one has no partner
    ("bracket depth", "(a[b]{c})", "112212210"),
    ("in a tag", "a <b> 1 < 2", "  ##       "),
    ("position in line", "ab\ncd\n\ne", "12012001"),
    ("line length so far", "  ab\n c", "0012001"),
    ("characters left in line", "ab\ncd", "21021"),
    ("indentation", "  ab\n\tc d", "1222011"[:4] + "01111"),
    ("in the indentation", "  a b\n c", "##    # "),
    ("after a newline", "a\nb\n\nc", "  # ##"),
    ("first line of a paragraph", "a\nb\n\ncd\ne", "#    ##  "),
    ("start of a word", "ab c-d", "#  # #"),
    ("position in word", "ab c", "1201"),
    ("in capitals", "ABc DE F", " #   #  "),
    ("in a number", "a12 3 456", "  #    ##"),
    ("in a URL", "at https://a.b/c now", "   #############    "),
]


@pytest.mark.parametrize(("name", "text", "marks"), MARKED)
def test_a_feature_has_the_marked_values(name: str, text: str, marks: str) -> None:
    values = FEATURES[name](text)
    assert len(marks) == len(text)
    if values.dtype == np.bool_:
        assert "".join("#" if each else " " for each in values) == marks
    else:
        assert "".join(str(int(each)) for each in values) == marks


@given(st.text(st.sampled_from("ab \n\t'\"()[]{}<>#/*!-1A“”‘’«»\\é\u202e\ud800"), max_size=200))
def test_every_feature_accepts_every_text(text: str) -> None:
    for name, compute in FEATURES.items():
        values = compute(text)
        assert values.shape == (len(text),), name
        assert np.isfinite(values.astype(np.float64)).all(), name
        assert (values >= 0).all(), name


@given(st.text(st.sampled_from("a([{)]}"), max_size=60))
def test_bracket_pairs_nest(text: str) -> None:
    pairs = match_brackets(text)
    assert all(text[a] + text[b] in ("()", "[]", "{}") for a, b in pairs)
    assert len({position for pair in pairs for position in pair}) == 2 * len(pairs)
    assert not any(a < c < b < d for a, b in pairs for c, d in pairs)
    opens = open_bracket(text)
    for position in range(len(text)):
        around = [a for a, b in pairs if a < position <= b]
        assert opens[position] == max(around, default=-1)


def test_a_feature_with_the_same_values_as_another_is_left_out() -> None:
    names = [feature.name for feature in read_features('say "a"')]
    assert "in quotes" in names
    assert "in double quotes" not in names  # the same on this text
