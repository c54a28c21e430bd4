"""How the gates of an LSTM or GRU are used: open, shut, or in between, and for how long.

Source: Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks",
section 4.2: a gate is left-saturated at a character where it is below 0.1, right-saturated where
above 0.9; each unit is drawn at the shares of time in which its gate is either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from charlm.insight.record import Array

LEFT, RIGHT = 0.1, 0.9
KEEPS = ("forget", "update")  # the gates that, at 1, keep what a unit had before


@dataclass(frozen=True)
class GateUse:
    """One gate over a text.

    Attributes:
        left, right: (L, D), shares of the time in which each unit's gate is below 0.1, above 0.9.
        memory: (L, D), of a gate that keeps, 1 / (1 - mean of the gate): how many characters what
            a unit holds lasts, were the gate always at its mean. None for the others.
    """

    name: str
    left: Array
    right: Array
    memory: Array | None


def gate_use(gates: dict[str, Array]) -> list[GateUse]:
    """How each gate (L, N, D) is used, by its name."""
    return [
        GateUse(
            name,
            (gate < LEFT).mean(1),
            (gate > RIGHT).mean(1),
            _memory(gate) if name in KEEPS else None,
        )
        for name, gate in gates.items()
    ]


def _memory(gate: Array) -> Array:
    """A recorded gate of 1 is one above 1 - 2^-12, and counts as this."""
    return np.asarray(1 / (1 - np.minimum(gate.mean(1, dtype=np.float64), 1 - 2.0**-12)))
