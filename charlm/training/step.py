"""One optimizer step, and the tensors that it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.checkpoint.read import Checkpoint, reading
from charlm.config import RecurrentConfig, TrainConfig
from charlm.config.shapes import state_shapes
from charlm.data.batches import IGNORED
from charlm.errors import DamageError
from charlm.evaluation.loss import summed_nll
from charlm.models import CharModel, State
from charlm.models.base import evaluating
from charlm.training.compute import DTYPES, Compute, Forward, forward_of
from charlm.training.optim import Optimizers


@dataclass(frozen=True)
class Step:
    """The results of a step.

    Attributes:
        loss: mean loss of the batch, nats per character.
        grad_norm: norm of the gradient before clipping.
        lr: learning rate of the first parameter group.
        taken: whether the weights were updated.
        bad: whether the step was skipped for a reason other than fp16's search for a loss scale.
    """

    loss: float
    grad_norm: float
    lr: float
    taken: bool
    bad: bool


class Stepper:
    """Takes optimizer steps. Holds a model, its optimizers and its recurrent states.

    Args:
        model: on `compute`'s device.
        carries_state: whether a batch continues where the last one ended.

    Attributes:
        forward: the forward pass of a training step. It can be replaced by a compiled one.
        scaler: scales the loss, for fp16 only.
    """

    def __init__(
        self, model: CharModel, train: TrainConfig, compute: Compute, carries_state: bool
    ) -> None:
        self.model, self._train, self._compute = model, train, compute
        self._carries_state = carries_state
        self._optimizers = Optimizers(
            model, train.optimizer, DTYPES[compute.muon], compute.fused_muon
        )
        self.forward: Forward = forward_of(model, compute, carries_state)
        self._states: list[State | None] = [None] * train.grad_accum  # one for each piece
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")

    def step(self, x: Tensor, y: Tensor, lr_scale: float) -> Step:
        """Take one optimizer step on inputs x and targets y, both (B, T).

        If the loss or the gradient is not finite, the weights stay as they are. If the state may
        not be finite either, the next batch starts from a fresh one. With fp16 a gradient
        overflows now and then, because the scaler searches for the largest loss scale. Such a step
        is skipped too, but is not `bad`.

        Args:
            lr_scale: factor of every learning rate.
        """
        lr = self._optimizers.set_lr(lr_scale)
        total, states = self._forward_backward(x, y)
        # the only place in a step that waits for the GPU
        loss, norm = torch.stack((total, self._clip())).tolist()
        taken = math.isfinite(loss) and math.isfinite(norm)
        bad = not taken and not (math.isfinite(loss) and self._scale_may_be_too_large())
        if taken:  # checked above, so scaler.step, which checks again, is not needed
            for optimizer in self._optimizers.each:
                optimizer.step()
        self._states = [None] * len(states) if bad else states
        self.scaler.update()
        self._optimizers.zero_grad()
        return Step(loss, norm, lr, taken, bad)

    def _forward_backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[State | None]]:
        """Compute the gradients of the mean loss over x, y (B, T).

        With grad_accum the batch is processed in pieces. The gradient is the same.

        Returns:
            The loss, a scalar, and for each piece the state after it.
        """
        total = torch.zeros((), device=x.device)
        count = (y != IGNORED).sum()
        states: list[State | None] = []
        pieces = self._train.grad_accum
        for state, inputs, targets in zip(
            self._states, x.chunk(pieces), y.chunk(pieces), strict=True
        ):
            with self._compute.autocast():
                logits, after = self.forward(inputs, self._refreshed(state))  # (B, T, V)
            loss = summed_nll(logits, targets) / count
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
            detached = tuple(tensor.detach() for tensor in after)
            states.append(detached if self._carries_state else None)
        return total, states

    def _refreshed(self, state: State | None) -> State | None:
        """Return a recurrent state, tensors (L, B, D), with the rows of some streams set to 0."""
        share = self._train.fresh_state
        if state is None or not share:
            return state
        kept = torch.rand(state[0].shape[1], 1, device=state[0].device) >= share  # (B, 1)
        return tuple(tensor * kept for tensor in state)

    def _clip(self) -> Tensor:
        """Clip the gradients to train.grad_clip; return their norm before that, a scalar."""
        for optimizer in self._optimizers.each:
            self.scaler.unscale_(optimizer)
        limit = self._train.grad_clip or math.inf
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def _scale_may_be_too_large(self) -> bool:
        """Return whether fp16's loss scale, which the next steps lower, can explain an overflow."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def is_sound(self, x: Tensor, y: Tensor) -> bool:
        """Return whether the loss on a batch x, y (B, T) is finite, so that the weights are worth
        saving."""
        piece = len(x) // self._train.grad_accum
        with evaluating(self.model), torch.no_grad(), self._compute.autocast():
            logits, _ = self.model(x[:piece], self._states[0])
        return bool(summed_nll(logits, y[:piece]).isfinite())

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the training state, by their names in a checkpoint."""
        named: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model.named_parameters()}
        named |= {f"optimizer.{k}": v for k, v in self._optimizers.tensors().items()}
        named |= {
            f"state.{piece}.{i}": tensor
            for piece, state in enumerate(self._states)
            for i, tensor in enumerate(state or ())
        }
        named["rng.cpu"] = torch.get_rng_state()  # used by dropout
        if self._compute.device.type == "cuda":
            named["rng.cuda"] = torch.cuda.get_rng_state(self._compute.device)
        return named

    def restore(
        self, checkpoint: Checkpoint, scaler: dict[str, int | float], with_states: bool
    ) -> None:
        """Load the training state, except the weights, from a checkpoint.

        Args:
            scaler: the state of the gradient scaler, from the checkpoint's metadata.
            with_states: whether to load the recurrent states too.

        Raises:
            CheckpointError: a tensor is missing or has a wrong shape.
        """
        device = self._compute.device
        with reading(checkpoint.path):
            shapes = self._optimizers.shapes()
            self._optimizers.load(checkpoint.tensors("optimizer.", device, shapes))
            if with_states and self._carries_state:
                self._states = [self._saved_state(checkpoint, i) for i in range(len(self._states))]
            _restore_generators(checkpoint.tensors("rng."), device)
            if scaler and self.scaler.is_enabled():
                if scaler.keys() != self.scaler.state_dict().keys():
                    raise DamageError("the state of the gradient scaler is missing")
                self.scaler.load_state_dict(dict(scaler))

    def _saved_state(self, checkpoint: Checkpoint, piece: int) -> State | None:
        """Return the recurrent state of a piece of the batch; None for a fresh one.

        Raises:
            CheckpointError: it does not have the model's shapes.
        """
        config, B = self.model.config, self._train.batch_size // self._train.grad_accum
        assert isinstance(config, RecurrentConfig)
        types = ("F32",) if self._compute.precision == "fp32" else ("F32", "BF16", "F16")
        found = checkpoint.tensors(
            f"state.{piece}.", self._compute.device, state_shapes(config, B), types
        )
        return tuple(found[name] for name in sorted(found)) or None


def _restore_generators(states: dict[str, Tensor], device: torch.device) -> None:
    """Set the generators that dropout uses. PyTorch checks the states.

    Raises:
        DamageError: a state is missing or not valid.
    """
    if "cpu" not in states:
        raise DamageError("the state of the random generator is missing")
    try:
        torch.set_rng_state(states["cpu"])
        if device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)
    except (RuntimeError, TypeError) as error:
        raise DamageError(f"the state of a random generator: {error}") from error
