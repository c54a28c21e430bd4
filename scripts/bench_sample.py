#!/usr/bin/env python3
"""How fast charlm samples text on a CPU, compared with other code.

    scripts/bench sample [--repeats 5] [--nanogpt DIR] [--json] [--quick]

The networks are untrained; that does not change the time of a character. The other side is a loop
in this file: one over nn.LSTM, which repacks its weights for every character, or one that computes
the whole window for every character, as nanoGPT's generate does. With --nanogpt DIR, a checkout of
nanoGPT, its own model.py is used instead. Both sides may use all cores;
OMP_NUM_THREADS=1 gives each one core.

The read speed of the machine is that of numpy's dot product over an array as large as the weights,
split over the threads. --json prints two lines: the comparisons, then read speed and memory.
--quick runs everything on tiny networks, to check that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as charlm sample does

import numpy as np
import torch
from comparing import Comparison, figure, in_turn, report, show

from charlm.checkpoint.format import FORMAT, CorpusInfo, Meta, Progress
from charlm.checkpoint.write import save
from charlm.config import Config, GPTConfig, MLPConfig, RecurrentConfig, SampleConfig
from charlm.config.files import parse_config
from charlm.data.vocab import Vocab
from charlm.kernels.build import NoKernelError
from charlm.models import CharModel, build_model
from charlm.sampling.engine import Engine
from charlm.sampling.generate import sample_texts
from charlm.sampling.native import native
from charlm.sampling.numpy import Network, build_network
from charlm.sampling.text import SampleSpec

VOCAB = Vocab("\n" + "".join(map(chr, range(40, 104))))
TEMPERATURE = 0.8
TEXTS = 64
LUA = {(2, 128): 4200, (3, 512): 560}  # characters a second of char-rnn and torch-rnn, as published
Model = RecurrentConfig | GPTConfig | MLPConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of nanoGPT")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    sizes = [(1, 8)] if options.quick else [(1, 512), (2, 128), (3, 512)]
    gpt = (
        GPTConfig(n_layer=1, n_head=1, n_embd=8, context=8)
        if options.quick
        else GPTConfig(n_layer=6, n_head=6, n_embd=384, context=256)
    )
    gpt = gpt.model_copy(
        update={"position": "learned", "norm": "layernorm", "mlp": "gelu", "qk_norm": False}
    )
    lstms = [RecurrentConfig(n_layer=layers, hidden_size=units) for layers, units in sizes]
    results = [against_lstm(config, repeats, options.quick) for config in lstms]
    results.append(against_windows(gpt, options.nanogpt, min(repeats, 3), options.quick))
    mlp = MLPConfig(n_layer=3, hidden_size=8 if options.quick else 384)
    networks: list[Model] = [*lstms, gpt, mlp]
    for config in networks:
        for one in (native_engine, numpy_engine):
            results.append(many(config, one, repeats, options.quick))
    results += [many(config, numpy_engine, repeats, options.quick, TEXTS) for config in networks]
    with tempfile.TemporaryDirectory() as folder:
        results += commands(Path(folder), lstms[-1], repeats)
        peaks = [peak(Path(folder), config) for config in (lstms[-1], gpt)]
    reading = [read_speed(config, result) for config, result in zip(lstms, results, strict=False)]
    report(results, options.json)
    if options.json:
        print(json.dumps({"reading": reading, "memory": peaks}))
    else:
        show(reading)
        show(peaks)


# --- one text --------------------------------------------------------------------------------


def name_of(config: Model) -> str:
    width = config.n_embd if isinstance(config, GPTConfig) else config.hidden_size
    return f"{config.kind} {config.n_layer} x {width}"


def numpy_engine(model: CharModel) -> Network:
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    return build_network(model.config, len(VOCAB), weights)


def native_engine(model: CharModel) -> Engine:
    try:
        return native(numpy_engine(model))
    except NoKernelError as error:
        sys.exit(f"bench sample: it measures the engine in C, and {error}")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sample_all(engine: Engine, length: int, texts: int = 1) -> None:
    spec = SampleSpec(SampleConfig(temperature=TEMPERATURE), length)
    for _ in sample_texts(engine, VOCAB, VOCAB.encode(""), spec, 1, range(texts)):
        pass


def against_lstm(config: RecurrentConfig, repeats: int, quick: bool) -> Comparison:
    """One text of ours, compared with a loop over nn.LSTM that samples in the simplest way."""
    model = build_model(config, len(VOCAB), seed=1)
    engine = native_engine(model)
    length = 20 if quick else 2_000_000 // (config.n_layer * config.hidden_size**2) * 1000

    @torch.inference_mode()
    def loop(count: int) -> None:
        ids, state = torch.zeros(1, 1, dtype=torch.long), None
        for _ in range(count):
            logits, state = model(ids, state)
            probs = torch.softmax(logits[0, -1] / TEMPERATURE, dim=-1)
            ids = torch.multinomial(probs, 1)[None]

    model.eval()
    fewer = max(10, length // 20)  # it is slower
    return in_turn(
        f"{name_of(config)}, one text, nn.LSTM loop",
        lambda: seconds(lambda: sample_all(engine, length)),
        lambda: seconds(lambda: loop(fewer)) * length / fewer,
        repeats,
        work=length,
        unit="chars",
    )


Loop = Callable[[torch.Tensor, int], object]


def against_windows(
    config: GPTConfig, nanogpt: Path | None, repeats: int, quick: bool
) -> Comparison:
    """One text of ours, compared with computing the whole window for every character.

    Theirs is timed for a few characters after a full window, and counted for all but half of those
    that come before the window is full.
    """
    model = build_model(config, len(VOCAB), seed=1).eval()
    engine, length, few = native_engine(model), 20 if quick else 2000, 4 if quick else 40
    theirs = nanogpt_loop(nanogpt, config) if nanogpt else window_loop(model, config)
    start = torch.zeros(1, config.context, dtype=torch.long)
    return in_turn(
        f"{name_of(config)}, one text, {'nanoGPT' if nanogpt else 'whole windows'}",
        lambda: seconds(lambda: sample_all(engine, length)),
        lambda: seconds(lambda: theirs(start, few)) / few * (length - config.context / 2),
        repeats,
        work=length,
        unit="chars",
    )


def window_loop(model: CharModel, config: GPTConfig) -> Loop:
    @torch.inference_mode()
    def loop(ids: torch.Tensor, count: int) -> None:
        for _ in range(count):
            logits, _ = model(ids[:, -config.context :])
            probs = torch.softmax(logits[:, -1] / TEMPERATURE, dim=-1)
            ids = torch.cat([ids, torch.multinomial(probs, 1)], dim=1)

    return loop


def nanogpt_loop(folder: Path, config: GPTConfig) -> Loop:
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "bias")}
    network = module.GPT(
        module.GPTConfig(block_size=config.context, vocab_size=len(VOCAB), dropout=0.0, **sizes)
    ).eval()
    return lambda ids, count: network.generate(ids, count, temperature=TEMPERATURE)


# --- many texts ------------------------------------------------------------------------------


def many(
    config: Model,
    engine: Callable[[CharModel], Engine],
    repeats: int,
    quick: bool,
    texts: int = 1,
) -> Comparison:
    """TEXTS texts side by side by the engine in C (characters per second of all), and `texts` texts
    by `engine`."""
    model = build_model(config, len(VOCAB), seed=1)
    together, other = native_engine(model), engine(model)
    length = 5 if quick else 200
    theirs = "one text" if texts == 1 else f"{texts} texts"
    return in_turn(
        f"{name_of(config)}, {TEXTS} texts, {theirs} ({engine.__name__.removesuffix('_engine')})",
        lambda: seconds(lambda: sample_all(together, length, TEXTS)),
        lambda: seconds(lambda: sample_all(other, length, texts)) * TEXTS / texts,
        repeats,
        work=length * TEXTS,
        unit="chars",
    )


# --- the machine -----------------------------------------------------------------------------


def weights_read(config: RecurrentConfig) -> int:
    """Bytes of the matrices that are read for one character."""
    D, gates = config.hidden_size, 4
    matrices = (2 * config.n_layer - 1) * gates * D * D + len(VOCAB) * D
    return 4 * matrices


def read_speed(config: RecurrentConfig, ours: Comparison) -> dict[str, object]:
    """The speed at which this machine reads the weights, and the speed that sampling reaches."""
    size, times = weights_read(config), 200
    count = torch.get_num_threads()
    numbers = np.ones(size // 8, np.float32)  # two arrays make the size
    other = np.ones_like(numbers)
    parts = [
        range(i * len(numbers) // count, (i + 1) * len(numbers) // count) for i in range(count)
    ]

    def read_part(part: range) -> None:
        a, b = numbers[part.start : part.stop], other[part.start : part.stop]
        for _ in range(times):
            np.dot(a, b)

    with ThreadPoolExecutor(count) as pool:
        best = max(
            size * times / seconds(lambda: list(pool.map(read_part, parts))) for _ in range(5)
        )
    reached = size * ours.work / statistics.median(ours.ours)
    lua = LUA.get((config.n_layer, config.hidden_size))
    speed = ours.work / statistics.median(ours.ours)
    return {
        "network": name_of(config),
        "MB a character": figure(size / 1e6),
        "read speed, GB/s": figure(best / 1e9),
        "reached, GB/s": figure(reached / 1e9),
        "share": f"{reached / best:.0%}",
        "of Lua's": f"{speed / lua:.1f}" if lua else "",
    }


# --- whole commands --------------------------------------------------------------------------

THEIRS = """
import json, sys
import torch
from safetensors import safe_open
with safe_open(sys.argv[1], "pt") as file:
    weights = {name: file.get_tensor(name) for name in file.keys() if name.startswith("model.")}
    meta = json.loads(file.metadata()["charlm"])
torch.set_num_threads(1)
model, chars = meta["config"]["model"], meta["vocab"]
rnn = torch.nn.LSTM(model["hidden_size"], model["hidden_size"], model["n_layer"])
rnn.load_state_dict({k[10:]: v for k, v in weights.items() if k.startswith("model.rnn.")})
ids, state = torch.zeros(1, 1, dtype=torch.long), None
with torch.inference_mode():
    for _ in range(200):
        y, state = rnn(weights["model.embed.weight"][ids], state)
        logits = y[0, 0] @ weights["model.head.weight"].T + weights["model.head.bias"]
        ids = torch.multinomial(torch.softmax(logits / 0.8, dim=-1), 1)[None]
        print(chars[ids.item()], end="", flush=True)
"""


def save_checkpoint(folder: Path, config: Model) -> Path:
    """A checkpoint of an untrained network."""
    model = build_model(config, len(VOCAB), seed=1)
    raw = {"name": "bench", "data": {"path": "none.txt"}, "model": config.model_dump()}
    run: Config = parse_config(raw)
    meta = Meta(
        format=FORMAT,
        config=run,
        vocab=VOCAB.chars,
        corpus=CorpusInfo(source="none", chars=1, sha256=""),
        parameters=model.count_parameters(),
        progress=Progress(),
        log_sizes={},
        device="cpu",
        precision="fp32",
        threads=1,
        muon="fp32",
        versions={},
    )
    path = folder / f"{config.kind}.safetensors"
    save(path, meta, {f"model.{name}": p for name, p in model.named_parameters()})
    return path


def commands(folder: Path, config: RecurrentConfig, repeats: int) -> list[Comparison]:
    """`charlm sample` compared with a script on torch: the first character, and 200 characters."""
    path = save_checkpoint(folder, config)
    ours = [sys.executable, "-m", "charlm", "sample", str(path), "--length", "200", "--seed", "1"]
    theirs = [sys.executable, "-c", THEIRS, str(path)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def times(command: list[str]) -> tuple[float, float]:
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            first = time.perf_counter() - started
            process.stdout.read()
        assert process.returncode == 0
        return first, time.perf_counter() - started

    pairs = [(times(ours), times(theirs)) for _ in range(repeats + 1)][1:]  # the first warms up
    return [
        Comparison(
            f"{name_of(config)}, command: {what}",
            [a[i] for a, _ in pairs],
            [b[i] for _, b in pairs],
        )
        for i, what in enumerate(("first character", "200 characters"))
    ]


PEAK = """
import sys
from pathlib import Path
from charlm.cli import main
main(["sample", sys.argv[1], "--length", "500"])
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""


def peak(folder: Path, config: Model) -> dict[str, object]:
    """Peak memory of `charlm sample`, and the limit: 1.3 times the weights plus 60 MB."""
    path = save_checkpoint(folder, config)
    command = [sys.executable, "-c", PEAK, str(path)]
    ended = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    weights = path.stat().st_size / 1e6
    return {
        "network": name_of(config),
        "weights, MB": figure(weights),
        "peak, MB": figure(int(ended.stderr) * 1024 / 1e6),
        "allowed, MB": figure(1.3 * weights + 60),
    }


if __name__ == "__main__":
    main()
