"""Choosing and opening the engine that samples.

`native` computes on the CPU, in C that is compiled once for this machine. `numpy` computes on the
CPU and needs no compiler. Neither needs torch. `torch` computes on a GPU, or on the CPU.

The rule of `auto`:

- torch, if the device is named and is not the CPU, or if bf16 is requested;
- otherwise native;
- if native cannot be compiled, torch for TORCH_MIN_TEXTS or more texts side by side, and numpy for
  fewer.

In float32 all engines give the same logits, except for rounding. (On a CPU with AMX, native keeps
16 bits of each number if it samples 8 or more texts.) One engine always gives the same text for
the same seed and the same number of texts. Another engine nearly always gives that text too.
"""

from __future__ import annotations

import numpy as np

from charlm.checkpoint.read import Checkpoint
from charlm.errors import CharlmError
from charlm.kernels.build import NoKernelError
from charlm.sampling.engine import Engine
from charlm.sampling.native import native
from charlm.sampling.numpy import build_network

ENGINES = ("native", "numpy", "torch")
TORCH_MIN_TEXTS = 16


def open_engine(
    checkpoint: Checkpoint, engine: str, device: str, texts: int, bf16: bool = False
) -> tuple[str, Engine]:
    """Open an engine with the weights of a checkpoint.

    Args:
        engine: one of ENGINES, or auto.
        device: auto, cpu, or a device of PyTorch such as cuda:0.
        texts: the number of texts sampled side by side.
        bf16: see TorchEngine.

    Returns:
        The name of the engine that was opened, and the engine.

    Raises:
        CharlmError: the engine is not available, or does not support the device or bf16.
        CheckpointError: the file is damaged.
    """
    reason: NoKernelError | None = None
    for name in choose_engines(engine, device, texts, bf16):
        try:
            with np.errstate(all="ignore"):  # broken weights are reported when they are used
                return name, _open(checkpoint, name, device, bf16)
        except NoKernelError as error:
            reason = error
    raise CharlmError(f"engine={engine}: {reason}; use engine=auto") from reason


def choose_engines(engine: str, device: str, texts: int, bf16: bool = False) -> list[str]:
    """The engines to try, in order. For the arguments see `open_engine`.

    Raises:
        CharlmError: there is no such engine, or it does not support the device or bf16.
    """
    off_cpu = device not in ("auto", "cpu")
    if engine == "auto":
        if off_cpu or bf16:
            return ["torch"]
        return ["native", "torch" if texts >= TORCH_MIN_TEXTS else "numpy"]
    if engine not in ENGINES:
        raise CharlmError(f"engine={engine}: choose auto, {', '.join(ENGINES[:-1])} or torch")
    if engine != "torch" and (off_cpu or bf16):
        limit, instead = "in fp32, not in bf16", "precision=fp32"
        if off_cpu:
            limit, instead = f"on the CPU, not on {device}", "device=cpu"
        raise CharlmError(
            f"engine={engine}: it computes {limit}; use {instead}, or engine=torch if PyTorch "
            "supports it here"
        )
    return [engine]


def _open(checkpoint: Checkpoint, engine: str, device: str, bf16: bool) -> Engine:
    if engine != "torch":
        meta = checkpoint.meta
        network = build_network(meta.config.model, len(meta.vocab), checkpoint.weights())
        return native(network) if engine == "native" else network
    from charlm.checkpoint.weights import load_model
    from charlm.sampling.torch import TorchEngine

    return TorchEngine(load_model(checkpoint, device), bf16)
