"""`charlm inspect` on the command line."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

import charlm as charlm_package
from charlm.cli.inspect import UNITS
from charlm.config import Config
from charlm.config.shapes import unit_sizes
from tests.conftest import KINDS, Charlm, TinyConfig, TinyRun, python, train_with

RUN = Path("checkpoints") / "lstm"
REPORT = RUN / "report.html"
CPU = ("--device", "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_for_every_kind_of_model(
    kind: str, charlm: Charlm, tiny_run: TinyRun, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    result = charlm("inspect", tiny_run(kind), "--length", "400", "--out", out, *CPU)
    assert (result.status, result.err) == (0, "")
    assert f"report  {out}" in result.out
    assert "400 characters" in result.out
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]  # no temporary file is left


def test_the_terminal_names_all_units_as_the_page_does(tiny_config: TinyConfig) -> None:
    page = (Path(charlm_package.__file__).parent / "page/parts/data.js").read_text("utf-8")
    assert all(f'{kind}: "{name}"' in page for kind, name in UNITS.items())
    configs = [Config.model_validate(tiny_config(kind)) for kind in KINDS]
    assert {kind for config in configs for kind in unit_sizes(config.model)} == set(UNITS)


def test_the_numbers_are_those_of_eval(charlm: Charlm, workplace: Path) -> None:
    found = json.loads(charlm("inspect", RUN, "--length", "100000", "--json", *CPU).out)
    score = json.loads(charlm("eval", RUN, "--json", *CPU).out)
    assert found["chars"] == score["chars"] + 1
    assert found["bits_per_char"] == pytest.approx(score["bits_per_char"], rel=1e-5)
    assert {"search", "gates", "bits", "ngrams", "growth", "ablations"} <= found.keys()
    scores = {"luck", "last_characters", "untrained"}
    for each in found["search"]:
        assert each["baseline"] == max(each[name] for name in scores)
    assert found["search"]
    assert len(found["gates"][0]["left"][0]) == 16
    assert found["growth"]["samples"][0]["step"] == 6
    assert not REPORT.exists()  # the numbers only


def test_a_page_is_overwritten_only_on_request(charlm: Charlm, workplace: Path) -> None:
    command = ("inspect", RUN, "--length", "200", *CPU)
    assert charlm(*command).status == 0
    before = REPORT.read_bytes()
    REPORT.write_text("mine", encoding="utf-8")
    refused = charlm(*command)
    assert refused.status == 2
    assert refused.err == (
        f"charlm: {REPORT}: already exists; use --force to overwrite it, or --out FILE for another "
        "file\n"
    )
    assert REPORT.read_text(encoding="utf-8") == "mine"
    assert charlm(*command, "--force").status == 0
    assert REPORT.read_bytes() == before


def test_another_text_and_its_unknown_characters(charlm: Charlm, workplace: Path) -> None:
    Path("other.txt").write_text("The fox sees Ω\n" * 20, encoding="utf-8")
    refused = charlm("inspect", RUN, "--text", "other.txt", *CPU)
    assert refused.status == 2
    assert "other.txt: the vocabulary does not have 'Ω' (U+03A9) (20 of 300" in refused.err
    assert "--on-unknown skip" in refused.err
    skipped = charlm("inspect", RUN, "--text", "other.txt", "--on-unknown", "skip", *CPU)
    assert skipped.status == 0
    assert "other.txt, 280 characters, 20 unknown characters skipped" in skipped.out


def test_a_checkpoint_outside_its_run_folder_has_no_samples(
    charlm: Charlm, workplace: Path
) -> None:
    shutil.copy(RUN / "best.safetensors", "alone.safetensors")
    Path("own.txt").write_text("The fox sees the fox.\n" * 20, encoding="utf-8")
    found = json.loads(charlm("inspect", "alone.safetensors", "--json", *CPU).out)
    assert found["growth"] == {"samples": [], "losses": {"train": [], "val": []}}
    assert found["ngrams"]
    of_training = charlm("inspect", RUN, "--split", "train", "--json", *CPU).out
    assert json.loads(of_training)["ngrams"] == []
    assert charlm("inspect", "alone.safetensors", "--text", "own.txt", *CPU).status == 0
    assert Path("report.html").exists()


MISTAKES = {
    "inspect checkpoints/lstm --text empty.txt": "empty.txt: this text is empty",
    "inspect checkpoints/lstm --text missing.txt": "missing.txt: cannot read this text",
    "inspect checkpoints/lstm --text one.txt": "has 1 characters and there is nothing to score",
    "inspect checkpoints/lstm --length 1": "--length: 1 should be from 2 to 100000",
    "inspect checkpoints/lstm --out nowhere/page.html": "nowhere/page.html: cannot write the "
    "report: there is no folder nowhere; use --out FILE for another file",
    "inspect checkpoints/lstm --out one.txt/page.html": "one.txt/page.html: cannot write",
    "inspect checkpoints/lstm --out checkpoints --force": "checkpoints: is a folder",
    "inspect missing": "missing: no such checkpoint or run; runs in checkpoints/: lstm",
    "inspect checkpoints/lstm --text a.txt --split val": "not allowed with argument",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_reported_in_one_line(command: str, charlm: Charlm, workplace: Path) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("one.txt").write_bytes(b"T")
    result = charlm(*command.split())
    assert (result.status, result.out) == (2, "")
    assert MISTAKES[command] in result.err
    assert result.err.count("\n") == 1


def test_a_model_of_lists_and_one_of_bytes(
    charlm: Charlm, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("anna\nboris\ncléo\n" * 40, encoding="utf-8")
    base = tiny_config("gru")
    for name, data, train in (
        ("items", {"documents": "lines"}, {"batches": "items"}),
        ("bytes", {"unit": "byte"}, {}),
    ):
        raw = base | {"name": name, "data": {"path": str(names), "val_fraction": 0.3} | data}
        raw |= {"train": base["train"] | train, "eval": {}}
        run = train_with(raw, tmp_path)
        found = json.loads(charlm("inspect", run, "--json", *CPU).out)
        score = json.loads(charlm("eval", run, "--json", *CPU).out)
        assert found["bits_per_char"] == pytest.approx(score["bits_per_char"], rel=0.02), name
        assert charlm("inspect", run, *CPU).status == 0


# --- where the page is written: only a regular file is replaced -------------------------------

PAGE = ("inspect", RUN, "--length", "50", *CPU, "--out")
POSIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs and links")


@POSIX
@pytest.mark.parametrize("links", [("link",), ("link", "second")])
def test_a_page_is_written_through_links(
    links: tuple[str, ...], charlm: Charlm, workplace: Path
) -> None:
    Path("there").mkdir()
    for link, target in zip(links, (*links[1:], "there/page.html"), strict=True):
        Path(link).symlink_to(target)
    assert charlm(*PAGE, "link").status == 0
    first = Path("there/page.html").read_bytes()
    refused = charlm(*PAGE, "link")
    assert (refused.status, refused.out) == (2, "")
    assert "link: already exists; use --force" in refused.err
    Path("there/page.html").write_text("mine", encoding="utf-8")
    assert charlm(*PAGE, "link", "--force").status == 0
    assert Path("there/page.html").read_bytes() == first
    assert all(Path(link).is_symlink() for link in links)
    assert [path.name for path in Path("there").iterdir()] == ["page.html"]


@POSIX
def test_a_link_that_leads_nowhere_is_reported(charlm: Charlm, workplace: Path) -> None:
    Path("circle").symlink_to("circle")
    Path("lost").symlink_to("nowhere/page.html")
    Path("folder").symlink_to("checkpoints")
    for name, words in (
        ("circle", "circle: cannot write the report: this link leads to itself"),
        ("lost", "nowhere; use --out FILE"),
        ("folder", "folder: is a folder"),
    ):
        result = charlm(*PAGE, name, "--force")
        assert (result.status, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert words in line
        assert Path(name).is_symlink()


@POSIX
@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("linked", [False, True])
def test_a_page_is_written_into_a_pipe(
    force: tuple[str, ...], linked: bool, charlm: Charlm, workplace: Path
) -> None:
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    name = "link" if linked else "pipe"
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        result = charlm(*PAGE, name, *force)
        assert reader.stdout is not None
        page = reader.stdout.read()
    assert (result.status, result.err) == (0, "")
    assert f"report  {name} ({len(page) / 1e6:.1f} MB)" in result.out
    assert page.startswith(b"<!doctype html>")
    assert page.endswith(b"</html>\n")
    assert stat.S_ISFIFO(Path("pipe").lstat().st_mode)
    assert Path("link").is_symlink()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_page_on_standard_output_is_all_that_is_there(workplace: Path) -> None:
    ended = python("-m", "charlm", *PAGE, "/dev/stdout", cwd=workplace)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("<!doctype html>")
    assert ended.stdout.endswith("</html>\n")


@POSIX
def test_the_temporary_file_follows_no_link(charlm: Charlm, workplace: Path) -> None:
    Path("mine.txt").write_text("mine", encoding="utf-8")
    Path(f".page.html.{os.getpid()}.tmp").symlink_to("mine.txt")
    result = charlm(*PAGE, "page.html")
    assert result.status == 2
    assert "page.html: cannot write the report: File exists" in result.err
    assert Path("mine.txt").read_text(encoding="utf-8") == "mine"
    assert Path(f".page.html.{os.getpid()}.tmp").is_symlink()
