"""One optimizer step, and all the tensors that it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from charlm.checkpoint.read import read_tensors, reading
from charlm.config import TrainConfig
from charlm.data.batches import IGNORED
from charlm.errors import DamageError
from charlm.evaluation.loss import summed_nll
from charlm.models import CharModel, State
from charlm.models.base import evaluating
from charlm.training.compute import DTYPES, Compute, Forward, forward_of
from charlm.training.optim import Optimizers


@dataclass(frozen=True)
class Step:
    """What a step found: the mean loss (nats per character), the gradient's norm before clipping,
    the first learning rate, whether the weights were moved, and whether that is a bad sign."""

    loss: float
    grad_norm: float
    lr: float
    taken: bool
    bad: bool


class Stepper:
    """A model, its optimizers, and the states that its batches are read with.

    Args:
        model: on `compute`'s device.
        carries_state: whether a batch goes on where the one before ended.

    Attributes:
        forward: the forward pass of a training step; a compiled one may take its place.
    """

    def __init__(
        self, model: CharModel, train: TrainConfig, compute: Compute, carries_state: bool
    ) -> None:
        self.model, self._train, self._compute = model, train, compute
        self._carries_state = carries_state
        self._optimizers = Optimizers(
            model, train.optimizer, DTYPES[compute.muon], compute.newton_schulz
        )
        self.forward: Forward = forward_of(model, compute, carries_state)
        self._states: list[State | None] = [None] * train.grad_accum  # one a piece of a batch
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")

    def step(self, x: Tensor, y: Tensor, lr_scale: float) -> Step:
        """Move the weights down the gradient of the loss on inputs x and targets y, both (B, T).

        A loss or gradient that is not finite never reaches the weights: they stay, and the next
        batch is read with a fresh state if that may not be finite either. fp16 looks for its scale
        by overflowing gradients now and then, which is no bad sign.
        """
        lr = self._optimizers.set_lr(lr_scale)
        total, states = self._forward_backward(x, y)
        # a GPU is waited for once a step, here
        loss, norm = torch.stack((total, self._clip())).tolist()
        taken = math.isfinite(loss) and math.isfinite(norm)
        bad = not taken and not (math.isfinite(loss) and self._searches_scale())
        if taken:  # so the scaler need not look at the gradients again before a step
            for optimizer in self._optimizers.each:
                optimizer.step()
        self._states = [None] * len(states) if bad else states
        self.scaler.update()
        self._optimizers.zero_grad()
        return Step(loss, norm, lr, taken, bad)

    def _forward_backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[State | None]]:
        """Gradients of the mean loss over x, y (B, T); returns it, and the states to read on with.

        With grad_accum the batch is worked through in pieces; the gradient is the same.
        """
        total = torch.zeros((), device=x.device)
        count = (y != IGNORED).sum()
        states: list[State | None] = []
        pieces = self._train.grad_accum
        for state, inputs, targets in zip(
            self._states, x.chunk(pieces), y.chunk(pieces), strict=True
        ):
            with self._compute.autocast():
                logits, after = self.forward(inputs, self._refreshed(state))
            loss = summed_nll(logits, targets) / count
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
            carried = tuple(tensor.detach() for tensor in after) if self._carries_state else None
            states.append(carried)
        return total, states

    def _refreshed(self, state: State | None) -> State | None:
        """A recurrent state, each tensor (L, B, D), with some of its rows begun anew."""
        share = self._train.fresh_state
        if state is None or not share:
            return state
        kept = torch.rand(state[0].shape[1], 1, device=state[0].device) >= share  # (B, 1)
        return tuple(tensor * kept for tensor in state)

    def _clip(self) -> Tensor:
        """Clip the gradients to train.grad_clip; returns their norm before, a scalar."""
        for optimizer in self._optimizers.each:
            self.scaler.unscale_(optimizer)
        limit = self._train.grad_clip or math.inf
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def _searches_scale(self) -> bool:
        """Whether fp16 may overflow for a scale that is too large, which the next steps lower."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def is_sound(self, x: Tensor, y: Tensor) -> bool:
        """Whether the weights give a finite loss on a batch x, y (B, T), so are worth keeping."""
        piece = len(x) // self._train.grad_accum
        with evaluating(self.model), torch.no_grad(), self._compute.autocast():
            logits, _ = self.model(x[:piece], self._states[0])
        return bool(summed_nll(logits, y[:piece]).isfinite())

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by the names that a checkpoint has."""
        named: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model.named_parameters()}
        named |= {f"optimizer.{k}": v for k, v in self._optimizers.tensors().items()}
        named |= {
            f"state.{piece}.{i}": tensor
            for piece, state in enumerate(self._states)
            for i, tensor in enumerate(state or ())
        }
        named["rng.cpu"] = torch.get_rng_state()  # dropout's
        if self._compute.device.type == "cuda":
            named["rng.cuda"] = torch.cuda.get_rng_state(self._compute.device)
        return named

    def restore(self, path: Path, scaler: dict[str, int | float], with_states: bool) -> None:
        """Take all but the weights from a checkpoint, and the states if they are of use.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        device = self._compute.device
        with reading(path):
            self._optimizers.load(read_tensors(path, "optimizer.", device))
            for piece in range(len(self._states) if with_states else 0):
                self._states[piece] = self._checked(read_tensors(path, f"state.{piece}.", device))
            _restore_generators(read_tensors(path, "rng."), device)
            if scaler and self.scaler.is_enabled():
                if scaler.keys() != self.scaler.state_dict().keys():
                    raise DamageError("no state of the gradient scaler")
                self.scaler.load_state_dict(dict(scaler))

    def _checked(self, tensors: dict[str, Tensor]) -> State | None:
        """The state made of the tensors "0", "1", ...; of the shapes that the model would give."""
        if not tensors:
            return None
        piece = self._train.batch_size // self._train.grad_accum
        ids = torch.zeros(piece, 1, dtype=torch.long, device=self._compute.device)
        with evaluating(self.model), torch.no_grad():
            _, like = self.model(ids, None)
        state = [tensors.get(str(i)) for i in range(len(tensors))]
        shapes = [None if tensor is None else tensor.shape for tensor in state]
        if shapes != [tensor.shape for tensor in like]:
            raise DamageError("a state of another shape")
        return tuple(tensor.clone() for tensor in state if tensor is not None)


def _restore_generators(states: dict[str, Tensor], device: torch.device) -> None:
    """Set the generators behind dropout, by PyTorch's own check of their states."""
    if "cpu" not in states:
        raise DamageError("no state of the generator")
    try:
        torch.set_rng_state(states["cpu"])
        if device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)
    except (RuntimeError, TypeError) as error:
        raise DamageError(f"the state of a generator: {error}") from error
