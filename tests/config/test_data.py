"""Settings of the text: paths, contradictions, encodings and YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.config.data import MAX_PATH
from charlm.config.files import load_config, parse_config, to_yaml
from charlm.config.yaml_io import parse_yaml
from charlm.errors import ConfigError


def data_of(*overrides: str) -> DataConfig:
    return parse_config({"name": "a", "data": {"path": "a"}}, overrides).data


def problem(*overrides: str) -> str:
    """The message, which is one line."""
    with pytest.raises(ConfigError) as caught:
        data_of(*overrides)
    (line,) = str(caught.value).splitlines()
    return line


# --- one string or a list --------------------------------------------------------------------

LISTS = ("path", "val_path", "test_path", "include", "exclude")


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize(
    ("value", "strings"),
    [
        ("b", ("b",)),
        ("-", ("-",)),
        ("[a, b]", ("a", "b")),
        ("[a]", ("a",)),
        ('["-", "a, b", "3"]', ("-", "a, b", "3")),
        *((word, (word,)) for word in ("3e-4", "on", "true", "~", "a: b", "src/**/*.c", " x ")),
    ],
)
def test_a_string_is_a_list_of_one(key: str, value: str, strings: tuple[str, ...]) -> None:
    assert getattr(data_of(f"data.{key}={value}"), key) == strings


@pytest.mark.parametrize("key", ["val_path", "test_path"])
def test_a_separate_text_can_be_set_to_null(key: str) -> None:
    assert getattr(data_of(f"data.{key}=b", f"data.{key}=null"), key) is None


@pytest.mark.parametrize("key", ["path", "val_path", "test_path"])
@pytest.mark.parametrize("value", ["", "[]", "[a, '']", "[5]", "[[a]]"])
def test_an_empty_path_is_refused(key: str, value: str) -> None:
    assert problem(f"data.{key}={value}").startswith(f"data.{key}")


@pytest.mark.parametrize("raw", [5, {"a": "b"}, True, None])
def test_a_path_that_is_not_a_string_is_refused(raw: object) -> None:
    with pytest.raises(ConfigError, match=r"^data\.path: .*should be|^data\.path: missing"):
        parse_config({"name": "a", "data": {"path": raw}})


# --- contradictions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["val_path=b", "val_fraction=0.1"], "val_fraction", "data.val_path is set too"),
        (["test_path=b", "test_fraction=0.1"], "test_fraction", "data.test_path is set too"),
        (["val_fraction=0.6", "test_fraction=0.4"], "val_fraction", "leaves nothing to train on"),
        (["val_fraction=1"], "val_fraction", "should be less than 1"),
        (["unit=byte", "encoding=latin-1"], "encoding", "data.unit is byte"),
        (["unit=byte", "errors=replace"], "errors", "data.unit is byte"),
        (["unit=byte", "normalize=NFC"], "normalize", "data.unit is byte"),
        (["unit=byte", "newlines=lf"], "newlines", "data.unit is byte"),
        (["unit=byte", "vocab_min_count=2"], "vocab_min_count", "data.unit is byte"),
        (["unit=byte", "vocab_size=50"], "vocab_size", "data.unit is byte"),
        (["vocab_size=1"], "vocab_size", "greater than or equal to 2"),
        (["vocab_min_count=0"], "vocab_min_count", "greater than or equal to 1"),
        (["documents=line"], "documents", "should be 'none' or 'lines'"),
        (["normalize=NFD"], "normalize", "should be 'none', 'NFC' or 'NFKC'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    overrides: list[str], key: str, words: str
) -> None:
    line = problem(*(f"data.{override}" for override in overrides))
    assert line.startswith(f"data.{key}: ")
    assert words in line


def test_all_contradictions_are_reported() -> None:
    byte = ("data.unit=byte", "data.newlines=lf", "data.errors=replace")
    with pytest.raises(ConfigError) as caught:
        data_of(*byte, "data.val_path=b", "data.val_fraction=0.2")
    heading, *lines = str(caught.value).splitlines()
    assert heading == "3 problems:"
    keys = [line.strip().partition(":")[0] for line in lines]
    assert keys == ["data.val_fraction", "data.errors", "data.newlines"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["unit=byte", "encoding=utf-8", "vocab_min_count=1", "newlines=keep"],  # the defaults
        ["unit=byte", "documents=lines", "separator=--"],
        ["val_path=b", "test_fraction=0.9"],
        ["val_path=b", "val_fraction=0"],
        ["val_path=b", "test_path=c"],
        ["vocab_size=2", "vocab_min_count=3"],
    ],
)
def test_settings_close_to_a_contradiction_are_accepted(overrides: list[str]) -> None:
    data_of(*(f"data.{override}" for override in overrides))


def test_val_fraction_is_0_by_default_with_val_path() -> None:
    assert data_of().val_fraction == 0.1
    assert data_of("data.val_path=b").val_fraction == 0
    assert data_of("data.test_path=b").val_fraction == 0.1
    assert data_of("data.val_path=null").val_fraction == 0.1


@pytest.mark.parametrize(
    ("overrides", "limited"),
    [
        ([], False),
        (["vocab_min_count=2"], True),
        (["vocab_size=99"], True),
        (["vocab_min_count=1"], False),
    ],
)
def test_a_vocabulary_is_limited_if_characters_share_an_id(
    overrides: list[str], limited: bool
) -> None:
    assert data_of(*(f"data.{override}" for override in overrides)).is_limited is limited


# --- encodings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "shift_jis"]
)
def test_an_encoding_is_accepted_by_any_of_its_names(name: str) -> None:
    assert data_of(f"data.encoding={name}").encoding == name


@pytest.mark.parametrize(
    "name",
    [
        *("utf-9", "", "é", "a b"),  # unknown
        *("rot13", "base64", "hex", "zip", "bz2", "quopri", "uu"),  # not encodings of text
        *("idna", "punycode", "utf7", "unicode_escape"),  # of single words, or not incremental
        *("undefined", "a\0b"),
    ],
)
def test_an_unsupported_encoding_is_refused(name: str) -> None:
    assert problem(f"data.encoding={name}") == (
        f"data.encoding: {name!r} should be an encoding that Python supports, such as utf-8, "
        "utf-16, latin-1, cp1252 or shift_jis"
    )


# --- to YAML ---------------------------------------------------------------------------------

SOME = st.text(min_size=1, max_size=6) | st.sampled_from(["-", "on", "1e3", "~", "[a]", "a: b"])
TEXTS = SOME | st.lists(SOME, min_size=1, max_size=3)


@given(
    raw=st.fixed_dictionaries(
        {"path": TEXTS, "separator": st.text(max_size=3)},
        optional={
            "val_path": TEXTS,
            "include": TEXTS | st.just([]),
            "exclude": TEXTS,
            "documents": st.sampled_from(["none", "lines"]),
            "errors": st.sampled_from(["strict", "replace"]),
            "encoding": st.sampled_from(["utf-8", "utf-16", "cp1252"]),
            "vocab_size": st.none() | st.integers(2, 99),
        },
    )
)
@example({"path": "a", "separator": "\x85\u2028\r\n", "include": ["*.c"]})
def test_what_is_written_as_yaml_loads_as_equal_settings(
    tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any]
) -> None:
    paths = [path for key in ("path", "val_path") for path in raw.get(key, [])]
    assume(paths.count("-") < 2)  # "-" as a text, and "-" in a list, are both the pipe
    config = parse_config({"name": "a", "data": raw})
    file = tmp_path_factory.getbasetemp() / "data.yaml"
    file.write_bytes(to_yaml(config).encode())
    assert load_config(file, name="a") == config
    written = parse_yaml(to_yaml(config), "here")["data"]
    for key in ("path", "val_path"):  # a list of one as a text
        given_ = raw.get(key)
        assert written[key] == (
            given_[0] if isinstance(given_, list) and len(given_) == 1 else given_
        )


def test_strings_and_lists_are_read_from_yaml(tmp_path: Path) -> None:
    text = "name: a\ndata:\n  path: [a, b.txt]\n  val_path: '-'\n  exclude: '*.pyc'\n"
    (tmp_path / "a.yaml").write_text(text)
    data = load_config(tmp_path / "a.yaml").data
    assert (data.path, data.val_path, data.exclude) == (("a", "b.txt"), ("-",), ("*.pyc",))
    assert (data.val_fraction, data.include) == (0, ())


@pytest.mark.parametrize("raw", [{"path": ["-", "-"]}, {"path": "-", "val_path": ["a", "-"]}])
def test_standard_input_can_be_given_only_once(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^data\.path: - is given twice"):
        parse_config({"name": "a", "data": raw})


@pytest.mark.parametrize("key", ["path", "separator"])
def test_a_lone_surrogate_is_refused(key: str) -> None:
    """Python uses lone surrogates in file names that are not UTF-8."""
    with pytest.raises(ConfigError, match=rf"^data\.{key}: "):
        parse_config({"name": "a", "data": {"path": "a", key: "caf\udce9"}})


def test_a_path_is_not_longer_than_a_system_can_open() -> None:
    longest = "x" * MAX_PATH
    assert parse_config({"name": "a", "data": {"path": longest}}).data.path == (longest,)
    with pytest.raises(ConfigError, match=r"^data\.path: .{1,200} at most 4,096 characters$"):
        parse_config({"name": "a", "data": {"path": [longest + "x"]}})


def test_a_glob_that_starts_with_a_bracket_is_a_string() -> None:
    config = parse_config({"name": "a"}, ["data.path=[a-z]*.c", "data.include=[x, y]"])
    assert config.data.path == ("[a-z]*.c",)
    assert config.data.include == ("x", "y")


# --- old names -------------------------------------------------------------------------------

OLD = {"min_count": "vocab_min_count", "max_size": "vocab_size"}


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_an_old_name_is_accepted_everywhere(old: str, new: str, tmp_path: Path) -> None:
    expected = data_of(f"data.{new}=7")
    assert getattr(expected, new) == 7
    assert data_of(f"data.{old}=7") == expected
    assert DataConfig.model_validate({"path": "a", old: 7}) == expected  # as in a checkpoint
    (tmp_path / "a.yaml").write_text(f"data: {{path: a, {old}: 5}}\n", encoding="utf-8")
    for name in (old, new):  # replaces that of the file, whatever its name there
        assert load_config(tmp_path / "a.yaml", [f"data.{name}=7"]).data == expected
    assert f" {old}:" not in to_yaml(load_config(tmp_path / "a.yaml"))


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_a_setting_given_by_both_names_is_refused(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{old}: this is the old name of data.{new}"):
        parse_config({"name": "a", "data": {"path": "a", old: 3, new: 7}})
