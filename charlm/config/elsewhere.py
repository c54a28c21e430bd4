"""What settings are called in other programs."""

from __future__ import annotations

import difflib

from charlm.config.reference import settings

# nanoGPT, char-rnn, Keras, PyTorch's examples, Hugging Face's Trainer
NAMES_ELSEWHERE = {
    "dataset": "data.path",
    "data_dir": "data.path",
    "train_frac": "data.val_fraction",
    "val_frac": "data.val_fraction",
    "validation_split": "data.val_fraction",
    "model_type": "model.kind",
    "rnn_type": "model.kind",
    "rnn_size": "model.hidden_size",
    "width": "model.hidden_size",
    "hidden_dim": "model.hidden_size",
    "units": "model.hidden_size",
    "nhid": "model.hidden_size",
    "num_layers": "model.n_layer",
    "nlayers": "model.n_layer",
    "num_heads": "model.n_head",
    "nhead": "model.n_head",
    "heads": "model.n_head",
    "d_model": "model.n_embd",
    "block_size": "model.context",
    "context_length": "model.context",
    "n_positions": "model.context",
    "recurrent_dropout": "model.weight_dropout",
    "tied": "model.tie_weights",
    "seq_length": "train.seq_len",
    "maxlen": "train.seq_len",
    "bptt": "train.seq_len",
    "batch": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.grad_accum",
    "clipnorm": "train.grad_clip",
    "clip": "train.grad_clip",
    "max_grad_norm": "train.grad_clip",
    "max_iters": "train.max_steps",
    "iterations": "train.max_steps",
    "lr_decay_iters": "train.max_steps",
    "steps": "train.max_steps",
    "epochs": "train.max_epochs",
    "num_train_epochs": "train.max_epochs",
    "learning_rate": "train.optimizer.lr",
    "optim": "train.optimizer.kind",
    "optimizer": "train.optimizer.kind",
    "rho": "train.optimizer.alpha",
    "decay_rate": "train.optimizer.alpha",
    "beta1": "train.optimizer.betas",
    "beta2": "train.optimizer.betas",
    "epsilon": "train.optimizer.eps",
    "lr_scheduler_type": "train.schedule.kind",
    "decay_lr": "train.schedule.kind",
    "warmup_iters": "train.schedule.warmup_steps",
    "min_lr": "train.schedule.min_lr_ratio",
    "learning_rate_decay": "train.schedule.decay",
    "learning_rate_decay_after": "train.schedule.decay_after",
    "dtype": "train.precision",
    "log_interval": "train.log_every",
    "logging_steps": "train.log_every",
    "print_every": "train.log_every",
    "save_steps": "train.save_every",
    "save_total_limit": "train.keep_last",
    "eval_interval": "eval.every",
    "eval_val_every": "eval.every",
    "eval_steps": "eval.every",
    "eval_iters": "eval.n_windows",
    "primetext": "sample.prompt",
    "start": "sample.prompt",
    "max_new_tokens": "sample.length",
    "diversity": "sample.temperature",
}


def setting_named(name: str) -> str | None:
    """The setting that a name of another program, or the last part of a dotted name, stands for.

    A group, such as `model`, stands for its `kind`. None if there is none, not even one with a
    similar name.
    """
    leaves: dict[str, str] = {}
    for setting in settings():
        leaves.setdefault(setting.key, setting.key)
        group, _, last = setting.key.rpartition(".")
        leaves.setdefault(last, setting.key)
        if last == "kind":
            leaves.setdefault(group.rpartition(".")[2], setting.key)
    names = leaves | {each: key for each, key in NAMES_ELSEWHERE.items() if each not in leaves}
    close = difflib.get_close_matches(name, names, 1, cutoff=0.8)
    return names.get(name) or (names[close[0]] if close else None)
