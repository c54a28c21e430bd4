"""What the tests of sampling share: networks of models, whether draws are from a distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.models import CharModel
from charlm.sampling.engine import Engine
from charlm.sampling.numpy import build_network


def weights_of(model: CharModel) -> dict[str, npt.NDArray[np.float32]]:
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def numpy_engine(model: CharModel) -> Engine:
    return build_network(model.config, model.vocab_size, weights_of(model))


def assert_drawn_from(drawn: npt.NDArray[Any], probs: npt.NDArray[np.float64]) -> None:
    """Ids are from probabilities (V,), by a chi-square test that one in a thousand fails.

    Characters of which fewer than five are to be expected count together.
    """
    counts, expected = np.bincount(drawn, minlength=len(probs)), len(drawn) * probs
    assert not counts[probs == 0].any()
    often = expected >= 5
    observed, wanted = counts[often].tolist(), expected[often].tolist()
    if (rest := float(expected[~often].sum())) >= 1:
        observed, wanted = [*observed, int(counts[~often].sum())], [*wanted, rest]
    chi_square = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True))
    assert chi_square <= one_in_a_thousand(len(wanted) - 1)


def one_in_a_thousand(freedom: int) -> float:
    """What chi-square exceeds so seldom: its cube root is nearly normal (Wilson, Hilferty 1931)."""
    if freedom == 0:
        return 1e-9
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 3.09 * math.sqrt(spread)) ** 3
