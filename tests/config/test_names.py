"""Names of runs: in every script, and where a wrong one came from."""

from __future__ import annotations

import shlex
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config.files import load_config, parse_config
from charlm.config.names import MAX_NAME_BYTES, name_problem
from charlm.errors import ConfigError
from tests.conftest import Charlm, TinyConfig, write_yaml

VALID = [
    *("a", "my run", "run-1.2_final+more (copy)", "2024", "Моя", "設定", "naïve", "हिन्दी", "שלום"),
    *("العربية", "میخواهم", "한국어", "x" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2), "console"),
]
INVALID = [
    *(
        "",
        " a",
        "-a",
        ".a",
        "_a",
        "(a)",
        "a ",
        "a.",
        "a/b",
        "a\\b",
        "..",
        "a\nb",
        "a\x1b[2J",
        "a\0b",
    ),
    *(
        "a:b",
        "a*b",
        'a"b',
        "a<b",
        "a|b",
        "a?b",
        "a;b",
        "a$b",
        "a'b",
        "a\u202eb",
        "a\u2066b",
        "a\ufeffb",
    ),
    *("a\u200bb", "a\u00a0b", "a\u2028b", "a\ud800", "\u0301a", "\U000e0041", "😀"),
    *("con", "NUL", "com1", "LPT9.txt", "aux .x", "x" * (MAX_NAME_BYTES + 1), "é" * 101),
]


def config_name(name: str) -> str:
    return parse_config({"name": name, "data": {"path": "a"}}).name


@pytest.mark.parametrize("name", VALID)
def test_a_name_may_have_letters_of_every_script(name: str, tmp_path: Path) -> None:
    assert config_name(name) == name
    (tmp_path / f"{name[:50]}.yaml").write_text("data: {path: a}\n", encoding="utf-8")
    assert load_config(tmp_path / f"{name[:50]}.yaml").name == name[:50]
    (tmp_path / name).mkdir()


@pytest.mark.parametrize("name", INVALID)
def test_another_name_is_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name: .* should be ") as caught:
        config_name(name)
    assert str(caught.value).isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80))
def test_an_accepted_name_is_one_folder_on_every_system(name: str) -> None:
    try:
        accepted = config_name(name)
    except ConfigError:
        return
    assert accepted == unicodedata.normalize("NFC", name)
    assert config_name(unicodedata.normalize("NFD", name)) == accepted
    assert accepted == Path("out", accepted).name
    assert not set(accepted) & set('<>:"/\\|?*')
    assert accepted.strip(" .") == accepted
    assert shlex.split(shlex.quote(accepted)) == [accepted]
    assert not any(
        unicodedata.category(char) in ("Cc", "Zl", "Zp", "Co", "Cn") for char in accepted
    )
    assert unicodedata.bidirectional(accepted[0]) not in ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI")


def test_a_composed_and_a_decomposed_name_are_one(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.yaml").write_text("data: {path: a}\n", encoding="utf-8")
    assert load_config(tmp_path / "cafe\u0301.yaml").name == config_name("café") == "caf\u00e9"


def test_the_message_says_that_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a;b.yaml"
    path.write_text("data: {path: a}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"; this is the name of the file, so rename it, write"):
        load_config(path)
    given_elsewhere: list[tuple[list[str], str | None]] = [(["name=c;d"], None), ([], "e;f")]
    for overrides, name in given_elsewhere:
        with pytest.raises(ConfigError, match=r"space or dot at the end$"):
            load_config(path, overrides, name)
    # each advice is followed
    assert load_config(path, name="ok").name == "ok"
    assert load_config(path.rename(tmp_path / "ok.yaml")).name == "ok"
    path.write_text("name: ok\ndata: {path: a}\n", encoding="utf-8")
    assert load_config(path).name == "ok"


def test_a_caller_can_say_where_the_name_came_from() -> None:
    hint = "; this is the name of the run folder, so rename it"
    with pytest.raises(ConfigError, match=f"{hint}$"):
        parse_config({"name": "a;b", "data": {"path": "a"}}, name_hint=hint)
    with pytest.raises(ConfigError, match=r"at the end$"):
        parse_config({"name": "a", "data": {"path": "a"}}, ["name=c;d"], name_hint=hint)


def test_a_long_name_is_cut_in_the_message() -> None:
    assert name_problem("x" * 10**6) is not None
    with pytest.raises(ConfigError, match="should be at most 200 bytes long in UTF-8") as caught:
        config_name("x" * 10**6)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["my run (2)", "Моя", "میخواهم"])
def test_a_run_with_such_a_name_is_trained_sampled_and_resumed_as_printed(
    charlm: Charlm,
    tiny_config: TinyConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = tiny_config("rnn")
    del raw["name"]
    write_yaml(tmp_path / f"{name}.yaml", raw)
    trained = charlm("train", "--config", f"{name}.yaml", "--device", "cpu")
    assert trained.status == 0
    commands = [line.split(maxsplit=1)[1] for line in trained.out.splitlines()[-4:]]
    for command in (line for line in commands if line.startswith("charlm ")):
        assert charlm(*shlex.split(command)[1:]).status == 0, command


def test_a_run_folder_that_was_renamed_is_resumed(
    charlm: Charlm, workplace: Path, tmp_path: Path
) -> None:
    (workplace / "checkpoints" / "lstm").rename(workplace / "checkpoints" / "my run")
    more = ("--set", "train.max_steps=7", "--device", "cpu")
    assert charlm("train", "--resume", "--name", "my run", *more).status == 0
    assert charlm("sample", "checkpoints/my run", "--length", 5).status == 0
