"""Muon (Jordan et al. 2024) with our own kernel: the steps of torch.optim.Muon, faster."""

from __future__ import annotations

import math
from typing import Any

import torch

from charlm.kernels.newton_schulz import NewtonSchulz


class FastMuon(torch.optim.Muon):
    """torch.optim.Muon, whose memory it shares, for matrices that the kernel fits."""

    kernel: NewtonSchulz

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix: momentum (Nesterov), its orthogonal factor, decoupled decay."""
        assert closure is None
        for group in self.param_groups:
            lr, momentum = float(group["lr"]), group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                update = self.kernel(matrix.grad.lerp(average, momentum))
                matrix.mul_(1 - lr * group["weight_decay"])
                rows, columns = matrix.shape
                matrix.add_(update, alpha=-lr * math.sqrt(max(1, rows / columns)))
