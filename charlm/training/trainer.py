"""The training loop, the only one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from charlm.config import Config
from charlm.data.batches import make_batches
from charlm.data.corpus import Corpus
from charlm.errors import TrainingError
from charlm.models import CharModel, State
from charlm.sampling.generate import generate
from charlm.training.checkpoint import (
    BEST,
    FORMAT,
    LAST,
    CorpusInfo,
    Meta,
    Progress,
    read_tensors,
    save,
)
from charlm.training.compute import Compute, Forward, compile_forward
from charlm.training.evaluate import InterruptedEvaluationError, evaluate
from charlm.training.loss import NATS_PER_BIT, summed_nll
from charlm.training.optim import Optimizers
from charlm.training.schedule import Limits, lr_scale
from charlm.training.telemetry import Observer, Record, RunLog

MAX_BAD_STEPS = 10  # in a row, with a loss or gradient that is not finite, before the run stops
Outcome = Literal["finished", "patience", "stopped"]


@dataclass
class Run:
    """A run folder and what was decided for it: all that a trainer needs besides the model."""

    folder: Path
    config: Config
    corpus: Corpus
    compute: Compute
    versions: dict[str, str]
    progress: Progress = field(default_factory=Progress)
    log_sizes: dict[str, int] = field(default_factory=dict)


class Trainer:
    """Trains `model` until a limit of `run.config` is reached, or `should_stop` says so.

    Between two steps the trainer can be put into a file and taken out again: a run that was
    stopped there and resumed is the run that was not, bit for bit on a CPU. Training takes its
    randomness from the global generator (dropout) and pure functions of the step (batches);
    evaluating and sampling take none of it.
    """

    def __init__(
        self,
        run: Run,
        model: CharModel,
        observers: list[Observer],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.run, self.config, self.progress = run, run.config, run.progress
        self.model = model.to(run.compute.device)
        self.should_stop = should_stop
        train, device = self.config.train, run.compute.device
        self.batches = make_batches(run.corpus.split("train"), train, device)
        self.limits = Limits.of(train, self.batches.chars_per_step, self.batches.chars_per_epoch)
        self.optimizers = Optimizers(model, train.optimizer)
        self.states: list[State | None] = [None] * train.grad_accum
        self.scaler = torch.amp.GradScaler(device.type, enabled=run.compute.precision == "fp16")
        self.log = RunLog(run.folder, self.config, self.progress.step, run.log_sizes)
        self.observers = [self.log, *observers]
        self.forward: Forward = self.model
        self._saved_time = time.monotonic()

    # --- the loop ----------------------------------------------------------------------------

    def train(self) -> Outcome:
        """Train to the end; `last` and `best` are on the disk when it returns.

        Raises:
            TrainingError: the loss was not finite for several steps in a row.
            CheckpointError: the disk is full or read-only.
        """
        with self._own_randomness():
            if self.progress.step == 0:
                torch.manual_seed(self.config.train.seed)
                self._save(LAST)
            else:
                self._restore()
            try:
                self._compile()
                return self._loop()
            finally:
                for observer in self.observers:
                    observer.close()

    def _loop(self) -> Outcome:
        progress, every = self.progress, self.config.eval
        self.model.train()
        while True:
            over = self.limits.reached(progress.step, progress.elapsed_s)
            try:
                if over or _due(progress.step, every.every):
                    self._evaluate()
            except InterruptedEvaluationError:
                pass  # a resumed run evaluates at this step again
            if over or _due(progress.step, every.sample_every):
                self._sample()
            tired = self._out_of_patience()
            progress.finished = over or tired
            stop = progress.finished or self.should_stop()
            self._save_if_due(stop)
            if stop:
                return "patience" if tired else "finished" if over else "stopped"
            self._step()

    def _step(self) -> None:
        """One optimizer step, timed."""
        started = time.monotonic()
        progress, train = self.progress, self.config.train
        scale = lr_scale(
            train.schedule,
            progress.step,
            self.limits.fraction(progress.step, progress.elapsed_s, train.schedule.warmup_steps),
            progress.step * self.batches.chars_per_step / self.batches.chars_per_epoch,
        )
        lr = self.optimizers.set_lr(scale)
        loss, states = self._forward_backward(*self.batches.batch(progress.step))
        norm = self._clip()
        if math.isfinite(loss) and math.isfinite(norm):
            self._update(loss, states)
        else:
            self._skip(loss)
        self.scaler.update()
        self.optimizers.zero_grad()
        progress.step += 1
        progress.elapsed_s += time.monotonic() - started
        if _due(progress.step, train.log_every):
            self._record_training(lr, norm)
        fraction = self.limits.fraction(progress.step, progress.elapsed_s)
        for observer in self.observers:
            observer.progress(fraction)

    def _forward_backward(self, x: Tensor, y: Tensor) -> tuple[float, list[State]]:
        """Gradients of the mean loss over x, y (B, T); returns it, and the states after the batch.

        With grad_accum the batch is worked through in pieces; the gradient is the same.
        """
        total = torch.zeros((), device=x.device)
        states: list[State] = []
        pieces = self.config.train.grad_accum
        for state, inputs, targets in zip(
            self.states, x.chunk(pieces), y.chunk(pieces), strict=True
        ):
            with self.run.compute.autocast():
                logits, after = self.forward(inputs, state)
            loss = summed_nll(logits, targets) / y.numel()
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
            states.append(tuple(tensor.detach() for tensor in after))
        return total.item(), states

    def _clip(self) -> float:
        """Clip the gradients to train.grad_clip; returns their norm before."""
        for optimizer in self.optimizers.each:
            self.scaler.unscale_(optimizer)
        limit = self.config.train.grad_clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    def _update(self, loss: float, states: list[State]) -> None:
        """Move the weights, and carry the state on."""
        for optimizer in self.optimizers.each:
            self.scaler.step(optimizer)
        if self.batches.carries_state:
            self.states = list(states)
        self.progress.bad_in_a_row = 0
        self.progress.loss_sum += loss
        self.progress.loss_count += 1

    def _skip(self, loss: float) -> None:
        """Leave the weights alone and start from a fresh state: the old one may not be finite."""
        progress = self.progress
        self.states = [None] * len(self.states)
        progress.skipped_steps += 1
        progress.bad_in_a_row += 1
        if progress.bad_in_a_row < MAX_BAD_STEPS:
            return
        raise TrainingError(
            f"step {progress.step}: the loss ({loss:g}) or its gradient has not been finite for "
            f"{MAX_BAD_STEPS} steps in a row, so training stops; {self.run.folder / LAST} is the "
            "last good checkpoint; try a lower train.optimizer.lr, a longer "
            "train.schedule.warmup_steps or train.precision=fp32"
        )

    # --- what happens between steps ----------------------------------------------------------

    def _evaluate(self) -> None:
        """Score the validation split; keep the model if it is the best so far."""
        progress, config = self.progress, self.config
        ids = self.run.corpus.split("val")[: config.eval.max_chars]
        if len(ids) < 2 or progress.evaluated_at == progress.step:
            return
        score = evaluate(self.model, ids, config.eval, config.train.seed, self.should_stop)
        progress.evaluated_at = progress.step
        self._record("val", score.nats_per_char)
        if progress.best_loss is None or score.nats_per_char < progress.best_loss:
            progress.best_loss, progress.best_step = score.nats_per_char, progress.step
            progress.evals_since_best = 0
            self._save(BEST)
        else:
            progress.evals_since_best += 1

    def _out_of_patience(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and self.progress.evals_since_best >= patience

    def _sample(self) -> None:
        progress, sample, vocab = self.progress, self.config.sample, self.run.corpus.vocab
        if self.config.eval.sample_every is None or progress.sampled_at == progress.step:
            return
        prompt, _ = vocab.encode_known(sample.prompt)
        seed = (self.config.train.seed, progress.step)
        text = "".join(generate(self.model, vocab, prompt, sample, seed))
        progress.sampled_at = progress.step
        for observer in self.observers:
            observer.sample(progress.step, vocab.decode(prompt) + text)

    def _record_training(self, lr: float, norm: float) -> None:
        """The mean loss since the last such record; steps that were skipped have none."""
        progress = self.progress
        if progress.loss_count:
            chars = (progress.step - progress.logged_at) * self.batches.chars_per_step
            seconds = progress.elapsed_s - progress.logged_elapsed_s
            loss = progress.loss_sum / progress.loss_count
            self._record("train", loss, chars / seconds if seconds else None, lr, norm)
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.logged_at, progress.logged_elapsed_s = progress.step, progress.elapsed_s

    def _record(
        self,
        split: str,
        loss: float,
        chars_per_s: float | None = None,
        lr: float | None = None,
        grad_norm: float | None = None,
    ) -> None:
        record = Record(
            step=self.progress.step,
            split=split,
            loss=loss,
            bits_per_char=loss / NATS_PER_BIT,
            chars_seen=self.progress.step * self.batches.chars_per_step,
            elapsed_s=round(self.progress.elapsed_s, 3),
            chars_per_s=chars_per_s,
            lr=lr,
            grad_norm=grad_norm,
        )
        for observer in self.observers:
            observer.record(record)

    # --- into a file and out of it -----------------------------------------------------------

    def _save_if_due(self, stop: bool) -> None:
        step, train = self.progress.step, self.config.train
        minutes = (time.monotonic() - self._saved_time) / 60
        if (
            stop
            or _due(step, train.save_every)
            or (train.save_minutes is not None and minutes >= train.save_minutes)
        ):
            self._save(LAST)
        if _due(step, train.keep_every):
            self._save(f"step-{step:08d}.safetensors")
            for old in sorted(self.run.folder.glob("step-*.safetensors"))[: -train.keep_last]:
                old.unlink()

    def _save(self, name: str) -> None:
        self.progress.scaler = self.scaler.state_dict()
        tensors: dict[str, Tensor] = {
            f"model.{key}": value for key, value in self.model.named_parameters()
        }
        tensors |= {f"optimizer.{key}": value for key, value in self.optimizers.tensors().items()}
        tensors |= {
            f"state.{piece}.{i}": tensor
            for piece, state in enumerate(self.states)
            for i, tensor in enumerate(state or ())
        }
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.run.compute.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.run.compute.device)
        path = self.run.folder / name
        save(path, self._meta(), tensors)
        self._saved_time = time.monotonic()
        for observer in self.observers:
            observer.saved(path)

    def _meta(self) -> Meta:
        run = self.run
        return Meta(
            format=FORMAT,
            config=run.config,
            vocab=run.corpus.vocab.chars,
            corpus=CorpusInfo(
                source=run.corpus.source, chars=len(run.corpus), sha256=run.corpus.sha256
            ),
            parameters=self.model.count_parameters(),
            progress=self.progress,
            log_sizes=self.log.sizes(),
            device=str(run.compute.device),
            precision=run.compute.precision,
            threads=run.compute.threads,
            versions=run.versions,
        )

    def _restore(self) -> None:
        """Take everything but the weights from `last`."""
        path, device = self.run.folder / LAST, self.run.compute.device
        self.optimizers.load(read_tensors(path, "optimizer.", device))
        for piece in range(len(self.states)):
            tensors = read_tensors(path, f"state.{piece}.", device)
            state = tuple(tensors[key].clone() for key in sorted(tensors, key=int))
            self.states[piece] = state or None
        generators = read_tensors(path, "rng.")
        torch.set_rng_state(generators["cpu"])
        if device.type == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], device)
        if self.progress.scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(dict(self.progress.scaler))

    def _own_randomness(self) -> AbstractContextManager[None]:
        """Inside, the global generators are this run's; afterwards they are as they were."""
        device = self.run.compute.device
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def _compile(self) -> None:
        x, _ = self.batches.batch(self.progress.step)
        piece = x.chunk(self.config.train.grad_accum)[0]
        self.forward, trouble = compile_forward(
            self.model, self.config.train, self.run.compute, piece
        )
        if trouble:
            for observer in self.observers:
                observer.notice(trouble)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step > 0 and step % every == 0
