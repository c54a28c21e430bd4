"""Settings of the network: a recurrent network, a GPT or an MLP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from charlm.config.base import Context, Fraction, Group, Layers, Width

POSITION_BASE = 10_000.0  # of the angles of rope and sinusoidal positions


class RecurrentConfig(Group):
    """Settings of a vanilla RNN, GRU or LSTM."""

    kind: Literal["rnn", "gru", "lstm"] = Field(
        "lstm", description="recurrent cell: vanilla RNN, GRU or LSTM"
    )
    n_layer: Layers = Field(1, description="number of recurrent layers")
    hidden_size: Width = Field(256, description="number of hidden units per layer")
    input: Literal["embedding", "one_hot"] = Field(
        "embedding",
        description="input of the first layer: embedding for a learned vector of hidden_size "
        "numbers per character, one_hot for a one-hot vector",
    )
    dropout: Fraction = Field(
        0.0, description="dropout probability between two layers; needs at least 2 layers"
    )
    input_dropout: Fraction = Field(
        0.0,
        description="dropout probability on the input of the first layer; the same units are "
        "dropped at all positions of a sequence",
    )
    output_dropout: Fraction = Field(
        0.0,
        description="dropout probability on the output of the last layer; the same units are "
        "dropped at all positions of a sequence",
    )
    weight_dropout: Fraction = Field(
        0.0,
        description="dropout probability on the entries of the recurrent matrices (DropConnect), "
        "drawn once per forward pass",
    )
    tie_weights: bool = Field(
        False,
        description="use one matrix for both the embedding and the output layer; needs "
        "model.input embedding",
    )

    @property
    def width(self) -> int:
        """D."""
        return self.hidden_size

    def problems(self) -> Iterator[str]:
        if self.tie_weights and self.input == "one_hot":
            yield (
                "tie_weights: model.input is one_hot, so there is no embedding to share; set "
                "model.input to embedding"
            )
        if self.dropout and self.n_layer == 1:
            yield (
                f"dropout: {self.dropout:g} applies between two layers, but model.n_layer is 1; "
                "set model.output_dropout instead, or add a layer"
            )


class GPTConfig(Group):
    """Settings of a decoder-only transformer."""

    kind: Literal["gpt"] = Field("gpt", description="decoder-only transformer")
    n_layer: Layers = Field(4, description="number of transformer blocks")
    n_head: Width = Field(4, description="number of attention heads per block; must divide n_embd")
    n_embd: Width = Field(128, description="embedding size, which is the width of the model")
    context: Context = Field(
        128, description="maximum number of characters that the model attends to"
    )
    dropout: Fraction = Field(
        0.0,
        description="dropout probability on the embeddings, on the attention weights and on the "
        "outputs of the attention and the MLP of each block",
    )
    position: Literal["learned", "sinusoidal", "rope"] = Field(
        "rope",
        description="position encoding: learned vectors, sinusoidal vectors, or rope for rotary "
        "position embeddings",
    )
    norm: Literal["layernorm", "rmsnorm"] = Field("rmsnorm", description="normalisation layer")
    mlp: Literal["gelu", "relu2", "swiglu"] = Field(
        "relu2", description="nonlinearity of the MLP: GELU, squared ReLU or SwiGLU"
    )
    qk_norm: bool = Field(True, description="normalise queries and keys before the attention")
    bias: bool = Field(
        False, description="add biases to the linear layers of the blocks and to the layer norms"
    )
    tie_weights: bool = Field(
        False, description="use one matrix for both the embedding and the output layer"
    )

    @property
    def width(self) -> int:
        """D."""
        return self.n_embd

    @property
    def mlp_width(self) -> int:
        """F, the number of hidden units of the MLP: 4 D, or 8/3 D for SwiGLU.

        SwiGLU (Shazeer 2020) has a third matrix, so 8/3 D gives about the same number of
        parameters. It is rounded up to a multiple of 8, which is faster.
        """
        return -(-8 * self.n_embd // 3 // 8) * 8 if self.mlp == "swiglu" else 4 * self.n_embd

    def problems(self) -> Iterator[str]:
        width, rest = divmod(self.n_embd, self.n_head)
        if rest:
            valid = self.n_head * max(1, round(self.n_embd / self.n_head))
            yield (
                f"n_embd: {self.n_embd} is not divisible by model.n_head {self.n_head}; {valid} is"
            )
        elif self.position == "rope" and width % 2:
            yield (
                f"n_head: rope needs an even head width, but model.n_embd / model.n_head is {width}"
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            yield f"n_embd: sinusoidal positions need an even number, not {self.n_embd}"


class MLPConfig(Group):
    """Settings of a feed-forward network that sees the last characters side by side."""

    kind: Literal["mlp"] = Field(
        "mlp", description="feed-forward network over the last characters (Bengio et al. 2003)"
    )
    context: Context = Field(
        8, description="number of characters that the network sees: the last one and those before"
    )
    n_layer: Layers = Field(1, description="number of hidden layers")
    hidden_size: Width = Field(256, description="number of hidden units per layer")
    n_embd: Width = Field(
        32, description="size of the embedding of a character; for model.input embedding"
    )
    input: Literal["embedding", "one_hot"] = Field(
        "embedding",
        description="what the first layer reads for each character of the context: embedding for a "
        "learned vector of n_embd numbers, one_hot for a one-hot vector",
    )
    activation: Literal["sigmoid", "tanh", "relu"] = Field(
        "relu", description="nonlinearity of the hidden units"
    )
    dropout: Fraction = Field(0.0, description="dropout probability on the hidden units")

    @property
    def width(self) -> int:
        """D."""
        return self.hidden_size

    def input_width(self, vocab_size: int) -> int:
        """The numbers that the first layer reads, for all characters of the context together."""
        return self.context * (vocab_size if self.input == "one_hot" else self.n_embd)


ModelConfig = Annotated[RecurrentConfig | GPTConfig | MLPConfig, Field(discriminator="kind")]
