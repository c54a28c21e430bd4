"""Which engine samples, and opening it.

`native` computes on the CPU in C that is compiled once for this machine. `numpy` computes the same
without a compiler. Neither needs torch. `torch` computes on a GPU, or on the CPU.

`auto` is torch where the device is named and is not the CPU, or where bf16 is asked for. Otherwise
it is native; where that cannot be compiled, it is torch for TORCH_MIN_TEXTS texts or more side by
side, and numpy for fewer.

All compute the same in float32, except for the last bits. (On a CPU with AMX, native keeps 16 bits
of each number when it samples 8 or more texts.) The same engine gives the same text for the same
seed and the same number of texts; another engine nearly always does.
"""

from __future__ import annotations

from pathlib import Path

from charlm.checkpoint.format import Meta
from charlm.checkpoint.mapped import map_weights
from charlm.checkpoint.read import reading
from charlm.errors import CharlmError
from charlm.kernels.build import NoKernelError
from charlm.sampling.engine import Engine
from charlm.sampling.native import native
from charlm.sampling.numpy import build_network

ENGINES = ("native", "numpy", "torch")
TORCH_MIN_TEXTS = 16


def open_engine(
    path: Path, meta: Meta, engine: str, device: str, texts: int, bf16: bool = False
) -> tuple[str, Engine]:
    """The name of an engine and the engine, with the weights of a checkpoint.

    Args:
        engine: one of ENGINES, or auto.
        texts: how many texts are sampled side by side.
        bf16: as TorchEngine has it.

    Raises:
        CharlmError: the engine is not available, or cannot do what is asked for.
        CheckpointError: the file is damaged.
    """
    reason: NoKernelError | None = None
    for name in choose_engines(engine, device, texts, bf16):
        try:
            return name, _open(path, meta, name, device, bf16)
        except NoKernelError as error:
            reason = error
    raise CharlmError(f"engine={engine}: {reason}; use engine=auto") from reason


def choose_engines(engine: str, device: str, texts: int, bf16: bool = False) -> list[str]:
    """The engines to try, in order: the rule of `auto`, or the one that is named.

    Raises:
        CharlmError: the engine that is named cannot do what is asked for.
    """
    elsewhere = device not in ("auto", "cpu")
    if engine == "auto":
        if elsewhere or bf16:
            return ["torch"]
        return ["native", "torch" if texts >= TORCH_MIN_TEXTS else "numpy"]
    if engine not in ENGINES:
        raise CharlmError(f"engine={engine}: choose auto, {', '.join(ENGINES[:-1])} or torch")
    if engine != "torch" and (elsewhere or bf16):
        wanted = f"on the CPU, not on {device}" if elsewhere else "in fp32, not in bf16"
        raise CharlmError(f"engine={engine}: it computes {wanted}; use engine=torch")
    return [engine]


def _open(path: Path, meta: Meta, engine: str, device: str, bf16: bool) -> Engine:
    if engine != "torch":
        weights = map_weights(path)
        with reading(path):
            network = build_network(meta.config.model, len(meta.vocab), weights)
        return native(network) if engine == "native" else network
    from charlm.checkpoint.weights import load_model
    from charlm.sampling.torch import TorchEngine

    return TorchEngine(load_model(path, meta, device), bf16)
