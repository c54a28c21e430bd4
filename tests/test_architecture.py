"""Rules for the source: what may import what, what may print, sizes, docstrings."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, python

SOURCE = ROOT / "charlm"

# What each part may import. Every part must be in it.
ALLOWED = {
    "version": "",
    "errors": "",
    "files": "",
    "outputs": "errors",
    "units": "",
    "machine": "errors visible",
    "observer": "",
    "randomness": "",
    "shared": "",
    "processes": "errors shared",
    "launch": "errors machine processes",
    "visible": "",
    "devices": "errors machine",
    "config": "errors files visible",
    "data": "version errors files randomness visible config",
    "models": "errors randomness machine config",
    "kernels": "files machine models",
    "checkpoint": "errors files config data devices models",
    "evaluation": "errors processes randomness units config data models checkpoint",
    "sampling": "errors randomness machine config data kernels models checkpoint evaluation",
    "page": "",
    "insight": "errors outputs units visible observer config data models checkpoint evaluation "
    "page",
    "playground": "errors units visible config data models checkpoint evaluation sampling page",
    "exporting": "version errors units visible config data models checkpoint sampling",
    "training": "version errors files processes randomness units visible machine observer devices "
    "config data models kernels checkpoint evaluation",
    "api": "errors outputs units machine visible observer config data models checkpoint evaluation "
    "sampling insight training",
    "scratch": "",
    "charlm": "version api",
    "cli": "version errors outputs units machine launch visible observer config data checkpoint "
    "sampling insight playground exporting training api",
    "__main__": "cli launch",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
each_module = pytest.mark.parametrize("module", MODULES)


def part_of(module: str) -> str:
    """`config` for charlm.config.files, and `charlm` for the package itself."""
    return [*module.split("."), "charlm"][1]


def imports(tree: ast.AST) -> Iterator[str]:
    """All modules that a tree imports, also inside functions; for charlm, with submodules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def own_imports(module: str) -> set[str]:
    return {name for name in imports(TREES[module]) if name.split(".")[0] == "charlm"}


# --- imports ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_all_that_the_table_allows_and_nothing_else(part: str) -> None:
    names = [name for it in MODULES if part_of(it) == part for name in own_imports(it)]
    assert {part_of(name) for name in names} - {part} == set(ALLOWED[part].split())


def test_the_table_has_every_part_and_no_cycle() -> None:
    order = graphlib.TopologicalSorter({part: it.split() for part, it in ALLOWED.items()})
    assert set(order.static_order()) == {part_of(module) for module in MODULES}


def test_the_table_in_the_docs_is_the_same_without_the_small_modules() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (small,) = re.findall(r"^  ([a-z ]+) +small modules$", text, re.MULTILINE)
    left_out = {*small.split(), "charlm", "__main__"}
    of_parts = text.partition("| part |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", of_parts, re.MULTILINE)
    table = {part: set(re.findall(r"\w+", may_import)) - {"none"} for part, may_import in rows}
    expected = {part: set(may_import.split()) - left_out for part, may_import in ALLOWED.items()}
    assert table == {part: it for part, it in expected.items() if part not in left_out}


def test_no_imports_are_circular() -> None:
    graph = {module: own_imports(module) - {module} for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_only_the_library_and_the_command_line_import_training() -> None:
    importers = {
        part_of(it) for it in MODULES for name in own_imports(it) if part_of(name) == "training"
    }
    assert importers == {"training", "api", "cli"}


@each_module
def test_scratch_imports_only_numpy_and_the_standard_library(module: str) -> None:
    if part_of(module) == "scratch":
        names = {name.split(".")[0] for name in imports(TREES[module])} - {"charlm"}
        assert names <= {"numpy", *sys.stdlib_module_names}


@each_module
def test_the_config_and_the_command_line_need_no_torch(module: str) -> None:
    if part_of(module) in ("charlm", "errors", "config", "cli", "__main__"):
        assert not {name.split(".")[0] for name in imports(TREES[module])} & {"torch", "numpy"}


# --- importing has no effects ----------------------------------------------------------------

WATCHED = """
import importlib, json, sys
import torch, numpy, yaml, pydantic, tqdm, safetensors.torch
from torch.utils.tensorboard import SummaryWriter
pydantic.create_model("First")  # pydantic searches for plugins once
state, seen = torch.get_rng_state(), []

def watch(event, arguments):
    watched = ("open", "os.mkdir", "os.listdir", "socket.connect", "subprocess.Popen")
    if event in watched and not isinstance(arguments[0], int):  # an int is an open file
        seen.append([event, str(arguments[0])])

sys.addaudithook(watch)
for module in sys.argv[1:]:
    importlib.import_module(module)
assert torch.equal(state, torch.get_rng_state())
print(json.dumps([sys.prefix, sys.base_prefix, list(seen)]))
"""


def test_importing_reads_only_code_and_prints_nothing() -> None:
    ended = python("-c", WATCHED, *(module for module in MODULES if "__main__" not in module))
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    prefix, base_prefix, events = ast.literal_eval(line)
    code = (prefix, base_prefix, str(SOURCE))
    assert [event for event in events if not event[1].startswith(code)] == []
    assert any(path.startswith(str(SOURCE)) for _, path in events)  # the hook works


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("charlm.cli", "torch numpy pydantic yaml tqdm"),
        ("charlm.errors", "torch numpy pydantic yaml tqdm"),
        ("charlm.cli.arguments", "torch numpy pydantic yaml tqdm"),
        ("charlm.config.files", "torch numpy tqdm"),
        ("charlm.checkpoint.read", "torch tqdm tensorboard"),
        ("charlm.api", "torch tqdm tensorboard pooch"),
    ],
)
def test_light_modules_import_nothing_heavy(module: str, banned: str) -> None:
    ended = python("-c", f"import {module}, sys; print(*sys.modules)")
    assert (ended.returncode, ended.stderr) == (0, "")
    imported = ended.stdout.split()
    assert module in imported
    assert not set(banned.split()) & set(imported)


# --- printing and exiting --------------------------------------------------------------------

PRINTING = {"print", "input", "breakpoint", "exit", "quit"}
STREAMS = {"stdin", "stdout", "stderr", "exit", "_exit", "abort", "write"}


def printing(tree: ast.AST) -> Iterator[str]:
    """Everything that uses the standard streams or ends the process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in PRINTING:
                yield f"line {node.lineno}: {node.func.id}()"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id in ("sys", "os") and node.attr in STREAMS) or node.value.id == "tqdm":
                yield f"line {node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id == "SystemExit":
            yield f"line {node.lineno}: SystemExit"
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            yield f"line {node.lineno}: from sys import"


@each_module
def test_only_the_command_line_prints_and_exits(module: str) -> None:
    if part_of(module) not in ("cli", "__main__") and module != "charlm.scratch.__main__":
        assert list(printing(TREES[module])) == []


# They print through `visible`, or what is in no file; `streams` wraps the streams
EXITS = {"", ".output", ".streaming", ".terminal", ".interactive", ".streams"}


@each_module
def test_in_the_command_line_only_few_files_print(module: str) -> None:
    if part_of(module) == "cli" and module.removeprefix("charlm.cli") not in EXITS:
        found = printing(TREES[module])
        assert [what for what in found if what.endswith(("print()", "stdout", "tqdm.write"))] == []


@pytest.mark.parametrize(
    "line",
    [
        *("print(1)", "sys.exit(2)", "sys.stdout.write('')", "raise SystemExit", "tqdm.write('')"),
        *("from sys import stdout", "os._exit(1)", "input()"),
    ],
)
def test_the_search_finds_all_ways_to_print_and_exit(line: str) -> None:
    assert len(list(printing(ast.parse(line)))) == 1


# --- sizes and docstrings --------------------------------------------------------------------

MOST_LINES_A_FILE, MOST_LINES_A_FUNCTION = 360, 60


@each_module
def test_a_file_is_not_too_long(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES_A_FILE


@each_module
def test_a_network_for_learners_is_short(module: str) -> None:
    if part_of(module) == "scratch" and not module.endswith("__main__"):
        assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < 120


@each_module
def test_a_function_fits_on_a_screen(module: str) -> None:
    long = [
        f"{node.name}: {length} lines"
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_A_FUNCTION
    ]
    assert long == []


def is_described_by_its_kind(node: ast.stmt) -> bool:
    """Whether it is a group of settings whose field `kind` has a description."""
    return isinstance(node, ast.ClassDef) and any(
        isinstance(field, ast.AnnAssign)
        and ast.unparse(field.target) == "kind"
        and "description=" in ast.unparse(field.value or field.target)
        for field in node.body
    )


@each_module
def test_every_module_and_public_name_has_a_docstring_that_begins_with_a_summary(
    module: str,
) -> None:
    tree = TREES[module]
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and re.match(r"$|Args:|Returns:|Raises:|Attributes:", ast.get_docstring(node) or "")
        and not is_described_by_its_kind(node)
    ]
    assert ast.get_docstring(tree)
    assert silent == []


# --- sizes of the sources that are not Python ------------------------------------------------

SOURCES = {
    path.name: path.read_text(encoding="utf-8")
    for pattern in (
        "*/page/*.js",
        "page/parts/*.js",
        "page/parts/*.css",
        "*/page/*.css",
        "kernels/c/*.[ch]",
    )
    for path in sorted(SOURCE.glob(pattern))
}
# a function at the top level, or a method; it ends at a brace with the same indent
JAVASCRIPT = re.compile(
    r"^(?P<indent> *)(?:(?:async )?function \w+|(?<=  )(?!if|for|while|switch)\w+)\(.*\) \{\n"
    r"[\s\S]*?^(?P=indent)\}$",
    re.MULTILINE,
)


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_in_javascript_css_or_c_is_not_too_long(name: str) -> None:
    assert len(SOURCES[name].splitlines()) <= MOST_LINES_A_FILE


@pytest.mark.parametrize("name", [name for name in SOURCES if name.endswith((".c", ".h"))])
def test_a_line_in_c_is_as_short_as_one_in_python(name: str) -> None:
    assert [line for line in SOURCES[name].splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("name", [name for name in SOURCES if name.endswith(".js")])
def test_a_function_in_javascript_fits_on_a_screen(name: str) -> None:
    functions = [match[0] for match in JAVASCRIPT.finditer(SOURCES[name])]
    assert functions
    assert [each for each in functions if each.count("\n") >= MOST_LINES_A_FUNCTION] == []
