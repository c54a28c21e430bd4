"""Which of charlm's own kernels can train a model; `training.choose` asks for them here."""

from __future__ import annotations

import functools
from collections.abc import Callable

from charlm.kernels.gpt import FusedGPT
from charlm.kernels.muon import MuonKernel
from charlm.kernels.recurrent import FusedRecurrent
from charlm.kernels.variants import Variant, usable_variants
from charlm.models.base import CharModel, Forward
from charlm.models.gpt import GPT
from charlm.models.mlp import MLP


class Kernels:
    """charlm's own kernels for training. Tests replace them."""

    @staticmethod
    def variants(precision: str) -> list[Variant]:
        """The variants to choose from for a precision, auto, fp32 or bf16, on this CPU.

        AMX is several times as fast as all others, so none is beside it.
        """
        usable = usable_variants()
        half = [variant for variant in usable if variant.half][:1]
        single = [variant for variant in usable if not variant.half][:1]
        if precision == "auto" and half and half[0].name == "amx":
            return half
        return half * (precision != "fp32") + single * (precision != "bf16")

    @staticmethod
    def support(model: CharModel) -> bool:
        """Whether there are kernels for the layers of this kind of model. An MLP has none: its
        layers are three or four large products, which PyTorch computes as fast."""
        return not isinstance(model, MLP)

    @staticmethod
    def layers(model: CharModel, variant: Variant) -> Callable[[CharModel], Forward]:
        """What makes the forward pass of a model of this kind.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        kind = FusedGPT if isinstance(model, GPT) else FusedRecurrent
        kind(model, variant)  # compiles it
        return functools.partial(kind, variant=variant)

    @staticmethod
    def muon(variant: Variant) -> MuonKernel:
        """The kernel for the steps of Muon.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        return MuonKernel(variant)
