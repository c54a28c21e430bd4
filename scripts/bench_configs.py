#!/usr/bin/env python3
"""What the shipped configs cost on this machine: how long each takes, and what Muon adds.

    scripts/bench configs [--repeats 7] [--json] [NAME ...]

Ratios are the time of a step with AdamW in the same config over that with the config's own
optimizer, for which `auto` chose precision and kernels. Minutes are those of all training steps,
from the median step; a run also evaluates, samples and saves. The vocabulary has 65 characters.
Hold both to an older CPU with scripts/as_cpu.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from comparing import Comparison, in_turn, report, show

from charlm.config import AdamConfig, Config, MuonConfig, TrainConfig
from charlm.config.files import load_config
from charlm.models import CharModel, build_model
from charlm.training.choose import choose_compute
from charlm.training.schedule import Limits
from charlm.training.step import Stepper

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
V = 65
SECONDS = 0.5  # of steps that a repeat has, about
NAME, NAME_AND_END = 12, 7.1  # characters: of the longest in a batch, and on average
LETTERS = {"tinyshakespeare": 1_003_854, "names": 205_330}  # of the training part


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    options.add_argument("name", nargs="*", metavar="NAME", help="all by default")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    if unknown := set(asked.name) - set(known):
        options.error(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
    results = [compare(name, asked.repeats) for name in asked.name or known]
    report([result for result, _ in results], asked.json)
    if not asked.json:
        show(row for _, row in results)


def compare(name: str, repeats: int) -> tuple[Comparison, dict[str, object]]:
    """A config's step beside AdamW's, and the row of the table of minutes."""
    config = load_config(CONFIGS / f"{name}.yaml")
    adamw = config.train.model_copy(update={"optimizer": AdamConfig(kind="adamw")})
    ours, how = step_of(config, config.train)
    theirs, _ = step_of(config, adamw)
    theirs()
    times = max(1, round(SECONDS / theirs()))
    title = f"{name}: a step with {config.train.optimizer.kind}, with adamw"
    result = in_turn(title, repeat(ours, times), repeat(theirs, times), repeats, times, "steps")
    step_s = sorted(result.ours)[len(result.ours) // 2] / times
    minutes = steps_of(config) * step_s / 60
    return result, {"config": name, "how": how, "ms a step": f"{1e3 * step_s:.1f}"} | {
        "steps": f"{steps_of(config):,}",
        "minutes": f"{minutes:.1f}",
        "train.expected_minutes": config.train.expected_minutes or "–",
    }


def step_of(config: Config, train: TrainConfig) -> tuple[Callable[[], float], str]:
    """A function that takes a step and returns its seconds, and how that is computed."""
    model: CharModel = build_model(config.model, V, seed=1)
    compute = choose_compute(train, model, "cpu")
    stepper = Stepper(model, train, compute, carries_state=model.context is None)
    T = NAME if train.batches == "items" else train.seq_len
    ids = torch.randint(V, (2, train.batch_size, T))

    def step() -> float:
        started = time.perf_counter()
        stepper.step(ids[0], ids[1], 1.0)
        return time.perf_counter() - started

    muon = f", Muon in {compute.muon}" * isinstance(train.optimizer, MuonConfig)
    return step, f"{compute.precision}, {compute.kernel}{muon}"


def repeat(step: Callable[[], float], times: int) -> Callable[[], float]:
    return lambda: sum(step() for _ in range(times))


def steps_of(config: Config) -> int:
    """How many steps the whole run has."""
    chars = LETTERS.get(config.data.path[0], 0)
    per_step = config.train.batch_size * config.train.seq_len
    if config.train.batches == "items":
        per_step = config.train.batch_size * NAME_AND_END
    return Limits.of(config.train, chars / per_step).steps or 0


if __name__ == "__main__":
    main()
