"""Part `exact` of scripts/gpu_check: is a GPU exact?

Its losses and gradients must be those of the CPU in float64. A run that is stopped and resumed on
it must equal a run that is not stopped.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from gpu_common import Check, Found, Task
from torch import Tensor

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import open_checkpoint
from charlm.checkpoint.run_folder import stopped_run
from charlm.config import Config
from charlm.config.files import parse_config
from charlm.errors import DeviceError
from charlm.models import CharModel, build_model
from charlm.training.choose import choose_compute
from charlm.training.session import Session, resume, start
from charlm.training.step import Stepper

VOCABULARY, SCALES = 65, 30  # the number of loss scales that fp16 may try
# largest relative errors of loss and gradient; fp32 is TF32 on a GPU
TOLERANCES = {"fp32": (1e-3, 5e-3), "bf16": (1e-2, 5e-2), "fp16": (2e-3, 2e-2)}
RESUMED_TOLERANCE = 1e-3  # of all weights, relative: kernels on a GPU may sum in any order


def settings(kind: str, text: str, *overrides: str) -> Config:
    """The settings of a small model: two layers with dropout between them."""
    size = {"n_head": 2, "n_embd": 64, "context": 32} if kind == "gpt" else {"hidden_size": 64}
    raw = {
        "name": kind,
        "data": {"path": text},
        "model": {"kind": kind, "n_layer": 2, **size},
        "train": {"batch_size": 8, "compile": "off", "threads": 1}
        | ({} if kind == "gpt" else {"seq_len": 32}),
        "eval": {"every": None, "sample_every": None, "max_chars": 1000},
    }
    return parse_config(raw, overrides)


def agree(kind: str, check: Check) -> Found:
    """One step of plain gradient descent in each precision, compared with float64."""
    plain = ("optimizer.kind=sgd", "optimizer.lr=1", "optimizer.momentum=0", "grad_clip=0")
    config = settings(kind, check.text, *(f"train.{it}" for it in plain))
    model = build_model(config.model, VOCABULARY, seed=1)
    torch.manual_seed(1)
    ids = torch.randint(VOCABULARY, (8, 33))
    exact = _exactly(model, ids)
    results, met = [], True
    for precision, most in TOLERANCES.items():
        try:
            got = _by_stepping(model, ids, config, precision, check.device)
        except DeviceError:
            results.append(f"{precision} not on this device")
            continue
        errors = [_distance(a, b) for a, b in zip(got, exact, strict=True)]
        met = met and all(error <= limit for error, limit in zip(errors, most, strict=True))
        results.append(f"{precision} {errors[0]:.0e}, {errors[1]:.0e}")
    return Found("; ".join(results), met)


def _exactly(model: CharModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient (all parameters in a row), float64 on the CPU."""
    model = copy.deepcopy(model).double()
    logits, _ = model(ids[:, :-1], None)
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def _by_stepping(
    model: CharModel, ids: Tensor, config: Config, precision: str, device: str
) -> tuple[Tensor, Tensor]:
    """The same from one step with learning rate 1 on the device: the change of the weights."""
    train = config.train.model_copy(update={"precision": precision})
    compute = choose_compute(train, model, device)
    model = copy.deepcopy(model).to(compute.device)
    stepper = Stepper(model, train, compute, carries_state=False)
    before = _flat(model)
    ids = ids.to(compute.device)
    for _ in range(SCALES):
        step = stepper.step(ids[:, :-1], ids[:, 1:], 1.0)
        if step.taken:
            return torch.tensor(step.loss).double(), before - _flat(model)
    raise ArithmeticError(f"{precision}: no step was taken in {SCALES}")


def _flat(model: CharModel) -> Tensor:
    return torch.cat([p.detach().double().cpu().flatten() for p in model.parameters()])


def _distance(a: Tensor, b: Tensor) -> float:
    """The norm of a - b, relative to that of b."""
    return float((a - b).norm() / b.norm())


def resumed(kind: str, precision: str, check: Check) -> Found:
    """Train with dropout, once without a stop and once stopped half-way; compare the weights."""
    steps = 6 if check.quick else 40
    overrides = (f"train.max_steps={steps}", f"train.precision={precision}", "model.dropout=0.1")
    config = settings(kind, check.text, *overrides)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as other:
        try:
            whole = start(config, Path(name), check.device)
        except DeviceError as error:
            return Found(f"not on this device: {error}")
        _train(whole, steps)
        # auto measures, and might choose otherwise the next time
        compute = whole.run.compute
        kernels = "off" if compute.kernel == "torch" else "on"
        chosen = (f"train.precision={compute.precision}", f"train.kernels={kernels}")
        config = settings(kind, check.text, *overrides, *chosen)
        folder = _train(start(config, Path(other), check.device), steps // 2)
        with stopped_run(folder) as last:
            _train(resume(config, last, check.device), steps)
        a, b = (_weights(it / LAST) for it in (folder, whole.run.folder))
    off = _distance(a, b)
    moved = whole.run.progress
    what = "bit for bit" if off == 0 else f"off by {off:.1e}"
    skipped = (
        f", {moved.skipped_steps} of {moved.step} steps skipped" if precision == "fp16" else ""
    )
    return Found(what + skipped, off <= RESUMED_TOLERANCE)


def _weights(path: Path) -> Tensor:
    with open_checkpoint(path) as checkpoint:
        tensors = checkpoint.tensors("model.")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def _train(session: Session, until: int) -> Path:
    session.trainer([], lambda: session.run.progress.step >= until).train()
    return session.run.folder


TASKS = [
    Task(
        f"{kind}: loss and gradient, off by",
        "; ".join(f"{key} {a:.0e}, {b:.0e}" for key, (a, b) in TOLERANCES.items()),
        functools.partial(agree, kind),
    )
    for kind in ("rnn", "gru", "lstm", "mlp", "gpt")
] + [
    Task(
        f"{kind}, {precision}: weights after stopping and resuming",
        f"off by {RESUMED_TOLERANCE:.0e} at most",
        functools.partial(resumed, kind, precision),
    )
    for kind, precision in (("lstm", "auto"), ("lstm", "fp16"), ("gpt", "auto"), ("gpt", "fp16"))
]
