"""A GPT as a folder that the library `transformers` opens: as a GPT-2 or a Llama, with a tokenizer.

All files are data, JSON and safetensors: transformers needs no code but its own.

Shapes: D n_embd, F width of the MLP, V vocabulary. A matrix of a linear layer is (out, in), but in
transformers' GPT-2, where it is (in, out).
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import Checkpoint
from charlm.config import GPTConfig
from charlm.config.model import POSITION_BASE
from charlm.errors import CharlmError
from charlm.exporting.read import read_exported
from charlm.exporting.tokenizer import tokenizer_files
from charlm.sampling.generate import beginning
from charlm.sampling.numpy.gpt import LAYER_EPS, RMS_EPS

Tensors = dict[str, Tensor]

DTYPES = {"fp16": "float16", "fp32": "float32"}  # the names that PyTorch has for them
# the settings that a GPT must have, by its positions: those of GPT-2, and those of Llama
NEEDED: dict[str, dict[str, Any]] = {
    "learned": {"norm": "layernorm", "mlp": "gelu", "qk_norm": False},
    "rope": {"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": False},
}


def build_folder(checkpoint: Checkpoint, weights: str) -> dict[str, bytes]:
    """The files of a folder for transformers, by name.

    Args:
        weights: the format of the weights in the folder, one of DTYPES.

    Raises:
        CharlmError: transformers has no such model, or its weights are not finite.
    """
    meta = checkpoint.meta
    config = _needed_config(checkpoint)
    files = {
        "config.json": _config(config, len(meta.vocab)) | _start(meta) | {"dtype": DTYPES[weights]},
        "generation_config.json": _generation(meta, config) | _start(meta),
        **tokenizer_files(meta.vocabulary, config.context),
    }
    model = read_exported(checkpoint, weights)
    rename = _as_gpt2 if config.position == "learned" else _as_llama
    tensors = rename(dict(model.named_parameters()), config)
    dtype: torch.dtype = getattr(torch, DTYPES[weights])
    rounded = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    return {
        **{name: json.dumps(content, indent=2).encode() for name, content in files.items()},
        "model.safetensors": save(rounded, metadata={"format": "pt"}),
    }


def _needed_config(checkpoint: Checkpoint) -> GPTConfig:
    """The settings of the network, if transformers has it."""
    config = checkpoint.meta.config.model
    if not isinstance(config, GPTConfig):
        wrong = f"model.kind {config.kind}"
    elif config.position not in NEEDED:
        wrong = f"model.position {config.position}"
    else:
        has = config.model_dump()
        wrong = " and ".join(
            f"model.{key} {str(has[key]).lower()}"
            for key, value in NEEDED[config.position].items()
            if has[key] != value
        )
        if not wrong:
            return config
    raise CharlmError(
        f"{checkpoint.path}: format=hf does not write a model with {wrong}, only a GPT with the "
        "options of GPT-2 (learned, layernorm, gelu) or Llama (rope, rmsnorm, swiglu), without "
        "qk_norm; use format=html or onnx"
    )


def _config(config: GPTConfig, V: int) -> dict[str, Any]:
    shared = {"vocab_size": V, "tie_word_embeddings": config.tie_weights}
    if config.position == "learned":
        return shared | {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_positions": config.context,
            "n_ctx": config.context,  # the same; the converter of llama.cpp reads it
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": config.mlp_width,
            "activation_function": "gelu",  # x Phi(x), and not GPT-2's approximation by tanh
            "layer_norm_epsilon": LAYER_EPS,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        }
    return shared | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": config.context,
        "hidden_size": config.n_embd,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_head,
        "head_dim": config.n_embd // config.n_head,
        "hidden_act": "silu",
        "rms_norm_eps": RMS_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": POSITION_BASE},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "attention_dropout": config.dropout,
    }


def _start(meta: Meta) -> dict[str, int | None]:
    """A text without a prompt starts as that of `charlm sample`. No character ends a text."""
    vocab = meta.vocabulary
    first = int(beginning(vocab, vocab.encode(""))[0])
    return {"bos_token_id": first, "eos_token_id": None, "pad_token_id": None}


def _generation(meta: Meta, config: GPTConfig) -> dict[str, Any]:
    """The defaults of `generate`: those of `charlm sample`. A text ends with the context."""
    sample, half = meta.config.sample, config.context // 2
    if sample.temperature == 0:
        return {"do_sample": False, "max_new_tokens": half}
    return {
        "do_sample": True,
        "max_new_tokens": half,
        "temperature": sample.temperature,
        "top_k": sample.top_k or 0,
        "top_p": sample.top_p or 1.0,
        "min_p": sample.min_p,
    }


# --- the names of the weights -------------------------------------------------------------------


def _as_gpt2(weights: Tensors, config: GPTConfig) -> Tensors:
    """The weights of a transformers.GPT2LMHeadModel; it has all biases, so missing ones are 0."""
    ends = {
        "attention_norm": "ln_1",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.up": "mlp.c_fc",
        "mlp.out": "mlp.c_proj",
    }
    named = {"transformer.wte.weight": weights["embed.weight"]}
    named["transformer.wpe.weight"] = weights["position.table"]
    if not config.tie_weights:
        named["lm_head.weight"] = weights["head.weight"]
    pairs = {"norm": "transformer.ln_f"}
    for i in range(config.n_layer):
        pairs |= {f"blocks.{i}.{ours}": f"transformer.h.{i}.{its}" for ours, its in ends.items()}
    for ours, its in pairs.items():
        weight = weights[f"{ours}.weight"]
        named[f"{its}.weight"] = weight.t()  # (in, out); a norm has one dimension
        bias = weights.get(f"{ours}.bias")
        named[f"{its}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias
    return named


def _as_llama(weights: Tensors, config: GPTConfig) -> Tensors:
    """The weights of a transformers.LlamaForCausalLM, which has separate q, k, v and gate, up."""
    named = {"model.embed_tokens.weight": weights["embed.weight"]}
    named["model.norm.weight"] = weights["norm.weight"]
    if not config.tie_weights:
        named["lm_head.weight"] = weights["head.weight"]
    parts = {
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.out": ("self_attn.o_proj",),
        "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.out": ("mlp.down_proj",),
        "attention_norm": ("input_layernorm",),
        "mlp_norm": ("post_attention_layernorm",),
    }
    for i in range(config.n_layer):
        for ours, its in parts.items():
            for end in ("weight", "bias"):
                whole = weights.get(f"blocks.{i}.{ours}.{end}")
                pieces = () if whole is None else whole.chunk(len(its))
                for name, piece in zip(its, pieces, strict=False):
                    named[f"model.layers.{i}.{name}.{end}"] = piece
    return named
