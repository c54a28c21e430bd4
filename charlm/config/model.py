"""Settings of the network: a recurrent one or a GPT."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from charlm.config.base import AtLeastTwo, Count, Fraction, Group, refuse


class RecurrentConfig(Group):
    """A vanilla RNN, a GRU or an LSTM."""

    kind: Literal["rnn", "gru", "lstm"] = Field("lstm", description="the cell")
    n_layer: Count = Field(1, description="recurrent layers, one on top of the other")
    hidden_size: Count = Field(256, description="units a layer")
    input: Literal["embedding", "one_hot"] = Field(
        "embedding",
        description="what the first layer reads: a learned vector of hidden_size a character, or "
        "one input a character",
    )
    dropout: Fraction = Field(0.0, description="probability, between layers")
    input_dropout: Fraction = Field(
        0.0,
        description="probability, on the first layer's input, the same units in a whole sequence",
    )
    output_dropout: Fraction = Field(
        0.0,
        description="probability, on the last layer's output, the same units in a whole sequence",
    )
    weight_dropout: Fraction = Field(
        0.0, description="probability, on the numbers of the recurrent matrices, anew every step"
    )
    tie_weights: bool = Field(False, description="one matrix serves as embedding and output layer")

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(
            "tie_weights: there is no embedding to share with model.input one_hot; set "
            "model.input to embedding"
            if self.tie_weights and self.input == "one_hot"
            else None,
            f"dropout: {self.dropout:g} works between layers and model.n_layer is 1; add a layer, "
            "or set model.output_dropout"
            if self.dropout and self.n_layer == 1
            else None,
        )
        return self


class GPTConfig(Group):
    """A decoder-only transformer."""

    kind: Literal["gpt"] = Field("gpt", description="the architecture")
    n_layer: Count = Field(4, description="blocks of attention and MLP")
    n_head: Count = Field(4, description="attention heads a block; divides n_embd")
    n_embd: Count = Field(128, description="model width")
    context: AtLeastTwo = Field(128, description="the most characters the model looks at")
    dropout: Fraction = Field(
        0.0, description="probability, on the embedding, the attention and each block's outputs"
    )
    position: Literal["learned", "sinusoidal", "rope"] = Field(
        "rope", description="how the model knows where a character stands"
    )
    norm: Literal["layernorm", "rmsnorm"] = Field("rmsnorm", description="the normalisation")
    mlp: Literal["gelu", "relu2", "swiglu"] = Field("relu2", description="the MLP's nonlinearity")
    qk_norm: bool = Field(True, description="normalise queries and keys")
    bias: bool = Field(False, description="biases in linear layers and layer norms")
    tie_weights: bool = Field(False, description="one matrix serves as embedding and output layer")

    @property
    def mlp_width(self) -> int:
        """Units in the middle of the MLP: 4 D, or for SwiGLU (Shazeer 2020), which has a third
        matrix, 8/3 D rounded up to a multiple of 8, for the hardware."""
        return -(-8 * self.n_embd // 3 // 8) * 8 if self.mlp == "swiglu" else 4 * self.n_embd

    @model_validator(mode="after")
    def _check(self) -> Self:
        divides = self.n_embd % self.n_head == 0
        width = self.n_embd // self.n_head
        refuse(
            None
            if divides
            else f"n_embd: {self.n_embd} is not divisible by model.n_head {self.n_head}; "
            f"{self.n_head * max(1, round(self.n_embd / self.n_head))} is",
            f"n_head: rope needs an even head width, and n_embd / n_head is {width}"
            if divides and self.position == "rope" and width % 2
            else None,
            f"n_embd: sinusoidal positions need an even width, not {self.n_embd}"
            if self.position == "sinusoidal" and self.n_embd % 2
            else None,
        )
        return self


ModelConfig = Annotated[RecurrentConfig | GPTConfig, Field(discriminator="kind")]
