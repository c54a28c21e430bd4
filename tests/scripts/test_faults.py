"""scripts/faults runs, and it can fail: planted faults of each kind are reported."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT, TinyRun, python

SCRIPTS = ROOT / "scripts"
PARTS = ("crash", "disk", "hostile", "concurrency", "processes")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scripts/faults needs Linux")
Import = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Import a module of scripts/."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def run_long(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python; it may take minutes on a busy machine."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=900,
    )


def test_every_part_runs_to_its_end() -> None:
    as_user = ("--as-user", "nobody") if os.geteuid() == 0 else ()
    ended = run_long(SCRIPTS / "faults.py", *PARTS, "--quick", "--trials", "1", *as_user)
    if ended.returncode == 2 and re.search("needs a C compiler|cannot run Python", ended.stderr):
        pytest.skip(ended.stderr)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    table = [line.split("|")[1:5] for line in ended.stdout.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in table[1:]] == [
        [part, "1", "1", "0"] for part in PARTS
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_is_refused() -> None:
    ended = python(SCRIPTS / "faults.py", "hostile")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert "does not run as root; use --as-user nobody" in ended.stderr


def test_without_a_compiler_the_disk_part_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root starts again as another user")
    ended = python(SCRIPTS / "faults.py", "disk", env={"PATH": str(tmp_path)})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "faults: disk needs a C compiler (cc)\n"


# --- planted faults --------------------------------------------------------------------------

CHILDREN = """
import itertools, os, sys, time, types
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import faults_child
from faults_child import Child, Limits, new_place
from faults_common import problems_of

def hangs(arguments): time.sleep(600)
def is_suspended(arguments):
    time.sleep(0.1)
    return 0
def dies(arguments): os.kill(os.getpid(), 11)
def raises(arguments): raise ValueError("planted")
def computes(arguments):
    while True: pass
def is_hungry(arguments):
    try: bytes(10**9)
    except MemoryError: return 2

suspended = types.SimpleNamespace(sleep=time.sleep, monotonic=itertools.count(0, 100).__next__)
for main in (hangs, is_suspended, dies, raises, computes, is_hungry):
    place = new_place(Path(sys.argv[2]) / main.__name__)
    patience = 0.3 if main is hangs else 60
    limits = Limits(data_mb=200, cpu_s=1)
    faults_child.time = suspended if main is is_suspended else time
    ended = Child([], place, main=main, limits=limits).wait(patience)
    print(main.__name__, "".join(problems_of(ended)), sep="|")
"""


def test_children_that_do_wrong_are_reported(tmp_path: Path) -> None:
    ended = run_long("-c", CHILDREN, SCRIPTS, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = dict(line.split("|", 1) for line in ended.stdout.splitlines())
    assert found["hangs"].startswith("hang: ")
    assert found["is_suspended"] == ""
    assert found["dies"].startswith("status: SIGSEGV")
    assert "planted" in found["raises"]
    assert found["computes"].startswith("status: SIGXCPU")
    assert found["is_hungry"].startswith("lines: ")


STUB = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import charlm.cli, faults_crash
from faults_common import Check, run_trials

RUN, FORGETS = Path("runs/run"), sys.argv[3] == "forgets"

def save(name, step, total):
    meta = {"charlm": json.dumps({"progress": {"step": step}})}
    tensor = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": meta, "sum": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + total.to_bytes(8, "little")
    (RUN / "last.tmp").write_bytes(content)
    (RUN / "last.tmp").replace(RUN / name)

def train():
    # adds up the steps, as a run adds up gradients
    RUN.mkdir(parents=True, exist_ok=True)
    step = total = 0
    if "--resume" in sys.argv:
        content = (RUN / "last.safetensors").read_bytes()
        total = 0 if FORGETS else int.from_bytes(content[-8:], "little")
        step = json.loads(json.loads(content[8:-8])["__metadata__"]["charlm"])["progress"]["step"]
    while step < 20:
        time.sleep(0.01)
        step += 1
        total += step
        records = [json.dumps({"step": i}) for i in range(1, step + 1)]
        (RUN / "metrics.jsonl").write_text(chr(10).join(records))
        (RUN / "samples.txt").write_text("")
        save("best.safetensors", step, total)
        save("last.safetensors", step, total)
    return 0

charlm.cli.main = train
draw = faults_crash.draw
faults_crash.draw = lambda rng: draw(rng).with_train(keep_every=None)
folder = Path(sys.argv[2]) / sys.argv[3]
folder.mkdir()
check = Check("crash", folder, 12, seed=1, quick=True)
for number, found in run_trials(faults_crash.PART, check, range(12), 1, 1e18):
    print(number, *found.problems, sep="|")
"""


@pytest.mark.parametrize("how", ["remembers", "forgets"])
def test_a_run_that_forgets_on_resume_is_reported_and_no_other(how: str, tmp_path: Path) -> None:
    ended = run_long("-c", STUB, SCRIPTS, tmp_path, how)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = [line.split("|")[1:] for line in ended.stdout.splitlines()]
    assert len(found) == 12
    kinds = {problem.partition(":")[0] for problems in found for problem in problems}
    assert kinds == ({"tensors"} if how == "forgets" else set()), ended.stdout


TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1, in main\nValueError: x\n'


@pytest.mark.parametrize(
    ("status", "out", "err", "kind"),
    [
        (0, "fine\n", "", None),
        (0, "", "charlm: note: fine\n", None),
        (2, "", "charlm: no such checkpoint\n", None),
        (2, "", "charlm: a.yaml: 2 problems:\n  a: x\n  b: y\n", None),
        (1, "", TRACE, "traceback"),
        (0, "", "Exception ignored in: <function f>\n" + TRACE, "traceback"),
        (0, "", "Exception ignored in atexit callback: <f>\n" + TRACE, "traceback at exit"),
        (-11, "", "", "status"),
        (1, "", "charlm: x\n", "status"),
        (2, "", "", "lines"),
        (2, "", "charlm: one\ncharlm: two\n", "lines"),
        (2, "", "segments overlap\n", "lines"),
        (2, "", f"charlm: {'x' * 3000}\n", "long"),
        (0, "", "x.py:1: RuntimeWarning: overflow\n  x * y\n", "warning"),
        (0, "run \x1b[31m\n", "", "control character"),
        (2, "", "charlm: \x07\n", "control character"),
        (2, "", "charlm: \x9b31m\n", "control character"),
        (2, "", "charlm: a\rb\n", "control character"),
        (0, "\udcff\n", "", "control character"),
    ],
)
def test_output_is_checked(
    script: Import, status: int, out: str, err: str, kind: str | None
) -> None:
    ended = script("faults_child").Ended(status, out, err)
    problems = list(script("faults_common").problems_of(ended))
    assert [problem.partition(":")[0] for problem in problems] == [kind] * (kind is not None)


def test_ctrl_c_before_charlm_begins_is_the_interpreters(script: Import) -> None:
    before = TRACE.replace("main", "<module>").replace("ValueError: x", "KeyboardInterrupt")
    for name, count in (("<module>", 0), ("run", 1), ("main", 1)):
        err = before.replace("<module>", name)
        ended = script("faults_child").Ended(-2, "", err)
        assert len(list(script("faults_common").problems_of(ended, allowed=(-2,)))) == count


def _other_weights(run: Path) -> None:
    content = bytearray((run / "last.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "last.safetensors").write_bytes(content)


def _other_metrics(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"loss": 1.0})
    (run / "metrics.jsonl").write_text("\n".join(lines))


def _other_samples(run: Path) -> None:
    (run / "samples.txt").write_text("another")


def _no_best(run: Path) -> None:
    (run / "best.safetensors").unlink()


def _temporary_file(run: Path) -> None:
    (run / "last.tmp").touch()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (None, None),
        (_other_weights, "tensors"),
        (_other_metrics, "metrics"),
        (_other_samples, "samples"),
        (_no_best, "missing"),
        (_temporary_file, "leftover"),
    ],
)
def test_runs_are_compared(
    script: Import,
    tiny_run: TinyRun,
    tmp_path: Path,
    change: Callable[[Path], None] | None,
    kind: str | None,
) -> None:
    run = shutil.copytree(tiny_run("lstm"), tmp_path / "run")
    if change:
        change(run)
    found = list(script("faults_compare").differences(run, tiny_run("lstm")))
    assert [line.partition(":")[0] for line in found] == [kind] * (kind is not None)


def test_leftovers_are_found(script: Import, tmp_path: Path) -> None:
    for name in ("cache/encoded/tmp-1", "cache/encoded/" + "a" * 64, "cache/kernels/tmp-2", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("x.tmp", "right.so", "right.seconds"):
        (tmp_path / "cache/kernels" / name).touch()
    for name in ("charlm-x", "ccx.s"):
        (tmp_path / "tmp" / name).touch()
    (tmp_path / "cache/encoded" / ("a" * 64) / "facts.json.tmp").touch()
    found = {line.rpartition("/")[2] for line in script("faults_compare").leftovers(tmp_path)}
    assert found == {"facts.json.tmp", "tmp-1", "tmp-2", "x.tmp", "charlm-x", "ccx.s"}
    (tmp_path / "tmp" / "torchinductor_x").mkdir()  # whose compiler may have left a file
    left = {line.rpartition("/")[2] for line in script("faults_compare").leftovers(tmp_path)}
    assert found - left == {"ccx.s"}


def test_a_changed_file_elsewhere_is_found(script: Import, tmp_path: Path) -> None:
    elsewhere = script("faults_files").Elsewhere(tmp_path)
    assert elsewhere.damage() is None
    (elsewhere.folder / "facts.json").unlink()
    assert "facts.json" in elsewhere.damage()


def test_every_module_says_what_it_does(script: Import) -> None:
    names = [path.stem for path in SCRIPTS.glob("faults*.py")]
    assert len(names) > len(PARTS)
    for name in names:
        assert len((SCRIPTS / f"{name}.py").read_text().splitlines()) <= 360
        assert script(name).__doc__
