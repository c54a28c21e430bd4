"""scripts/release, with stand-ins for the tests, the build and the environment that tries it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = ("charlm/version.py", "CITATION.cff", "CHANGELOG.md", ".gitignore", "scripts/release")
STAND_INS = {
    "scripts/test": "exit ${TEST_STATUS:-0}",
    "scripts/bootstrap": 'bootstrap() { export PATH="$PWD/bin:$PATH"; }',
    "bin/python": """
case "$2" in
  build) version=$(sed -n 's/^__version__ = "\\(.*\\)"/\\1/p' charlm/version.py)
    mkdir "$4"; touch "$4/charlm-$version-py3-none-any.whl" "$4/charlm-$version.tar.gz" ;;
  venv) mkdir -p "$3/bin"; cp "$REPOSITORY/bin/pip" "$3/bin" ;;
esac""",
    "bin/pip": r"""
wheel="${@: -1}"; version=${wheel#*charlm-}; charlm="$(dirname "$0")/charlm"
printf '#!/bin/bash\necho charlm %s\nexit ${CHARLM_STATUS:-0}\n' "${version%%-*}" > "$charlm"
chmod +x "$charlm"
""",
}
GIT = shutil.which("git") or ""
pytestmark = pytest.mark.skipif(not GIT, reason="needs git")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the files of a release, with one commit and a remote beside it."""
    tree = tmp_path / "tree"
    for name in FILES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name, code in STAND_INS.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(f"#!/bin/bash\n{code}\n")
        (tree / name).chmod(0o755)
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- New.\n")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("REPOSITORY", str(tree))
    shell(f"git init -q --bare -b main {tmp_path}/remote", tmp_path)
    shell(f"git init -q -b main && git remote add origin {tmp_path}/remote", tree)
    shell("git add -A && git commit -qm first && git push -q -u origin main", tree)
    return tree


def shell(command: str, folder: Path) -> str:
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def release(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(tree / "scripts" / "release"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_release_sets_the_version_cuts_the_changelog_and_fills_dist(tree: Path) -> None:
    result = release(tree, "7.8.9")
    assert result.returncode == 0, result.stderr
    assert '__version__ = "7.8.9"\n' in (tree / "charlm" / "version.py").read_text()
    assert "\nversion: 7.8.9\n" in (tree / "CITATION.cff").read_text()
    changelog = (tree / "CHANGELOG.md").read_text()
    assert re.search(r"## \[Unreleased\]\n\n## \[7\.8\.9\] - \d{4}-\d\d-\d\d\n\n- New\.", changelog)
    assert {file.suffix for file in (tree / "dist").iterdir()} == {".whl", ".gz"}
    changed = shell("git status --porcelain", tree).split()[1::2]
    assert changed == ["CHANGELOG.md", "CITATION.cff", "charlm/version.py"]


def test_the_commands_that_it_prints_push_the_commit_and_the_tag(tree: Path) -> None:
    commands = [
        line for line in release(tree, "7.8.9").stdout.splitlines() if line.startswith("  git ")
    ]
    assert len(commands) == 2
    shell("\n".join(commands), tree)
    remote = tree.parent / "remote"
    assert shell("git rev-parse main v7.8.9^{commit}", remote) == 2 * shell(
        "git rev-parse HEAD", tree
    )
    assert "nothing under [Unreleased]" in release(tree, "8.0.0").stderr


@pytest.mark.parametrize("status", ["TEST_STATUS", "CHARLM_STATUS"])
def test_a_release_that_fails_changes_nothing(
    status: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(status, "1")
    assert release(tree, "7.8.9").returncode == 1
    assert shell("git status --porcelain --ignored", tree) == ""


@pytest.mark.parametrize(
    ("version", "before", "message"),
    [
        ("", "true", "give a version, such as 0.2.0"),
        ("v1", "true", "give a version, such as 0.2.0"),
        ("7.8.9", "touch new", "there are uncommitted changes; commit or stash them"),
        ("7.8.9", "echo '## [7.8.9]' >> CHANGELOG.md", "CHANGELOG.md has 7.8.9 already"),
        ("7.8.9", "sed -i.old '/^- /d' CHANGELOG.md; rm *.old", "has nothing under [Unreleased]"),
    ],
)
def test_what_cannot_be_released_is_refused_in_one_line(
    version: str, before: str, message: str, tree: Path
) -> None:
    commit = "true" if "touch" in before else "git commit -qam change --allow-empty"
    shell(f"{before} && {commit}", tree)
    result = release(tree, version)
    assert result.returncode == 2
    assert result.stderr.startswith("release: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tree / "dist").exists()
