"""Part `speed` of scripts/gpu_check: steps per second, compared with a bare loop and compiled."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from comparing import Comparison, in_turn
from gpu_common import Check, Found, Task
from gpu_recipes import MUON, config_of
from torch import Tensor, nn

from charlm.config import Config, RecurrentConfig
from charlm.config.files import parse_config
from charlm.data.batches import Batches, make_batches
from charlm.data.corpus import open_corpus
from charlm.models import build_model
from charlm.training.choose import choose_compute
from charlm.training.compiled import compiled_forward
from charlm.training.compute import Compute
from charlm.training.muon import batched_muon
from charlm.training.step import Stepper

PREPARED = 16  # batches of a bare loop, which repeats them


class Ours:
    """Charlm's training step with its batches, as the trainer has them."""

    def __init__(self, config: Config, check: Check) -> None:
        corpus = open_corpus(config.data)
        model = build_model(config.model, len(corpus.vocab), seed=1)
        self.config, self.vocab_size = config, len(corpus.vocab)
        self.compute: Compute = choose_compute(config.train, model, check.device)
        self.batches: Batches = make_batches(
            corpus.split("train"), config.train, self.compute.device
        )
        carries = self.batches.carries_state
        model = model.to(self.compute.device).train()
        self.stepper = Stepper(model, config.train, self.compute, carries_state=carries)
        started = time.perf_counter()
        forward, self.trouble = compiled_forward(
            model, config.train, self.compute, *self.batches.batch(0), carries
        )
        if forward is not None:
            self.stepper.use(forward)
        self.first_s = time.perf_counter() - started
        self._numbers = itertools.count()

    def step(self) -> None:
        self.stepper.step(*self.batches.batch(next(self._numbers)), 1.0)


class Bare:
    """Embedding, nn.LSTM and an output layer in the loop of a tutorial, with data on the device and
    the precision, optimizer and clipping of `ours`; it never reads the loss."""

    def __init__(self, ours: Ours) -> None:
        model, train, device = ours.config.model, ours.config.train, ours.compute.device
        assert isinstance(model, RecurrentConfig)
        D, V = model.hidden_size, ours.vocab_size
        self._embed = nn.Embedding(V, D, device=device)
        self._rnn = nn.LSTM(D, D, model.n_layer, device=device)
        self._head = nn.Linear(D, V, device=device)
        modules = (self._embed, self._rnn, self._head)
        self._parameters = [p for module in modules for p in module.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-3, fused=True)
        self._compute, self._clip = ours.compute, train.grad_clip
        fp16 = ours.compute.precision == "fp16"
        self._scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self._batches = itertools.cycle([ours.batches.batch(i) for i in range(PREPARED)])
        self._state: tuple[Tensor, Tensor] | None = None

    def step(self) -> None:
        x, y = next(self._batches)
        with self._compute.autocast():
            hidden, (h, c) = self._rnn(self._embed(x.t()), self._state)
            logits = self._head(hidden)  # (T, B, V)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.t().flatten())
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._state = h.detach(), c.detach()


def compare(
    check: Check, ours: Callable[[], None], theirs: Callable[[], None], work: float = 1
) -> Comparison:
    """Measure both in turn, some dozens of steps each time."""
    steps, repeats = (2, 1) if check.quick else (50, 5)

    def seconds(step: Callable[[], None]) -> float:
        check.wait()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        check.wait()
        return time.perf_counter() - started

    ours_s, theirs_s = (functools.partial(seconds, step) for step in (ours, theirs))
    return in_turn("", ours_s, theirs_s, repeats, work * steps)


def describe(it: Comparison, ours: str, theirs: str, unit: str) -> str:
    """Both speeds, and the ratio of ours to theirs."""
    row, ratios = it.row(), it.ratios
    a, b = row[f"ours, {it.unit}/s"], row[f"theirs, {it.unit}/s"]
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"{row['ratio']} ({spread}): {ours} {a} {unit}/s, {theirs} {b}"


def is_met(check: Check, it: Comparison, least: float) -> bool | None:
    """Whether the median reaches `least`; not asked of a CPU."""
    ratio = it.ratios[len(it.ratios) // 2]
    return ratio >= least if check.is_cuda and not check.quick else None


def lstm(n_layer: int, width: int, precision: str, check: Check) -> Found:
    """An LSTM compared with a bare loop; batch_size and seq_len are char-rnn's."""
    raw: dict[str, Any] = {
        "name": "speed",
        "data": {"path": check.text},
        "model": {"n_layer": n_layer, "hidden_size": width},
        "train": {"batch_size": 50, "seq_len": 50, "grad_clip": 5.0, "precision": precision},
    }
    if check.quick:
        raw["model"]["hidden_size"] = 16
        raw["train"] |= {"batch_size": 4, "seq_len": 8, "threads": 1}
    ours = Ours(parse_config(raw), check)
    train = ours.config.train
    result = compare(check, ours.step, Bare(ours).step, train.batch_size * train.seq_len)
    text = describe(result, "charlm", "bare loop", "chars")
    return Found(f"{text}; {ours.compute.precision}", is_met(check, result, 0.9))


def compiled(overrides: tuple[str, ...], check: Check) -> Found:
    """The GPT of the nanogpt recipe with train.compile auto, compared with off."""
    each = {}
    for choice in ("auto", "off"):
        config = config_of(check, "nanogpt", "gpt", *overrides, f"train.compile={choice}")
        each[choice] = Ours(config, check)
    auto, off = each["auto"], each["off"]
    result = compare(check, auto.step, off.step)
    text = describe(result, "auto", "off", "steps")
    trouble = f"; {auto.trouble}" if auto.trouble else ""
    # auto may be as slow as off within the noise of the measurement
    met = is_met(check, result, 0.97)
    return Found(f"{text}; compiling took {auto.first_s:.0f} s{trouble}", met)


def graphed(check: Check) -> Found:
    """A whole step of shakespeare-lstm as one CUDA graph on one batch, compared with charlm."""
    if not check.is_cuda:
        return Found("needs CUDA")
    ours = Ours(config_of(check, "shakespeare-lstm", "lstm"), check)
    try:
        replay = _capture(ours)
    except RuntimeError as error:
        return Found(f"PyTorch cannot capture it: {error!s:.100}")
    result = compare(check, ours.step, replay)
    return Found(describe(result, "charlm", "as one graph", "steps"))


def _capture(ours: Ours) -> Callable[[], None]:
    """Forward, backward, clipping, Muon and AdamW, recorded once with fixed learning rates."""
    model = build_model(ours.config.model, ours.vocab_size, seed=1).to(ours.compute.device)
    hidden = model.hidden_matrices()
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in hidden)]
    optimizers = [
        batched_muon([{"params": hidden, "weight_decay": 0.0}], 1e-3, 0.95, torch.bfloat16),
        torch.optim.AdamW(rest, lr=1e-3, fused=True, capturable=True),
    ]
    x, y = (tensor.contiguous() for tensor in ours.batches.batch(0))

    def step() -> None:
        with ours.compute.autocast():
            logits, _ = model(x, None)
        F.cross_entropy(logits.float().flatten(0, 1), y.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

    # capturing needs a step that has run on another stream than the default
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model.zero_grad(set_to_none=True)
            step()
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


AS_FAST = "at least 0.90 of a bare loop"
TASKS = [
    Task("LSTM 2x128", AS_FAST, functools.partial(lstm, 2, 128, "auto")),
    Task("LSTM 3x512", AS_FAST, functools.partial(lstm, 3, 512, "auto")),
    Task("LSTM 3x512, fp32", AS_FAST, functools.partial(lstm, 3, 512, "fp32")),
    Task("nanogpt recipe, compiled", "no slower than off", functools.partial(compiled, ())),
    Task("GPT with Muon, compiled", "no slower than off", functools.partial(compiled, MUON)),
    Task("shakespeare-lstm as a CUDA graph", "", graphed),
]
