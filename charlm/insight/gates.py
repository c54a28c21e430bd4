"""How often the gates of an LSTM or GRU are open or shut, and how long their units remember.

Source: Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks",
section 4.2. A gate is left-saturated at a character if it is below 0.1, and right-saturated if it
is above 0.9. A plot shows each unit at its two shares of saturated characters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from charlm.insight.record import Array

LEFT, RIGHT = 0.1, 0.9
MEMORY_GATES = ("forget", "update")  # a unit keeps its value where these are 1


@dataclass(frozen=True)
class GateUse:
    """The use of one gate over a text.

    Attributes:
        left, right: (L, D), the share of characters at which each unit's gate is left-saturated,
            and right-saturated.
        memory: (L, D), 1 / (1 - mean of the gate): for how many characters a unit keeps its value
            if the gate is always at its mean. None for a gate that is not in MEMORY_GATES.
    """

    name: str
    left: Array
    right: Array
    memory: Array | None


def gate_use(gates: dict[str, Array]) -> list[GateUse]:
    """The use of each gate (L, N, D), by name."""
    return [
        GateUse(
            name,
            (gate < LEFT).mean(1),
            (gate > RIGHT).mean(1),
            _memory(gate) if name in MEMORY_GATES else None,
        )
        for name, gate in gates.items()
    ]


def _memory(gate: Array) -> Array:
    """The memory (L, D) of gates (L, N, D). Float16 rounds a gate above 1 - 2^-12 to 1, so the
    mean is limited to this value, and the memory to 4096 characters."""
    return np.asarray(1 / (1 - np.minimum(gate.mean(1, dtype=np.float64), 1 - 2.0**-12)))
