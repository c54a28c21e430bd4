"""The evaluations during training: how much text they read, and what they say about overfitting."""

from __future__ import annotations

from collections.abc import Callable

from charlm.checkpoint.format import BEST, Progress
from charlm.config import ModelConfig
from charlm.evaluation.evaluate import Score, evaluate
from charlm.models import CharModel
from charlm.training.compute import kernel_forward
from charlm.training.run import Run

ROWS = 16  # that a recurrent network reads side by side
EVALUATIONS = 10  # in a run, if eval.every is auto
# Each reads this share of the characters that the run trains on. Reading a character takes at most
# half of the time of training on it, so all evaluations take less than 5% of the time. A GPT reads
# each character twice, in overlapping windows.
SHARE, SHARE_OF_GPT = 1 / 100, 1 / 150
MIN_CHARS = 5000  # fewer would say little; only a run of a few seconds takes longer for it
OVERFITTING = 1.005  # times the best loss
DROPOUTS = (0.3, 0.5)  # that are advised against overfitting


def score(
    run: Run, model: CharModel, fraction: float, should_stop: Callable[[], bool]
) -> Score | None:
    """Score the validation split, or its first characters.

    The forward pass is that of training if charlm's own kernel computes it, otherwise PyTorch's in
    float32.

    Args:
        fraction: the share of the run that is done.

    Returns:
        None if the validation split is too short.

    Raises:
        InterruptedEvaluationError: `should_stop` returned True.
    """
    config, split = run.config.eval, run.corpus.split("val")
    if len(split) < 2:
        return None
    max_chars = config.max_chars
    if max_chars == "auto":
        max_chars = run.progress.eval_chars = run.progress.eval_chars or _chars(run, fraction)
        if config.protocol == "windows":  # fewer windows, from the whole split
            n_windows = min(config.n_windows, -(-max_chars // config.window))
            config, max_chars = config.model_copy(update={"n_windows": n_windows}), None
    return evaluate(
        model,
        split.head(max_chars),
        config,
        run.config.train.seed,
        should_stop,
        rows=ROWS,
        forward=kernel_forward(model, run.compute),
        processes=run.processes,
    )


def _chars(run: Run, fraction: float) -> int:
    """The number of characters that all evaluations of a run read."""
    of_run = run.progress.step * run.chars_per_step / max(fraction, 1e-9)
    share = SHARE_OF_GPT if run.config.model.kind == "gpt" else SHARE
    return max(MIN_CHARS, round(share * of_run))


def overfitting(progress: Progress, loss: float, fraction: float, model: ModelConfig) -> str:
    """A line for the user if the validation loss has risen for a third of the run, else empty.

    Args:
        loss: of the evaluation that was just done.
        fraction: the share of the run that is done.
        model: its dropout decides whether a higher one is advised.
    """
    step, best_step, best = progress.step, progress.best_step, progress.best_loss
    if best is None or best_step is None or loss <= OVERFITTING * best:
        return ""
    if fraction * (step - best_step) / step < 1 / 3:
        return ""
    dropout = max(getattr(model, key, 0.0) for key in ("dropout", "output_dropout"))
    higher = next((it for it in DROPOUTS if it > dropout), None)
    first = f"a higher dropout (--dropout {higher}), " if higher else ""
    return (
        f"step {step:,}: the validation loss has risen since step {best_step:,}, from {best:.4f} "
        f"to {loss:.4f}, and {BEST} is that of step {best_step:,}: the model overfits, or diverges "
        f"if the training loss has risen, too; try {first}a smaller model or fewer steps, or "
        "against divergence a lower learning rate (--lr)"
    )
