"""One optimizer step, and the tensors that it changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from charlm.checkpoint.format import Progress
from charlm.checkpoint.read import Checkpoint, below, reading
from charlm.config import GPTConfig, MLPConfig, TrainConfig
from charlm.config.shapes import state_shapes
from charlm.data.batches import IGNORED
from charlm.errors import DamageError
from charlm.evaluation.loss import summed_nll
from charlm.models import CharModel, State
from charlm.models.base import Forward, evaluating
from charlm.processes import Processes
from charlm.randomness import torch_seed
from charlm.training.compute import DTYPES, Compute, forward_of
from charlm.training.gradients import Gradients
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
    """Takes optimizer steps. Holds a model, its optimizers and the states it carries.

    Args:
        model: on `compute`'s device.
        carries_state: whether a batch continues where the last one ended.
        processes: those that share each batch. All call the same methods.

    Attributes:
        scaler: scales the loss, for fp16 only.
    """

    def __init__(
        self,
        model: CharModel,
        train: TrainConfig,
        compute: Compute,
        carries_state: bool,
        processes: Processes | None = None,
    ) -> None:
        self.model, self._train, self._compute = model, train, compute
        self._carries_state, self._processes = carries_state, processes or Processes()
        self._optimizers = Optimizers(
            model, train.optimizer, DTYPES[compute.muon], compute.fused_muon, self._processes
        )
        self._gradients = Gradients(model, self._processes, compute.device.type == "cuda")
        self.use(forward_of(model, compute, carries_state))
        self._states: list[State | None] = [None] * train.grad_accum  # one for each piece
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")

    def use(self, forward: Forward) -> None:
        """Use a forward pass, such as a compiled one, for the training steps."""
        self._forward = self._gradients.forward(forward)

    def step(self, x: Tensor, y: Tensor, lr_scale: float, n_targets: int | None = None) -> Step:
        """Take one optimizer step on inputs x and targets y, both (B, T).

        If the loss or the gradient is not finite, the weights stay as they are. If the state may
        not be finite either, the next batch starts from a fresh one. With fp16 a gradient
        overflows now and then, because the scaler searches for the largest loss scale. Such a step
        is skipped too, but is not `bad`.

        Args:
            lr_scale: factor of every learning rate.
            n_targets: the number of targets in the batches of all processes; None for those of y.
        """
        lr = self._optimizers.set_lr(lr_scale)
        total, states = self._forward_backward(
            x, y, (y != IGNORED).sum() if n_targets is None else n_targets
        )
        # the only place in a step that waits for the GPU
        loss, norm = torch.stack((total, self._clip())).tolist()
        taken = math.isfinite(loss) and math.isfinite(norm)
        bad = not taken and not (math.isfinite(loss) and self._scale_may_be_too_large())
        if taken:  # checked above, so scaler.step, which checks again, is not needed
            self._optimizers.step()
        self._states = [None] * len(states) if bad else states
        self.scaler.update()
        self._optimizers.zero_grad()
        return Step(loss, norm, lr, taken, bad)

    def _forward_backward(
        self, x: Tensor, y: Tensor, n_targets: int | Tensor
    ) -> tuple[Tensor, list[State | None]]:
        """Compute the gradients of the mean loss over x, y (B, T) of all processes.

        With grad_accum the batch is processed in pieces. The gradient is the same.

        Returns:
            The loss, a scalar, and for each piece the state after it.
        """
        total = torch.zeros((), device=x.device)
        states: list[State | None] = []
        pieces = self._train.grad_accum
        for state, inputs, targets in zip(
            self._states, x.chunk(pieces), y.chunk(pieces), strict=True
        ):
            with self._gradients.piece(is_last=len(states) == pieces - 1):
                with self._compute.autocast():
                    logits, after = self._forward(inputs, self._refreshed(state))  # (B, T, V)
                loss = summed_nll(logits, targets) / n_targets
                torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
            detached = tuple(tensor.detach() for tensor in after)
            states.append(detached if self._carries_state else None)
        return self._gradients.add(total), states

    def _refreshed(self, state: State | None) -> State | None:
        """Return a carried state, tensors (., B, .), with the rows of some streams set to 0."""
        share = self._train.fresh_state
        if state is None or not share:
            return state
        kept = torch.rand(state[0].shape[1], 1, device=state[0].device) >= share  # (B, 1)
        return tuple(tensor * kept for tensor in state)

    def _clip(self) -> Tensor:
        """Clip the gradients to train.grad_clip; return their norm before that, a scalar."""
        for optimizer in self._optimizers.each:
            self.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it needs param_groups only
        limit = self._train.grad_clip or math.inf
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def _scale_may_be_too_large(self) -> bool:
        """Return whether fp16's loss scale, which the next steps lower, can explain an overflow."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def is_sound(self, x: Tensor, y: Tensor) -> bool:
        """Return whether the weights are worth saving: the loss on a batch x, y (B, T) is finite
        in all processes."""
        piece = len(x) // self._train.grad_accum
        with evaluating(self.model), torch.no_grad(), self._compute.autocast():
            logits, _ = self.model(x[:piece], self._states[0])
        is_finite = bool(summed_nll(logits, y[:piece]).isfinite())
        return self._processes.sum(not is_finite) == [0]

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the training state, by their names in a checkpoint: in the first
        process those of all processes."""
        named: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model.named_parameters()}
        named |= {f"optimizer.{k}": v for k, v in self._optimizers.tensors().items()}
        for i, state in enumerate(self._whole_states()):
            named |= {f"state.{piece}.{i}": it for piece, it in enumerate(state)}
        generators = {"rng.cpu": torch.get_rng_state()}  # used by dropout
        if self._compute.device.type == "cuda":
            generators["rng.cuda"] = torch.cuda.get_rng_state(self._compute.device)
        for name, own in generators.items():
            for rank, generator in enumerate(self._processes.gather(own)):
                named[_of_process(name, rank)] = generator
        return named

    def _whole_states(self) -> Sequence[Sequence[Tensor]]:
        """Return each tensor (L, B, D) of the recurrent state, in train.grad_accum pieces.

        With several processes, the rows are those of the whole batch, in their order.
        """
        states = [state for state in self._states if state is not None]
        each = list(zip(*states, strict=True))  # the pieces of a tensor
        if self._processes.is_alone:
            return each
        rows = [torch.cat(self._processes.gather(torch.cat(it, 1)), 1) for it in each]
        return [whole.chunk(self._train.grad_accum, 1) for whole in rows]

    def restore(self, path: Path, checkpoint: Checkpoint | None, progress: Progress) -> None:
        """Load the training state, except the weights, from a checkpoint.

        Args:
            path: of the checkpoint.
            checkpoint: None in processes that are not the first.
            progress: from the checkpoint's metadata.

        Raises:
            CheckpointError: a tensor is missing or has a wrong shape.
        """
        device, scaler = self._compute.device, progress.scaler
        with self._processes.together(), reading(path):
            saved = {} if checkpoint is None else self._saved(checkpoint)
        saved = self._processes.first_tensors(saved)
        with self._processes.together(), reading(path):
            self._optimizers.load(_moved(below(saved, "optimizer."), device))
            self._split_states(_moved(below(saved, "state."), device))
            self._restore_generators(below(saved, "rng."), progress.step)
            if scaler and self.scaler.is_enabled():
                if scaler.keys() != self.scaler.state_dict().keys():
                    raise DamageError("the state of the gradient scaler is missing")
                self.scaler.load_state_dict(dict(scaler))

    def _saved(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Read the tensors that `tensors` named, without the weights.

        Raises:
            CheckpointError: they do not have the model's shapes.
        """
        optimizer = checkpoint.tensors("optimizer.", shapes=self._optimizers.shapes())
        found = {"optimizer.": optimizer, "rng.": checkpoint.tensors("rng.")}
        # in another precision the states have another dtype
        if self._carries_state and checkpoint.meta.precision == self._compute.precision:
            found |= self._saved_states(checkpoint)
        return {prefix + name: it for prefix, each in found.items() for name, it in each.items()}

    def _saved_states(self, checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
        """Read the recurrent states: for each of the train.grad_accum pieces, its tensors.

        Raises:
            CheckpointError: they do not have the model's shapes, or some are missing.
        """
        config, pieces = self.model.config, self._train.grad_accum
        assert not isinstance(config, GPTConfig)
        is_mlp = isinstance(config, MLPConfig)
        floats = ("F32",) if self._compute.precision == "fp32" else ("F32", "BF16", "F16")
        B = self._train.batch_size // pieces
        states = {
            prefix: checkpoint.tensors(
                prefix, shapes=state_shapes(config, B), dtypes=("I64",) if is_mlp else floats
            )
            for prefix in (f"state.{piece}." for piece in range(pieces))
        }
        if any(states.values()) and not all(states.values()):
            raise DamageError("the recurrent states of some sequences are missing")
        if is_mlp:
            _check_ids((it["0"] for it in states.values() if it), self.model.vocab_size)
        return states

    def _split_states(self, found: dict[str, Tensor]) -> None:
        """Set this process's rows of the carried states (., B, .); none for fresh ones."""
        pieces = self._train.grad_accum
        each = [
            torch.cat([found[f"{piece}.{i}"] for piece in range(pieces)], 1)
            .chunk(self._processes.size, 1)[self._processes.rank]
            .chunk(pieces, 1)
            for i in range(len(found) // pieces)
        ]
        if each:
            self._states = [
                tuple(it.contiguous() for it in state) for state in zip(*each, strict=True)
            ]

    def _restore_generators(self, states: dict[str, Tensor], step: int) -> None:
        """Set the generators that dropout uses. PyTorch checks the states.

        If more processes continue a run, those that are new get new generators.

        Raises:
            DamageError: a state is missing or not valid.
        """
        if "cpu" not in states:
            raise DamageError("the state of the random generator is missing")
        rank, device = self._processes.rank, self._compute.device
        torch.manual_seed(torch_seed(self._train.seed, "dropout", rank, step))
        cpu, cuda = (states.get(_of_process(name, rank)) for name in ("cpu", "cuda"))
        try:
            if cpu is not None:
                torch.set_rng_state(cpu)
            if cuda is not None and device.type == "cuda":
                torch.cuda.set_rng_state(cuda, device)
        except (RuntimeError, TypeError) as error:
            raise DamageError(f"the state of a random generator: {error}") from error


def _check_ids(states: Iterable[Tensor], vocab_size: int) -> None:
    """Check that the ids of carried states are in the vocabulary.

    Raises:
        DamageError: one is not.
    """
    if any(int(ids.min()) < 0 or int(ids.max()) >= vocab_size for ids in states):
        raise DamageError("an id of the carried state is not in the vocabulary")


def _of_process(name: str, rank: int) -> str:
    """The name of a generator of a process; that of the first has no number."""
    return f"{name}.{rank}" if rank else name


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: it.to(device) for name, it in tensors.items()}
