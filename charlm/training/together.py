"""From the run that the first process has prepared to the same run in the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from charlm.checkpoint.format import Progress
from charlm.config import Config
from charlm.config.compare import varying
from charlm.config.shown import shown
from charlm.data.corpus import Corpus, open_corpus
from charlm.data.sources import Source
from charlm.data.vocab import Vocab
from charlm.errors import ConfigError, DataError, ProcessError
from charlm.models import build_model
from charlm.processes import Processes
from charlm.training.choose import choose_compute
from charlm.training.compute import Choices
from charlm.training.request import Request
from charlm.training.run import Run
from charlm.training.session import Session, versions


def check_same(request: Request, processes: Processes) -> None:
    """Check that all processes were started for the same run.

    Raises:
        ProcessError: the processes were started for different runs.
    """
    requests = processes.all(request)
    with processes.together():
        for rank, other in enumerate(requests if processes.is_first else ()):
            for name, own in vars(request).items():
                theirs = vars(other)[name]
                if theirs != own:
                    raise ProcessError(
                        f"process {rank} was started with another {name} than process 0"
                        f"{_difference(own, theirs)}; give all the same command and config"
                    )


def _difference(own: object, theirs: object) -> str:
    if isinstance(own, Config) and isinstance(theirs, Config):
        key, (first, other) = next(iter(varying([own, theirs]).items()))
        return f": {key} is {shown(other)} and {shown(first)}"
    return f": {shown(theirs)} and {shown(own)}"


@dataclass(frozen=True)
class _Plan:
    """What the first process tells the others about its run."""

    folder: Path
    config: Config
    vocab: Vocab
    sha256: str
    choices: Choices
    progress: Progress
    resumed: bool


def lead(ready: Session, processes: Processes) -> None:
    """Tell the other processes about a run, and wait until they are ready for it.

    Raises:
        ProcessError: another process cannot take part, or has another text.
        ConfigError: the batch cannot be shared out.
    """
    run = ready.run
    if processes.is_alone:
        return
    run.processes = processes
    _check_batch(run.config, processes)
    choices = Choices.of(run.compute)
    plan = _Plan(
        run.folder,
        run.config,
        run.corpus.vocab,
        run.corpus.sha256,
        choices,
        run.progress,
        run.resumed,
    )
    processes.first(plan)
    with processes.together():  # the first process of each other machine opens the text
        pass
    with processes.together():  # the others find it in the cache
        pass
    _unite(ready, processes)


def follow(processes: Processes) -> Session:
    """Return the run that the first process leads, for a process that is not the first.

    Raises:
        DataError, DeviceError: the text or the device is not available to this process.
        ProcessError: another process cannot take part.
    """
    plan: _Plan = processes.first(None)  # type: ignore[assignment]
    with processes.together():
        corpus = None if processes.local_rank else _open(plan)
    with processes.together():
        corpus = corpus or _open(plan)
        if corpus.sha256 != plan.sha256:
            raise DataError(
                f"{corpus.source}: not the text that process 0 has; give all processes the same"
            )
        model = build_model(plan.config.model, len(plan.vocab), plan.config.train.seed)
        is_cpu = plan.choices.device == "cpu"
        device = "cpu" if is_cpu else f"{plan.choices.device[:4]}:{processes.local_rank}"
        compute = choose_compute(plan.config.train, model, device, plan.choices)
    run = Run(
        plan.folder,
        plan.config,
        corpus,
        compute,
        versions(),
        plan.progress,
        resumed=plan.resumed,
        processes=processes,
    )
    ready = Session(run, model, [])
    _unite(ready, processes)
    return ready


def _open(plan: _Plan) -> Corpus:
    return open_corpus(plan.config.data, known=plan.vocab, expected=plan.sha256)


def _unite(ready: Session, processes: Processes) -> None:
    """Check that the processes compute in the same way, and give all the same weights.

    Raises:
        ProcessError: they do not.
    """
    choices = Choices.of(ready.run.compute)
    own = f"{choices.precision} by {choices.kernel}, Muon {choices.muon} by {choices.muon_kernel}"
    others = processes.all(own)
    with processes.together():
        rank = next((rank for rank, it in enumerate(others) if it != others[0]), 0)
        if rank and processes.is_first:
            raise ProcessError(
                f"process {rank} computes in another way than process 0 ({others[rank]}; {own}); "
                "set train.kernels=off and train.precision=fp32, or CHARLM_ISA"
            )
    processes.exchange([list(ready.model.parameters())])


def _check_batch(config: Config, processes: Processes) -> None:
    train = config.train
    if train.batch_size % (train.grad_accum * processes.size):
        pieces = f" and train.grad_accum {train.grad_accum}" if train.grad_accum > 1 else ""
        raise ConfigError(
            f"train.batch_size {train.batch_size} cannot be shared out among {processes.size} "
            f"processes{pieces}; set a multiple of {train.grad_accum * processes.size}"
        )


def refuse_pipes(sources: Iterable[Source]) -> None:
    """Check that several processes can read the sources.

    Raises:
        DataError: a source can be read only once, and so by one process only.
    """
    for source in sources:
        if source.once:
            raise DataError(
                f"{source.name}: several processes cannot read a pipe; save the text in a file"
            )
