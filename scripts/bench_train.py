#!/usr/bin/env python3
"""How fast charlm trains, compared with other code on the same machine, in the same run.

    scripts/bench train [--nanogpt DIR] [--data FILE] [--repeats 9] [--quick] [--json] [WHAT ...]

step      a whole step of an LSTM, a GRU and an RNN with Muon, beside nn.LSTM, ..., Muon, AdamW and
          clipping by PyTorch, layers and Muon each in the faster of bfloat16 and float32
sizes     the LSTMs for which Lua programs published speeds, beside the same in PyTorch's layers
gpt       a step of nanoGPT's recipe for a CPU, beside its own code, or, without --nanogpt, beside
          PyTorch's layers in float32
overhead  a training run, with its batches, logs and checkpoints, beside its bare steps
time      with --nanogpt: the loss of its own code after its whole run, and of ours after a tenth
          and a sixth of that time, and of the settings that --minutes chooses for a tenth; on
          8,000 windows of 64 characters
recipes   charlm's configs beside those of char-rnn and nanoGPT's CPU recipe, in --seconds each

DIR is a checkout of nanoGPT; its code runs unchanged, in a copy. Ratios are their time over ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comparing import Comparison, in_turn, report, show
from torch import Tensor, nn

from charlm.config import EvalConfig
from charlm.config.files import load_config, parse_config
from charlm.data.batches import make_batches
from charlm.data.corpus import open_corpus
from charlm.evaluation.evaluate import evaluate
from charlm.models import build_model
from charlm.training import session
from charlm.training.choose import choose_compute
from charlm.training.prepare import prepare
from charlm.training.request import Request
from charlm.training.step import Stepper

ROOT = Path(__file__).resolve().parent.parent
V = 65  # the vocabulary of tinyshakespeare
QUIET = ["eval.every=null", "eval.sample_every=null"]
Step = Callable[[], float]
SMALL = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12"
)
SMALL += " --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("what", nargs="*", metavar="WHAT", help="all by default")
    options.add_argument("--nanogpt", type=Path, metavar="DIR")
    options.add_argument("--data", type=Path, nargs="+", metavar="FILE")
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--quick", action="store_true", help="small and short, to see it work")
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    parts = {"step": steps, "sizes": sizes, "gpt": gpt, "overhead": overhead}
    tables = {"time": seconds_to_loss, "recipes": recipes}
    if unknown := set(asked.what) - {*parts, *tables}:
        options.error(f"{', '.join(unknown)}: not among {', '.join([*parts, *tables])}")
    results = [
        result
        for name, part in parts.items()
        if not asked.what or name in asked.what
        for result in part(asked)
    ]
    if results:
        report(results, asked.json)
    for name, table in tables.items():
        if name in asked.what or not (asked.what or asked.quick):
            show(table(asked))


# --- steps -------------------------------------------------------------------------------------


def batches_of(B: int, T: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that returns new inputs and targets (B, T) at each call."""
    ids = torch.randint(0, V, (400_000,), generator=torch.Generator().manual_seed(1))
    place = iter(range(0, 10**9, 1009))

    def batch() -> tuple[Tensor, Tensor]:
        start = next(place) % (len(ids) - B * T - 1)
        text = ids[start : start + B * T + 1]
        return text[:-1].view(B, T), text[1:].view(B, T)

    return batch


def our_step(model: dict[str, Any], train: dict[str, Any], B: int, T: int) -> Step:
    """A step of charlm, as a training run takes it."""
    raw = {"name": "bench", "data": {"path": "-"}, "model": model}
    raw["train"] = {"batch_size": B, "max_steps": 10**6} | train
    if model["kind"] != "gpt":
        raw["train"]["seq_len"] = T
    config = parse_config(raw)
    network, carries = build_model(config.model, V, seed=1), model["kind"] != "gpt"
    compute = choose_compute(config.train, network, "cpu")
    stepper, batch = Stepper(network, config.train, compute, carries), batches_of(B, T)
    return lambda: stepper.step(*batch(), 1.0).loss


def obvious_step(model: dict[str, Any], muon: bool, B: int, T: int) -> Step:
    """The same step with PyTorch's layers and optimizers, written in the obvious way."""
    H = model["hidden_size"]
    rnn = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[model["kind"]](H, H, model["n_layer"])
    embed, head = nn.Embedding(V, H), nn.Linear(H, V)
    everything = nn.ModuleList([embed, rnn, head])
    hidden = [p for p in rnn.parameters() if p.ndim == 2]
    rest = [p for p in everything.parameters() if not any(p is q for q in hidden)]
    precision, muon_precision = better_precisions(model, B, T)
    muons = {"bf16": torch.optim.Muon, "fp32": Float32Muon}
    optimizers: list[torch.optim.Optimizer] = (
        [muons[muon_precision](hidden, lr=0.02), torch.optim.AdamW(rest, lr=4e-3)]
        if muon
        else [torch.optim.RMSprop(everything.parameters(), lr=2e-3, alpha=0.95)]
    )
    state, batch = None, batches_of(B, T)

    def step() -> float:
        nonlocal state
        x, y = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            hs, after = rnn(embed(x.t()), state)
            logits = head(hs)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.t().flatten())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(everything.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state = tuple(it.detach() for it in after) if type(after) is tuple else after.detach()
        return loss.item()

    return step


def better_precisions(model: dict[str, Any], B: int, T: int) -> tuple[str, str]:
    """The precisions in which PyTorch is faster on this CPU: for the layers, and for Muon."""
    train = {"batch_size": B, "seq_len": T, "kernels": "off", "optimizer": {"kind": "muon"}}
    config = parse_config({"name": "bench", "data": {"path": "-"}, "model": model, "train": train})
    compute = choose_compute(config.train, build_model(config.model, V, seed=1), "cpu")
    return compute.precision, compute.muon


class Float32Muon(torch.optim.Muon):
    """torch.optim.Muon in float32: PyTorch's own computes its products in bfloat16 always."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for W in group["params"]:
                average = self.state[W].setdefault("momentum_buffer", torch.zeros_like(W))
                average.lerp_(W.grad, 1 - group["momentum"])
                X = W.grad.lerp(average, group["momentum"])
                if tall := len(X) > X.shape[1]:
                    X = X.T
                X = X / X.norm()
                a, b, c = group["ns_coefficients"]
                for _ in range(group["ns_steps"]):
                    G = X @ X.T
                    X = torch.addmm(X, torch.addmm(G, G, G, beta=b, alpha=c), X, beta=a)
                rate = group["lr"] * max(1, len(W) / W.shape[1]) ** 0.5
                W.mul_(1 - group["lr"] * group["weight_decay"])
                W.add_(X.T if tall else X, alpha=-rate)


def seconds(step: Step, times: int) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        for _ in range(times):
            step()
        return time.perf_counter() - started

    return run


def recurrent_steps(
    asked: argparse.Namespace, shapes: list[tuple[str, int, int]], B: int, T: int, muon: bool
) -> Iterator[Comparison]:
    """Steps of networks of (kind, layers, width), compared with the obvious steps."""
    optimizer, called = ("muon", "Muon") if muon else ("rmsprop", "RMSProp")
    for kind, n_layer, width in shapes:
        times = 2 if asked.quick or n_layer * width > 1000 else 10
        model = {"kind": kind, "n_layer": n_layer, "hidden_size": width}
        ours = our_step(model, {"optimizer": {"kind": optimizer}}, B, T)
        theirs = obvious_step(model, muon, B, T)
        name = f"step, {kind} {n_layer}x{width}, {called}, batch {B} of {T}"
        pair = seconds(ours, times), seconds(theirs, times)
        yield in_turn(name, *pair, asked.repeats, B * T * times, "chars")


def steps(asked: argparse.Namespace) -> Iterator[Comparison]:
    shapes = [("lstm", 1, 512), ("lstm", 2, 256), ("gru", 1, 256), ("rnn", 1, 256)]
    shapes = [(kind, 1, 64) for kind, _, _ in shapes[1:]] if asked.quick else shapes
    yield from recurrent_steps(asked, shapes, 32, 64, True)


def sizes(asked: argparse.Namespace) -> Iterator[Comparison]:
    shapes = [("lstm", 2, 64)] if asked.quick else [("lstm", 2, 128), ("lstm", 3, 512)]
    yield from recurrent_steps(asked, shapes, 50, 50, False)


def gpt(asked: argparse.Namespace) -> Iterator[Comparison]:
    """nanoGPT's architecture and optimizer, then our own recipe, on the same batch."""
    B, T, times = 12, 64, 2 if asked.quick else 20
    size = {"kind": "gpt", "n_layer": 4, "n_head": 4, "n_embd": 128, "context": T}
    same = size | {"position": "learned", "norm": "layernorm", "mlp": "gelu"}
    same |= {"qk_norm": False, "tie_weights": True}
    adamw = {"optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1}}
    if asked.nanogpt:
        theirs, whose = nanogpt_step(asked.nanogpt, B, T), "nanoGPT's own code"
    else:
        plain = {"precision": "fp32", "kernels": "off"}
        theirs, whose = our_step(same, adamw | plain, B, T), "PyTorch's layers, fp32"
    for name, ours in (
        ("its architecture", our_step(same, adamw, B, T)),
        ("our recipe", our_step(size, {"optimizer": {"kind": "muon"}}, B, T)),
    ):
        pair = seconds(ours, times), seconds(theirs, times)
        title = f"step of a GPT 4x128, batch {B} of {T}, {name}, beside {whose}"
        yield in_turn(title, *pair, asked.repeats, B * T * times, "chars")


def nanogpt_step(folder: Path, B: int, T: int) -> Step:
    """A step as nanoGPT's train.py takes it on a CPU."""
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    shape = {"block_size": T, "vocab_size": V, "n_layer": 4, "n_head": 4, "n_embd": 128}
    model, batch = GPT(GPTConfig(**shape, dropout=0.0, bias=False)), batches_of(B, T)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

    def step() -> float:
        _, loss = model(*batch())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def overhead(asked: argparse.Namespace) -> Iterator[Comparison]:
    """The bare steps are `theirs`: the ratio is the share of a run that its steps take."""
    n, names = 300, ("quickstart", "shakespeare-lstm", "shakespeare-gpt")
    if asked.quick:
        n, names = 5, ("quickstart",)
    for name in names:
        config = load_config(
            ROOT / "configs" / f"{name}.yaml",
            [f"train.max_steps={n}", "train.schedule.warmup_steps=2", "eval.max_chars=100", *QUIET],
            None,
            {"path": [str(path) for path in asked.data]}
            if asked.data
            else {"path": "builtin:python"},
        )
        corpus = open_corpus(config.data)

        def whole(config: Any = config) -> float:
            with tempfile.TemporaryDirectory() as out:
                ready = session.start(config, Path(out), "cpu")
                trainer = ready.trainer([], lambda: False)
                started = time.perf_counter()
                trainer.train()
                return time.perf_counter() - started

        def bare(config: Any = config, corpus: Any = corpus) -> float:
            model = build_model(config.model, len(corpus.vocab), seed=1)
            compute = choose_compute(config.train, model, "cpu")
            carries = model.context is None
            stepper = Stepper(model, config.train, compute, carries)
            source = make_batches(corpus.split("train"), config.train, compute.device)
            texts = [source.batch(i) for i in range(n)]
            started = time.perf_counter()
            for x, y in texts:
                stepper.step(x, y, 1.0)
            return time.perf_counter() - started

        repeats = max(1, asked.repeats // 3)
        yield in_turn(f"{n} steps of {name}, bare / as a run", whole, bare, repeats, n, "steps")


# --- losses ------------------------------------------------------------------------------------


def trained(
    config: str, data: list[str], overrides: list[str], window: int, n_windows: int
) -> dict[str, float]:
    """Train, then evaluate by the protocols `windows` and `stream`."""
    settings = [*overrides, *QUIET]
    config = load_config(ROOT / "configs" / f"{config}.yaml", settings, None, {"path": data})
    with tempfile.TemporaryDirectory() as out:
        ready = session.start(config, Path(out), "cpu")
        ready.trainer([], lambda: False).train()
        return scores_of(ready, window, n_windows)


def trained_by_default(data: list[str], seconds: float, seed: int) -> dict[str, float]:
    """Train as `charlm train DATA --minutes` does, with everything in this time; then evaluate."""
    started, overrides = time.monotonic(), (f"train.seed={seed}",)
    with tempfile.TemporaryDirectory() as out:
        request = Request(None, tuple(data), seconds / 60, overrides, out=Path(out), device="cpu")
        with prepare(request, lambda _: None) as ready:
            ready.trainer([], lambda: False, started=started).train()
            return scores_of(ready, 64, 8000) | {"seconds": ready.run.progress.wall_s}


def scores_of(ready: session.Session, window: int, n_windows: int) -> dict[str, float]:
    """The time, the steps and the loss of a run, by the protocols `windows` and `stream`."""
    text = ready.run.corpus.split("val")
    scores = {
        protocol: evaluate(
            ready.model,
            text,
            EvalConfig(protocol=protocol, window=window, n_windows=n_windows),
            seed=1,
        ).nats_per_char
        for protocol in ("windows", "stream")
    }
    return {"seconds": ready.run.progress.elapsed_s, "steps": ready.run.progress.step} | scores


def row(name: str, text: str, seed: object, result: dict[str, float]) -> dict[str, object]:
    return {
        "recipe": name,
        "text": text,
        "seed": seed,
        "training s": f"{result['seconds']:.1f}",
        "steps": f"{result['steps']:,.0f}",
        "windows": f"{result['windows']:.4f}",
        "stream": f"{result['stream']:.4f}",
    }


def seconds_to_loss(asked: argparse.Namespace) -> Iterator[dict[str, object]]:
    """nanoGPT's whole run, then ours in a tenth and a sixth of its time, for each seed."""
    if not asked.nanogpt or not asked.data:
        return
    data = [str(path) for path in asked.data]
    for seed in range(1, asked.seeds + 1):
        theirs = nanogpt_run(asked.nanogpt, asked.data[0], seed)
        yield row("nanoGPT's own code, whole run", asked.data[0].name, seed, theirs)
        for config, share in (("shakespeare-gpt", 10), ("shakespeare-gpt", 6)):
            limits = [f"train.max_seconds={theirs['seconds'] / share}", "train.max_steps=null"]
            result = trained(config, data, [*limits, f"train.seed={seed}"], 64, 8000)
            yield row(f"{config}, 1/{share} of that", asked.data[0].name, seed, result)
        result = trained_by_default(data, theirs["seconds"] / 10, seed)
        yield row("chosen settings, 1/10 of that", asked.data[0].name, seed, result)


def nanogpt_run(folder: Path, text: Path, seed: int) -> dict[str, float]:
    """nanoGPT's train.py, run in a copy and timed; its best checkpoint is evaluated as ours are."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "nanogpt"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git"))
        prepared = copy / "data" / "shakespeare_char"
        shutil.copy(text, prepared / "input.txt")
        (prepared / "requests.py").touch()  # imported there, but only used to download
        run(copy, str(prepared / "prepare.py"))
        train = (copy / "train.py").read_text(encoding="utf-8")
        (copy / "train.py").write_text(train.replace("manual_seed(1337", f"manual_seed({seed}"))
        started = time.perf_counter()
        run(copy, "train.py", "config/train_shakespeare_char.py", *SMALL.split(), "--out_dir=out")
        took = time.perf_counter() - started
        scores = nanogpt_scores(copy, text)
    return {"seconds": took, "steps": 2000, "stream": float("nan")} | scores


def nanogpt_scores(folder: Path, text: Path) -> dict[str, float]:
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig

    saved = torch.load(folder / "out" / "ckpt.pt", weights_only=True)
    model = GPT(GPTConfig(**saved["model_args"])).eval()
    model.load_state_dict(saved["model"])
    characters = text.read_text(encoding="utf-8")
    number = {char: i for i, char in enumerate(sorted(set(characters)))}
    ids = torch.tensor([number[char] for char in characters[int(len(characters) * 0.9) :]])
    starts = torch.randint(len(ids) - 65, (8000,), generator=torch.Generator().manual_seed(1))
    total = 0.0
    with torch.inference_mode():
        for some in starts.split(100):
            windows = ids[some[:, None] + torch.arange(65)]
            _, loss = model(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())
            total += float(loss) * len(some)
    return {"windows": total / len(starts)}


def run(folder: Path, *command: str) -> None:
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )


def recipes(asked: argparse.Namespace) -> Iterator[dict[str, object]]:
    """All recipes for the same time, with the schedule fitted to it; the rest as configured."""
    limit = [f"train.max_seconds={asked.seconds}", "train.max_steps=null", "train.max_epochs=null"]
    for text in [str(path) for path in asked.data or ["builtin:python"]]:
        for config in (
            "shakespeare-lstm",
            "shakespeare-gpt",
            "quickstart",
            "char-rnn",
            "nanogpt-cpu",
        ):
            for seed in range(1, asked.seeds + 1):
                split = [
                    "data.val_fraction=0.01"
                    if text == "builtin:python"
                    else "data.val_fraction=0.1"
                ]
                result = trained(config, [text], [*limit, *split, f"train.seed={seed}"], 256, 2000)
                yield row(config, Path(text).name, seed, result)


if __name__ == "__main__":
    main()
