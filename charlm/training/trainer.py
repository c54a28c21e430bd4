"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import Checkpoint
from charlm.checkpoint.run_folder import kept_checkpoint, remove_kept, write_config
from charlm.checkpoint.write import save
from charlm.data.batches import make_batches
from charlm.errors import BrokenModelError, TrainingError
from charlm.evaluation.evaluate import InterruptedEvaluationError
from charlm.models import CharModel
from charlm.observer import Observer, Record
from charlm.randomness import torch_seed
from charlm.training import validation
from charlm.training.compiled import compiled_forward
from charlm.training.estimate import Estimate
from charlm.training.pace import Pace, is_multiple
from charlm.training.run import Run
from charlm.training.schedule import lr_scale
from charlm.training.step import Step, Stepper
from charlm.training.telemetry import RunLog
from charlm.training.validation import EVALUATIONS
from charlm.units import bits

MAX_BAD_STEPS = 10  # in a row before the run stops; see `Step.bad`
SAMPLES = 5  # in a run, if eval.sample_every is auto
Outcome = Literal["finished", "patience", "stopped"]
Sampler = Callable[[CharModel, int], str]
"""Returns a text that the model generates at a step."""


class Trainer:
    """Trains `model` until a limit of `run.config` is reached or `should_stop` returns True.

    A run can be stopped between any two steps. If it is resumed, its results on a CPU are bit for
    bit those of a run that was never stopped. Training takes its randomness from the global
    generator (dropout) and from pure functions of the step (batches). Evaluating and sampling
    take none from the global generator.

    If several processes train the run, each has a trainer. They take the same steps and the same
    decisions. Only the first one writes files, samples, and reports to observers.

    Args:
        observers: receive what is measured, after the log files.
        should_stop: asked before every step, and during an evaluation.
        sampler: generates the text that is shown; None for no samples.
        clock: returns seconds, never fewer than before.
        started: what the clock returned when the command began; `train.max_seconds` counts from
            there. None is now.
    """

    def __init__(
        self,
        run: Run,
        model: CharModel,
        observers: list[Observer],
        should_stop: Callable[[], bool],
        sampler: Sampler | None,
        clock: Callable[[], float],
        started: float | None,
    ) -> None:
        self.run, self.config, self.progress = run, run.config, run.progress
        self.model = model.to(run.compute.device)
        self.should_stop, self._sampler, self._clock = should_stop, sampler, clock
        self.processes = run.processes
        train, device = self.config.train, run.compute.device
        ids, rows = run.corpus.split("train"), self.processes.rows(train.batch_size)
        self.batches = make_batches(ids, train, device, rows)
        self.stepper = Stepper(
            self.model, train, run.compute, self.batches.carries_state, self.processes
        )
        self.log = RunLog(
            run.folder, self.config, device, run.last.meta.log_sizes if run.last else {}
        )
        self.observers = [self.log, *observers] if self.processes.is_first else []
        self._estimate = Estimate(train, run.limits)
        started = clock() if started is None else started
        self.pace = Pace(run.limits, self.progress, clock, started, self.processes)
        self._last_saved_s = self.pace.wall_s()
        self._overfits = False  # whether the user was told that the model overfits

    # --- the loop ----------------------------------------------------------------------------

    def train(self) -> Outcome:
        """Train until the run ends or is stopped. `last` and `best` are on the disk then.

        Returns:
            Why training ended: `finished` by a limit, `patience` lost, or `stopped`.

        Raises:
            TrainingError: MAX_BAD_STEPS steps in a row were bad, or the model at the end is.
            CheckpointError: the disk is full or read-only.
        """
        with self._own_randomness():
            if self.processes.is_first:
                write_config(self.run.folder, self.config)
            if self.run.resumed:
                self._restore(self.run.last)
            else:
                self.progress.evaluated_s = self.progress.sampled_s = self.pace.seconds()
                indices = () if self.processes.is_first else (self.processes.rank,)
                torch.manual_seed(torch_seed(self.config.train.seed, "dropout", *indices))
                with self.pace.timed("save"):
                    self._save(LAST)  # so that a run folder always has a checkpoint
            if self.processes.is_first:
                self.log.open(self.progress)
            try:
                self._compile()
                return self._loop()
            finally:
                for observer in self.observers:
                    observer.close()

    def _loop(self) -> Outcome:
        progress, pace, config = self.progress, self.pace, self.config.eval
        self.model.train()
        while True:
            over = pace.is_over()
            evaluated = progress.evaluated_at, progress.evaluated_s
            sampled = progress.sampled_at, progress.sampled_s
            evaluates = over or pace.is_due(config.every, EVALUATIONS, *evaluated)
            if evaluates and not self._evaluate():
                over = False  # the resumed run evaluates, samples, and ends then
            elif over or pace.is_due(config.sample_every, SAMPLES, *sampled):
                self._sample()
            if over:
                pace.end()
            lost_patience = self._lost_patience()
            progress.finished = over or lost_patience
            stop = pace.agree(self.should_stop()) or progress.finished
            self._save_if_due(stop)
            if lost_patience:
                return "patience"
            if stop:
                return "finished" if over else "stopped"
            self._step()

    def _step(self) -> None:
        """Take one optimizer step; time and count it."""
        started = self._clock()
        progress, schedule = self.progress, self.run.schedule
        scale = lr_scale(
            schedule,
            progress.step,
            self.pace.fraction(schedule.warmup_steps),
            progress.step / self.run.steps_per_epoch,
        )
        n_targets = self.batches.n_targets(progress.step)
        step = self.stepper.step(*self.batches.batch(progress.step), scale, n_targets)
        if step.taken:
            progress.bad_in_a_row = 0
            progress.loss_sum += step.loss
            progress.loss_count += 1
        else:
            progress.skipped_steps += 1
            progress.bad_in_a_row += step.bad
            if progress.bad_in_a_row >= MAX_BAD_STEPS:
                raise self.processes.common(self._diverged())
        progress.step += 1
        now = self._clock()
        progress.elapsed_s += now - started
        if is_multiple(progress.step, self.config.train.log_every):
            self._record_training(step)
        fraction = self.pace.fraction()
        for observer in self.observers:
            observer.progress(fraction)
        if line := self._estimate.after_step(now):
            self._notify(line)

    def _diverged(self) -> TrainingError:
        return TrainingError(
            f"step {self.progress.step}: the loss or its gradient is no longer finite, so training "
            f"stops; {self.run.folder / LAST} is the last good checkpoint; try a lower "
            "train.optimizer.lr, a longer train.schedule.warmup_steps or train.precision=fp32"
        )

    # --- between steps ----------------------------------------------------------

    def _evaluate(self) -> bool:
        """Evaluate on the validation split; save the model if it is the best so far.

        Returns:
            False if `should_stop` ended the evaluation. A resumed run then repeats it.
        """
        progress = self.progress
        if progress.evaluated_at == progress.step:
            return True
        try:
            with self.pace.timed("evaluation"):
                score = validation.score(
                    self.run, self.model, self.pace.fraction(), self.should_stop
                )
        except InterruptedEvaluationError:
            return False
        progress.evaluated_at, progress.evaluated_s = progress.step, self.pace.seconds()
        if score is None:
            return True
        loss = score.nats_per_char
        if not math.isfinite(loss):
            self._notify(f"step {progress.step}: the validation loss is not finite")
            loss = math.inf
        else:
            self._record("val", loss)
        if loss < (math.inf if progress.best_loss is None else progress.best_loss):
            progress.best_loss, progress.best_step = loss, progress.step
            progress.evals_since_best = 0
            self._save(BEST)
        else:
            progress.evals_since_best += 1
            line = validation.overfitting(progress, loss, self.pace.fraction(), self.config.model)
            if line and not self._overfits:
                self._notify(line)
                self._overfits = True
        return True

    def _lost_patience(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and self.progress.evals_since_best >= patience

    def _sample(self) -> None:
        """Report a sample. A model that is broken is reported too, but does not end the run."""
        progress, sampler = self.progress, self._sampler
        every = self.config.eval.sample_every
        if sampler is None or every is None or progress.sampled_at == progress.step:
            return
        with self.pace.timed("sample"):
            if self.processes.is_first:
                try:
                    text = sampler(self.model, progress.step)
                except BrokenModelError as error:
                    self._notify(f"step {progress.step}: {error}")
                else:
                    for observer in self.observers:
                        observer.sample(progress.step, text)
        progress.sampled_at, progress.sampled_s = progress.step, self.pace.seconds()

    def _record_training(self, step: Step) -> None:
        """Record the mean loss since the last record, without the steps that were skipped."""
        progress = self.progress
        if progress.loss_count:
            chars = (progress.step - progress.logged_at) * self.run.chars_per_step
            seconds = progress.elapsed_s - progress.logged_elapsed_s
            self._record(
                "train",
                progress.loss_sum / progress.loss_count,
                chars_per_s=chars / seconds if seconds else None,
                lr=step.lr,
                grad_norm=step.grad_norm if math.isfinite(step.grad_norm) else None,
            )
        progress.loss_sum, progress.loss_count = 0.0, 0
        progress.logged_at, progress.logged_elapsed_s = progress.step, progress.elapsed_s

    def _record(self, split: str, loss: float, **measured: float | None) -> None:
        record = Record(
            step=self.progress.step,
            split=split,
            loss=loss,
            bits_per_char=bits(loss),
            chars_seen=round(self.progress.step * self.run.chars_per_step),
            elapsed_s=round(self.progress.elapsed_s, 3),
            **measured,
        )
        for observer in self.observers:
            observer.record(record)

    # --- saving and restoring -----------------------------------------------------------

    def _save_if_due(self, stop: bool) -> None:
        step, train = self.progress.step, self.config.train
        minutes = (self.pace.wall_s() - self._last_saved_s) / 60
        last = (
            stop
            or is_multiple(step, train.save_every)
            or (train.save_minutes is not None and minutes >= train.save_minutes)
        )
        kept = is_multiple(step, train.keep_every)
        if not (last or kept):
            return
        if not self.stepper.is_sound(*self.batches.batch(step)):
            if self.progress.finished:
                raise self.processes.common(self._diverged())
            if stop:
                self._notify(f"step {step}: the loss is not finite, so this step is not saved")
            return
        if last:
            self._save(LAST)
            self._last_saved_s = self.pace.wall_s()
        if kept:
            self._save(kept_checkpoint(self.run.folder, step).name)
            if self.processes.is_first:
                remove_kept(self.run.folder, step, train.keep_last)

    def _save(self, name: str) -> None:
        self.progress.scaler = self.stepper.scaler.state_dict()
        self.progress.wall_s = self.pace.wall_s()
        path = self.run.folder / name
        tensors = self.stepper.tensors()
        if self.processes.is_first:
            meta = self.run.meta(self.model.count_parameters(), self.log.sizes())
            save(path, meta, tensors)
        for observer in self.observers:
            observer.saved(path)

    def _restore(self, last: Checkpoint | None) -> None:
        """Load from the checkpoint what is not in the model and the progress; close it."""
        self.stepper.restore(self.run.folder / LAST, last, self.progress)
        if last is not None:
            last.close()  # some systems do not replace a file that is open

    def _own_randomness(self) -> AbstractContextManager[None]:
        """Give the global generators to this run; restore their states afterwards."""
        device = self.run.compute.device
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def _compile(self) -> None:
        """Use torch.compile if `train.compile` asks for it and one piece of a batch agrees."""
        pieces = self.config.train.grad_accum
        x, y = (it.chunk(pieces)[0] for it in self.batches.batch(self.progress.step))
        forward, problem = compiled_forward(
            self.model, self.config.train, self.run.compute, x, y, self.batches.carries_state
        )
        if forward is not None:
            self.stepper.use(forward)
        if problem:
            self._notify(problem)

    def _notify(self, text: str) -> None:
        for observer in self.observers:
            observer.notice(text)
