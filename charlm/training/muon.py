"""Muon (Jordan et al. 2024) with our own kernel: the steps of torch.optim.Muon, faster."""

from __future__ import annotations

import math
from typing import Any

import torch

from charlm.kernels.newton_schulz import Moved, NewtonSchulz


class FastMuon(torch.optim.Muon):
    """torch.optim.Muon, whose memory it shares, for matrices that the kernel fits."""

    kernel: NewtonSchulz

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix: momentum (Nesterov), its orthogonal factor, decoupled decay."""
        assert closure is None
        for group in self.param_groups:
            lr, matrices = float(group["lr"]), []
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                rows, columns = matrix.shape
                rate = lr * math.sqrt(max(1, rows / columns))
                matrices.append(Moved(matrix, matrix.grad, state["momentum_buffer"], rate))
            self.kernel.steps(matrices, group["momentum"], 1 - lr * group["weight_decay"])
