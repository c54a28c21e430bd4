"""Helpers of the sampling tests: engines of a model, and a test of a distribution."""

from __future__ import annotations

import math
import os
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from charlm.models import CharModel
from charlm.sampling.native import NativeNetwork, native
from charlm.sampling.numpy import Network, build_network


def weights_of(model: CharModel) -> dict[str, npt.NDArray[np.float32]]:
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def numpy_engine(model: CharModel) -> Network:
    return build_network(model.config, model.vocab_size, weights_of(model))


def native_engine(model: CharModel) -> NativeNetwork:
    return compiled(numpy_engine(model))


def compiled(network: Network) -> NativeNetwork:
    """The network in C.

    The test is skipped only if there is no C compiler. If the compiler fails, the test fails.
    """
    commands = [os.environ["CC"].split()[0]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    if not any(map(shutil.which, commands)):
        pytest.skip(f"there is no C compiler ({', '.join(commands)})")
    return native(network)


def assert_distributed(ids: npt.NDArray[Any], probs: npt.NDArray[np.float64]) -> None:
    """Check that ids (N,) were drawn with probabilities (V,), by a chi-square test.

    A correct sampler fails with a probability of one in a thousand. Characters with an expected
    count below five are counted together.
    """
    counts, expected = np.bincount(ids, minlength=len(probs)), len(ids) * probs
    assert not counts[probs == 0].any()
    frequent = expected >= 5
    observed, wanted = counts[frequent].tolist(), expected[frequent].tolist()
    if (rest := float(expected[~frequent].sum())) >= 1:
        observed, wanted = [*observed, int(counts[~frequent].sum())], [*wanted, rest]
    chi_square = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True))
    assert chi_square <= critical_value(len(wanted) - 1)


def critical_value(freedom: int) -> float:
    """The value that chi-square exceeds with a probability of 0.001 (Wilson & Hilferty 1931)."""
    if freedom == 0:
        return 1e-9
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 3.09 * math.sqrt(spread)) ** 3
