"""Where a run came from and how far it is: the schema of run.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunInfo:
    """What run.json holds: where a run came from and how far it is.

    Attributes:
        state: "running", "done" or "failed".
        command: what was typed.
        dataset: the data set's source in words.
        fingerprint: SHA-256 of the data set with its splits.
        splits: "size" and "sha256" by part.
        image: how any picture becomes the network's input, as `ImageRule.to_json` gives it; empty
            in runs of earlier versions.
        notes: how the splits came about, and what the reader of the figures must know.
        seconds: "load", "balance" where it was tried out, "train", "evaluate", "export", "total".
        plan: with a budget in seconds, "budget" and what `tinylens.planning.Plan.to_json` gives.
        balance: with train.balance "auto", what `tinylens.balancing.Choice.to_json` gives.
        teacher: with a teacher, what `tinylens.distilling.Teacher.to_json` gives.
        source: with a body trained before, what `tinylens.transferring.Source.to_json` gives,
            "used", "probe" or "trained on", and of the probe its "strength" and "log_loss".
        members: of an ensemble, "name" and "sha256" (of model.onnx) of each network's run.
        test_opened: "time" (UTC) and "command" of each look at the test part.
    """

    state: str = "running"
    command: str = ""
    seed: int = 0
    backend: str = ""
    precision: str = ""
    deterministic: bool = False
    dataset: str = ""
    fingerprint: str = ""
    class_names: list[str] = field(default_factory=list[str])
    splits: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    image: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])
    started: str = ""
    finished: str = ""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    plan: dict[str, Any] = field(default_factory=dict[str, Any])
    balance: dict[str, Any] = field(default_factory=dict[str, Any])
    teacher: dict[str, str] = field(default_factory=dict[str, str])
    source: dict[str, Any] = field(default_factory=dict[str, Any])
    members: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    test_opened: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    hardware: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str = ""
