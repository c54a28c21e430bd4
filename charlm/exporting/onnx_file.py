"""A model as an ONNX file: one step, from ids and a state to logits and the state after them.

Shapes: B batch, T time (characters), V vocabulary; see `state_names` for the state. B, T and the
number of characters in the state of a GPT are free. The metadata of the file has what is needed to
use it without charlm: the vocabulary, the context and the settings of the network.

The exporter is PyTorch's older one (`dynamo=False`). The newer one fixes T: it writes an RNN as a
loop of T steps, and takes T for a constant in a GRU and an LSTM.
"""

from __future__ import annotations

import importlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import Checkpoint
from charlm.config import GPTConfig, MLPConfig
from charlm.config.shapes import count_weights
from charlm.errors import CharlmError
from charlm.exporting.read import read_exported
from charlm.models import CharModel, State
from charlm.sampling.generate import beginning
from charlm.sampling.numpy.gpt import RMS_EPS
from charlm.units import WEIGHT_BYTES
from charlm.version import __version__
from charlm.visible import visible

OPSET = 18  # of 2022, which programs for phones and browsers have, too
MAX_BYTES = 2_000_000_000  # of a file, by the format
TRIED = (3, 8)  # (B, T) of the texts that a file is checked with
TOLERANCE = 1e-4  # of a logit, relative to the largest one if that is above 1


def build_onnx(checkpoint: Checkpoint, weights: str) -> tuple[bytes, float]:
    """The ONNX file of a model, checked with onnxruntime.

    Args:
        weights: the format of the weights in the file, `fp32` or `fp16`. With fp16, matrices are
            stored as float16, and computed with as float32.

    Returns:
        The file, and the largest difference of a logit from the model.

    Raises:
        CharlmError: onnx or onnxruntime is missing, the model is too large for the format, its
            weights are not finite, or onnxruntime computes other logits.
    """
    onnx = _needed("onnx")
    _needed("onnxruntime")
    meta = checkpoint.meta
    size = WEIGHT_BYTES[weights] * count_weights(meta.config.model, len(meta.vocab))
    if size > MAX_BYTES:
        raise CharlmError(
            f"{checkpoint.path}: its weights in {weights} have {size / 1e9:.1f} GB, and an ONNX "
            f"file at most {MAX_BYTES / 1e9:.0f} GB"
        )
    model = read_exported(checkpoint, weights)
    proto = onnx.load_from_string(_exported(model))
    if weights == "fp16":
        _store_as_half(onnx, proto.graph)
    proto.producer_name, proto.producer_version = "charlm", __version__
    onnx.helper.set_model_props(proto, _about(meta))
    content: bytes = proto.SerializeToString()
    return content, _difference(content, model)


def state_names(model: CharModel) -> list[str]:
    """The names of the parts of a state.

    They are `h`, and for an LSTM `h` and `c`, each (L, B, D); for an MLP
    `before`, the ids of the last N - 1 characters, (1, B, N-1) int64; and for a GPT the keys and
    values of its blocks, `k_1`, `v_1`, ..., each (B, H, N, K), where N is the number of characters
    read.
    """
    if isinstance(model.config, GPTConfig):
        return [f"{part}_{i + 1}" for i in range(model.config.n_layer) for part in "kv"]
    if isinstance(model.config, MLPConfig):
        return ["before"]
    return ["h", "c"] if model.config.kind == "lstm" else ["h"]


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CharlmError(
            f"format=onnx needs the package {name}; get it with the extra `export` of charlm: pip "
            "install '.[export]' -c constraints.txt"
        ) from error


def _about(meta: Meta) -> dict[str, str]:
    """The metadata of the file, as JSON. It names neither the text nor folders of its author."""
    vocab = meta.vocabulary
    model = meta.config.model
    values = {
        "name": visible(meta.config.name),
        "vocab": vocab.chars,
        "unit": vocab.unit,
        "limited": vocab.limited,
        "context": model.context if isinstance(model, GPTConfig) else None,
        "beginning": vocab.chars[int(beginning(vocab, vocab.encode(""))[0])],
        "model": model.model_dump(),
    }
    return {f"charlm.{key}": json.dumps(value) for key, value in values.items()}


# --- the graph ----------------------------------------------------------------------------------


class _Step(nn.Module):
    def __init__(self, model: CharModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *state: Tensor) -> State:
        logits, after = self.model(ids, state)
        return logits, *after


def _exported(model: CharModel) -> bytes:
    """The file as PyTorch writes it."""
    names = state_names(model)
    after = [f"{name}_after" for name in names]
    is_gpt = isinstance(model.config, GPTConfig)
    axes: dict[str, dict[int, str]] = {
        "ids": {0: "batch", 1: "time"},
        "logits": {0: "batch", 1: "time"},
    }
    axes |= dict.fromkeys(names, {0: "batch", 2: "past"} if is_gpt else {1: "batch"})
    axes |= dict.fromkeys(after, {0: "batch", 2: "total"} if is_gpt else {1: "batch"})
    file = io.BytesIO()
    with _rms_norm_known(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, and that it traces
        torch.onnx.export(
            _Step(model).eval(),
            # with T = 1, the trace of a GPT would have no mask
            (_some_ids(model, 2, 2), *_zero_state(model, 2)),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            dynamic_axes=axes,
            input_names=["ids", *names],
            output_names=["logits", *after],
        )
    return file.getvalue()


@contextmanager
def _rms_norm_known() -> Iterator[None]:
    """Teach the exporter x / sqrt(mean x^2 + eps) * weight, which it lacks."""

    def rms_norm(graph: Any, x: Any, shape: Any, weight: Any, eps: Any) -> Any:  # noqa: ARG001
        def constant(value: Any) -> Any:
            return graph.op("Constant", value_t=torch.tensor(value))

        square = graph.op("ReduceMean", graph.op("Mul", x, x), constant([-1]), keepdims_i=1)
        root = graph.op("Sqrt", graph.op("Add", square, constant(RMS_EPS)))
        y = graph.op("Div", x, root)
        return y if weight.node().mustBeNone() else graph.op("Mul", y, weight)

    onnx: Any = torch.onnx  # which lists few of its functions
    onnx.register_custom_op_symbolic("aten::rms_norm", rms_norm, OPSET)
    try:
        yield
    finally:
        onnx.unregister_custom_op_symbolic("aten::rms_norm", OPSET)


def _store_as_half(onnx: Any, graph: Any) -> None:
    """Store each array that float16 can have exactly as such, and convert it when it is used."""
    for stored in list(graph.initializer):
        array = onnx.numpy_helper.to_array(stored)
        half = array.astype(np.float16) if array.dtype == np.float32 else array
        if half.dtype == array.dtype or not np.array_equal(half, array):
            continue
        name = stored.name
        stored.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        to = onnx.TensorProto.FLOAT
        graph.node.insert(0, onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=to))


def _zero_state(model: CharModel, B: int) -> State:
    """The state of B texts at their start. A GPT has no keys and values then."""
    _, state = model(_some_ids(model, B, 1))
    is_gpt = isinstance(model.config, GPTConfig)
    return tuple(torch.zeros_like(part[:, :, :0] if is_gpt else part) for part in state)


def _some_ids(model: CharModel, B: int, T: int) -> Tensor:
    return torch.randint(model.vocab_size, (B, T), generator=torch.Generator().manual_seed(0))


# --- the check ----------------------------------------------------------------------------------


def _difference(content: bytes, model: CharModel) -> float:
    """The largest difference of a logit that onnxruntime computes, for texts read in two pieces.

    Raises:
        CharlmError: it is above the tolerance.
    """
    session = importlib.import_module("onnxruntime").InferenceSession(content)
    B, T = TRIED[0], min(TRIED[1], model.context or TRIED[1])
    ids, logits = _some_ids(model, B, T), []
    state = [part.numpy() for part in _zero_state(model, B)]
    for piece in ids.tensor_split([1], dim=1):
        given = dict(zip(state_names(model), state, strict=True))
        new, *state = session.run(None, {"ids": piece.numpy()} | given)
        logits.append(torch.from_numpy(new))
    exact = model(ids)[0]
    error = float((torch.cat(logits, dim=1) - exact).abs().max())
    if error <= TOLERANCE * max(1.0, float(exact.abs().max())):
        return error
    raise CharlmError(
        f"this version of PyTorch ({torch.__version__}) exports this model wrongly: a logit "
        f"differs by {error:.2g}"
    )
