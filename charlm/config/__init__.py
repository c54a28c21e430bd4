"""The settings of a run: a tree of frozen, validated groups.

The description of a field is its only documentation. `charlm train --help-settings`, the JSON
Schema and configs/README.md are generated from these descriptions. files.py reads and writes
configs, and yaml_io.py their YAML. explain.py turns validation errors into messages.
"""

from charlm.config.data import DataConfig
from charlm.config.model import GPTConfig, MLPConfig, ModelConfig, RecurrentConfig
from charlm.config.run import Config, EvalConfig, SampleConfig
from charlm.config.train import (
    AdamConfig,
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    MuonConfig,
    OptimizerConfig,
    RMSPropConfig,
    ScheduleConfig,
    SGDConfig,
    TrainConfig,
    WSDSchedule,
)

__all__ = [
    "AdamConfig",
    "Config",
    "ConstantSchedule",
    "CosineSchedule",
    "DataConfig",
    "EvalConfig",
    "ExponentialSchedule",
    "GPTConfig",
    "MLPConfig",
    "ModelConfig",
    "MuonConfig",
    "OptimizerConfig",
    "RMSPropConfig",
    "RecurrentConfig",
    "SGDConfig",
    "SampleConfig",
    "ScheduleConfig",
    "TrainConfig",
    "WSDSchedule",
]
