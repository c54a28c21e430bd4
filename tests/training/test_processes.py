"""Several processes that train a run together get the results of one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.config import Config, TrainConfig
from charlm.kernels.fused import Kernels
from charlm.models import build_model
from charlm.processes import Processes
from charlm.training.choose import choose_compute
from charlm.training.compute import forward_of
from charlm.training.gradients import Gradients
from charlm.training.step import Stepper
from tests.kernels import has_compiler, skip_without_compiler
from tests.models import model_config
from tests.training.helpers import (
    KINDS,
    assert_same_run,
    make_config,
    metrics,
    plain_config,
    saved_weights,
)
from tests.training.several import Job, in_processes, train_runs

OPTIMIZERS = ("sgd", "rmsprop", "adamw", "muon")
ITEMS = ("data.documents=lines", "train.batches=items", "eval.protocol=items")
STEPS = 20


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 lines of 1 to 30 letters."""
    choose = random.Random(5)
    words = ["".join(choose.choices("abcde ", k=choose.randint(1, 30))) for _ in range(200)]
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    path.write_text("\n".join(words))
    return path


def plain_runs(text: Path) -> Iterator[Config]:
    """Runs with each pair of a kind of model, batches, an optimizer, and pieces of a batch."""
    every = itertools.product(range(len(KINDS)), range(3), range(4), (1, 2))
    for i, j, k, pieces in every:
        kind, batches, optimizer = KINDS[i], ("streams", "windows", "items")[j], OPTIMIZERS[k]
        if (i + j + k + 2 * pieces) % 4 or (kind, batches) == ("gpt", "streams"):
            continue
        of_batches = ITEMS if batches == "items" else (f"train.batches={batches}",)
        # Muon magnifies rounding in directions in which the gradient is nearly zero
        small = ("train.optimizer.lr=0.002",) * (optimizer == "muon")
        yield plain_config(
            text,
            kind,
            *of_batches,
            *small,
            f"train.optimizer.kind={optimizer}",
            f"train.grad_accum={pieces}",
            f"train.max_steps={STEPS}",
            "train.save_every=null",
            "train.batch_size=12",
            "eval.every=10",
            f"name={kind}-{batches}-{optimizer}-{pieces}",
        )


ENDS = {
    "lstm": ("train.optimizer.kind=muon", "train.grad_accum=2", "train.fresh_state=0.2"),
    "gru": ("train.batches=streams",),
    "gpt": ("train.optimizer.kind=muon", "eval.protocol=windows", "eval.window=8"),
}


def resumable(text: Path) -> list[Config]:
    """Runs with dropout, of 12 steps."""
    return [
        make_config(text, kind, "train.batch_size=12", f"name={kind}", *special)
        for kind, special in ENDS.items()
    ]


def movable(text: Path) -> list[Config]:
    """Runs of 12 steps without dropout, for changing numbers of processes."""
    simple = ("train.batch_size=12", "train.grad_accum=2", "train.optimizer.kind=muon")
    return [plain_config(text, kind, *simple, f"name={kind}") for kind in ("lstm", "gpt")]


def kernel_runs(text: Path) -> list[Config]:
    """Runs by charlm's own kernels."""
    kernels = ("train.kernels=on", "train.optimizer.kind=muon", "train.batch_size=16")
    return [plain_config(text, kind, *kernels, f"name={kind}") for kind in ("lstm", "gpt")]


@pytest.fixture(scope="module")
def out(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs. Starting processes takes most of the time, so they start once."""
    out = tmp_path_factory.mktemp("runs")
    plain, moved = list(plain_runs(text)), movable(text)
    with_kernels = kernel_runs(text) if Kernels.variants("fp32") and has_compiler() else []
    jobs = {
        1: [(plain, "1", None), (with_kernels, "kernels1", None), (moved, "whole", None)],
        3: [
            (plain, "3", None),
            *[
                (resumable(text), *where)
                for where in (("never", None), ("again", 7), ("again", None))
            ],
            (moved, "moved", 6),
        ],
        2: [(plain, "2", None), (with_kernels, "kernels2", None), (moved, "moved", 9)],
    }
    in_processes(1, train_runs, [*jobs[1], (moved, "moved", 3)], out)
    in_processes(3, train_as_on_machines, jobs[3], out)
    in_processes(2, steps_and_runs, jobs[2], out)
    in_processes(1, train_runs, [(moved, "moved", None)], out)
    return out


def train_as_on_machines(processes: Processes, jobs: list[Job], out: Path) -> None:
    processes._memory = None  # processes of several machines share none
    train_runs(processes, jobs, out)


def steps_and_runs(processes: Processes, jobs: list[Job], out: Path) -> None:
    train_runs(processes, jobs, out)
    steps_with_overlap(processes, out)


def assert_close(folder: Path, reference: Path) -> None:
    """Check that two runs have the same losses, and nearly the same weights."""
    ours, theirs = metrics(folder), metrics(reference)
    assert [(it["step"], it["split"]) for it in ours] == [
        (it["step"], it["split"]) for it in theirs
    ]
    assert [it["loss"] for it in ours] == pytest.approx([it["loss"] for it in theirs], rel=1e-5)
    weights, expected = saved_weights(folder / LAST), saved_weights(reference / LAST)
    for name, tensor in expected.items():
        assert float((weights[name] - tensor).norm()) <= 1e-4 * float(tensor.norm()), name


@pytest.mark.parametrize("n", [2, 3])
def test_processes_equal_one(n: int, text: Path, out: Path) -> None:
    for config in plain_runs(text):
        assert_close(out / f"{n}" / config.name, out / "1" / config.name)
        assert read_meta(out / f"{n}" / config.name / LAST).processes == n


def test_own_kernels_give_the_results_of_one_process(text: Path, out: Path) -> None:
    if not Kernels.variants("fp32"):
        pytest.skip("this CPU has no kernel for float32")
    skip_without_compiler()
    for config in kernel_runs(text):
        assert_close(out / "kernels2" / config.name, out / "kernels1" / config.name)
        assert read_meta(out / "kernels2" / config.name / LAST).kernel != "torch"


@pytest.mark.parametrize("kind", ENDS)
def test_the_same_number_of_processes_resumes_to_the_bit(kind: str, out: Path) -> None:
    assert_same_run(out / "again" / kind, out / "never" / kind)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_another_number_of_processes_continues_at_the_same_place(kind: str, out: Path) -> None:
    assert_close(out / "moved" / kind, out / "whole" / kind)


def test_each_process_has_its_own_dropout(out: Path) -> None:
    saved = load_file(out / "never" / "lstm" / LAST)
    assert (
        len({saved[name].numpy().tobytes() for name in ("rng.cpu", "rng.cpu.1", "rng.cpu.2")}) == 3
    )


# --- a GPU's way to add up gradients, here on a CPU ---------------------------------------------


def steps_with_overlap(processes: Processes, out: Path) -> None:
    """Take steps with and without DistributedDataParallel, and save the weights."""
    weights: dict[str, Tensor] = {}
    for overlap, pieces in itertools.product((False, True), (1, 2)):
        train = TrainConfig(
            batch_size=8, seq_len=8, grad_accum=pieces, kernels="off", precision="fp32"
        )
        model = build_model(model_config({"kind": "lstm", "n_layer": 2, "hidden_size": 8}), 7, 1)
        compute = choose_compute(train, model, "cpu")
        stepper = Stepper(model, train, compute, carries_state=True, processes=processes)
        stepper._gradients = Gradients(model, processes, overlap)
        stepper.use(forward_of(model, compute))
        generator = torch.Generator().manual_seed(3)
        rows = slice(4 * processes.rank, 4 * (processes.rank + 1))
        for _ in range(5):
            x, y = torch.randint(7, (2, 8, 8), generator=generator)
            stepper.step(x[rows], y[rows], 1.0, y.numel())
        weights |= {f"{overlap} {pieces} {k}": v for k, v in model.state_dict().items()}
    save_file(weights, out / f"overlap{processes.rank}")


def test_overlapping_messages_give_the_same_weights(out: Path) -> None:
    first, second = (load_file(out / f"overlap{rank}") for rank in (0, 1))
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), "the processes differ"
        plain = first[name.replace("True", "False")]
        torch.testing.assert_close(tensor, plain, rtol=1e-6, atol=1e-7)
