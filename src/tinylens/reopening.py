"""The data set of a run, opened again, and checked to be the one that it was trained on."""

from __future__ import annotations

from pathlib import Path

from tinylens.data.dataset import Splits
from tinylens.data.images import ImageRule
from tinylens.data.sources import load_by
from tinylens.errors import DataError
from tinylens.modelfile import read_model, unseal
from tinylens.run import Run


def reopen(run: Run, source: str | Path | None = None, data_dir: Path | None = None) -> Splits:
    """Return the parts that a run was trained, chosen and judged on.

    Args:
        run: its recipe says how the parts were carved out, run.json what they held.
        source: a known set's name or a path; None takes the one that run.json names.
        data_dir: where files are looked for first.

    Raises:
        DataError: the set cannot be opened, or it is not the same any more.
        ModelError: the model of a run of an earlier version is damaged.
        RunError: the run's own files cannot be read.
    """
    info, section = run.info, run.recipe.data
    try:
        splits = load_by(section, source or info.dataset, rule=_rule(run), data_dir=data_dir)
    except DataError as error:
        raise DataError(
            f"the pictures of {run.path} cannot be opened: {error}; say where they are with --data"
        ) from None
    if splits.fingerprint != info.fingerprint:
        raise DataError(
            f"{source or info.dataset} is not what {run.path} was trained on: fingerprint "
            f"{splits.fingerprint[:12]}, expected {info.fingerprint[:12]}; give the set as it was "
            "then with --data, or train again"
        )
    return splits


def _rule(run: Run) -> ImageRule | None:
    """Return how the run's pictures were made; of an earlier version's runs, as its model says."""
    if run.info.image:
        return ImageRule.from_json(run.info.image)
    return unseal(read_model(run.model), str(run.model)).rule if run.model.is_file() else None
