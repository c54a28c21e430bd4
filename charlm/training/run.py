"""What a run is made of, besides the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from charlm.checkpoint.format import FORMAT, CorpusInfo, Meta, Progress
from charlm.checkpoint.read import Checkpoint
from charlm.config import Config
from charlm.data.amounts import steps_per_epoch
from charlm.data.corpus import Corpus
from charlm.processes import Processes
from charlm.training.compute import Choices, Compute
from charlm.training.schedule import Limits


@dataclass
class Run:
    """A run folder and the choices for its run: all that a trainer needs besides the model.

    Attributes:
        folder: locked by this process; see `charlm.checkpoint.run_folder`.
        schedule: that of the config, with a warm-up that ends within the run.
        resumed: whether the run continues from a checkpoint.
        last: that checkpoint, open; None for a new run, and in processes that are not the first.
        processes: those that train the run together.
    """

    folder: Path
    config: Config
    corpus: Corpus
    compute: Compute
    versions: dict[str, str]
    progress: Progress = field(default_factory=Progress)
    last: Checkpoint | None = None
    resumed: bool = False
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        train = self.config.train
        self.resumed = self.resumed or self.last is not None
        ids = self.corpus.split("train")
        self.steps_per_epoch = steps_per_epoch(ids, train)
        self.chars_per_step = len(ids) / self.steps_per_epoch  # the mean, for documents
        self.limits = Limits.of(train, self.steps_per_epoch)
        warmup = self.limits.warmup_steps(train.schedule)
        self.schedule = train.schedule.model_copy(update={"warmup_steps": warmup})

    def done(self) -> dict[str, float]:
        """Return how much of each limit the run has done, by the names in LIMITS."""
        step = self.progress.step
        return {
            "max_steps": step,
            "max_epochs": step / self.steps_per_epoch,
            "max_seconds": self.progress.wall_s,
        }

    def meta(self, parameters: int, log_sizes: dict[str, int]) -> Meta:
        """Return the metadata of a checkpoint of the run as it is now."""
        corpus, compute = self.corpus, self.compute
        return Meta(
            format=FORMAT,
            config=self.config,
            vocab=corpus.vocab.chars,
            corpus=CorpusInfo(source=corpus.source, chars=len(corpus), sha256=corpus.sha256),
            parameters=parameters,
            progress=self.progress,
            log_sizes=log_sizes,
            **asdict(Choices.of(compute)),
            processes=self.processes.size,
            launched_by=self.processes.launched_by,
            versions=self.versions,
        )
