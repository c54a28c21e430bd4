"""The parts of a network with their sizes, for a drawing; and a map of its character embeddings.

Shapes: V vocabulary, D width, L layers, H heads, K width of a head, F width of an MLP, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from charlm.config import MLPConfig, RecurrentConfig
from charlm.errors import BrokenModelError
from charlm.insight.record import Array
from charlm.insight.surprisal import char_class
from charlm.models import GPT, MLP, CharModel, Recurrent

_CELLS = {"rnn": ("RNN", "no gates"), "gru": ("GRU", "2 gates"), "lstm": ("LSTM", "3 gates")}
_MLPS = {"gelu": "GELU", "relu2": "squared ReLU", "swiglu": "SwiGLU"}


@dataclass(frozen=True)
class Part:
    """One part of a network, or several equal parts.

    Attributes:
        kind: input, embedding, one-hot, layer (with a state), hidden, attention, mlp, norm or head.
        name: for the drawing.
        detail: what it contains, with sizes.
        size: the number of values that it passes on for each character.
        parameters: of all `times` parts together. A matrix that two parts share counts once.
        times: the number of equal parts in sequence.
    """

    kind: str
    name: str
    detail: str
    size: int
    parameters: int
    times: int = 1


@dataclass(frozen=True)
class EmbeddingMap:
    """The characters of the vocabulary on a plane: the first two principal components.

    Attributes:
        xy: (V, 2).
        shares: (2,), the share of the variance on each axis.
        source: what the vectors are.
        classes: (V,), the class of each character.
    """

    xy: Array
    shares: Array
    source: str
    classes: tuple[str, ...]


def parts_of(model: CharModel) -> list[Part]:
    """The parts of a network, from the input to the output."""
    config, V = model.config, model.vocab_size
    first = Part("input", "character", f"one of {V:,} characters", 1, 0)
    match model:
        case GPT():
            middle = _gpt(model)
        case Recurrent():
            middle = _recurrent(model)
        case MLP():
            N = model.config.context
            first = Part("input", f"the last {N:,} characters", f"each one of {V:,}", N, 0)
            middle = _mlp(model)
    counted = sum(part.parameters for part in middle)
    rest = _count(model) - counted  # the output layer; 0 if it shares the embedding's matrix
    tied = not isinstance(config, MLPConfig) and config.tie_weights
    head = "matrix of the embedding" if tied else "linear layer"
    detail = f"{head}, softmax over {V:,}"
    return [first, *middle, Part("head", "output: the next character", detail, V, rest)]


def _recurrent(model: Recurrent) -> list[Part]:
    config = model.config
    assert isinstance(config, RecurrentConfig)
    D, V = config.hidden_size, model.vocab_size
    name, gates = _CELLS[config.kind]
    one_hot = config.input == "one_hot"
    embedding = (
        Part("one-hot", "one-hot vector", f"{V:,} numbers: one 1, the others 0", V, 0)
        if one_hot
        else Part("embedding", "embedding", f"{D:,} numbers", D, _count(model.embed))
    )
    units = f"{D:,} {'cells' if config.kind == 'lstm' else 'hidden units'}, {gates}"
    sizes = [
        sum(p.numel() for key, p in model.rnn.named_parameters() if key.endswith(f"_l{layer}"))
        for layer in range(config.n_layer)
    ]
    return [embedding, *_layers("layer", name, units, D, sizes)]


def _layers(kind: str, name: str, detail: str, size: int, parameters: list[int]) -> list[Part]:
    """The layers of a network with these numbers of parameters; equal layers are one part."""
    parts, start = [], 0
    for layer in range(1, len(parameters) + 1):
        if layer == len(parameters) or parameters[layer] != parameters[start]:
            title = f"{name} layer {start + 1}" + f" to {layer}" * (layer > start + 1)
            total = sum(parameters[start:layer])
            parts.append(Part(kind, title, detail, size, total, layer - start))
            start = layer
    return parts


def _mlp(model: MLP) -> list[Part]:
    config, D = model.config, model.config.hidden_size
    inputs = config.input_width(model.vocab_size)
    detail = f"{config.context:,} vectors of {inputs // config.context:,}, side by side"
    embedding = (
        Part("one-hot", "one-hot vectors", detail, inputs, 0)
        if model.embed is None
        else Part("embedding", "embeddings", detail, inputs, _count(model.embed))
    )
    units = f"{D:,} units, {config.activation}"
    return [embedding, *_layers("hidden", "hidden", units, D, list(map(_count, model.layers)))]


def _gpt(model: GPT) -> list[Part]:
    config = model.config
    D, H, L = config.n_embd, config.n_head, config.n_layer
    positions = {"learned": "learned", "sinusoidal": "sinusoidal", "rope": "rotary"}
    attention, mlp = (
        sum(_count(getattr(b, name)) + _count(getattr(b, f"{name}_norm")) for b in model.blocks)
        for name in ("attention", "mlp")
    )
    return [
        Part(
            "embedding",
            "embedding",
            f"{D:,} numbers, {positions[config.position]} positions",
            D,
            _count(model.embed) + _count(model.position),
        ),
        Part("attention", "attention", f"{H} heads of {D // H}", D, attention, L),
        Part("mlp", "MLP", f"{config.mlp_width:,} units, {_MLPS[config.mlp]}", D, mlp, L),
        Part("norm", "normalization", f"{D:,} numbers", D, _count(model.norm)),
    ]


def _count(module: nn.Module | None) -> int:
    """The number of parameters of a module; shared ones once."""
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def embedding_map(model: CharModel, vocab: str) -> EmbeddingMap:
    """The character embeddings (V, D) on their first two principal components.

    Without an embedding, the vectors are columns of the first matrix: of W_ih, (V, G*D), what a
    character adds to the gates; or of an MLP, (V, D), what the last character adds to the units.

    Raises:
        BrokenModelError: a vector is not finite, also one of a character that no text has.
    """
    vectors, source = _vectors(model)
    if not np.isfinite(vectors).all():
        raise BrokenModelError
    centred = vectors - vectors.mean(0)
    U, S, _ = np.linalg.svd(centred, full_matrices=False)
    xy = np.zeros((len(vectors), 2))
    shares = np.zeros(2)
    n = min(2, len(S))
    xy[:, :n] = U[:, :n] * S[:n]
    shares[:n] = S[:n] ** 2 / max(float((S**2).sum()), 1e-30)
    largest = xy[np.abs(xy).argmax(0), [0, 1]]  # is made positive
    flip = np.where(largest < 0, -1.0, 1.0)
    return EmbeddingMap(xy * flip, shares, source, tuple(map(char_class, vocab)))


def _vectors(model: CharModel) -> tuple[Array, str]:
    """One vector for each character (V, D or G*D), and what they are."""
    assert isinstance(model, GPT | MLP | Recurrent)
    if model.embed is not None:
        weight, source = model.embed.weight, "the embedding"
    elif isinstance(model, MLP):
        weight = model.layers[0].weight[:, -model.vocab_size :].t()  # (V, D)
        source = "the columns of the first matrix for the last character"
    else:
        weight, source = model.rnn.weight_ih_l0.t(), "the columns of W_ih of layer 1"
    return weight.detach().double().cpu().numpy(), source
