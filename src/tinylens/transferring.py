"""Transfer: where a body that was trained before comes from, and what its run says of it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Splits
from tinylens.data.images import ImageRule
from tinylens.errors import RecipeError, RunError
from tinylens.recipe import Recipe
from tinylens.run import Run


@dataclass(frozen=True)
class Source:
    """A trained network whose body another one starts with.

    Attributes:
        name: of its run's folder.
        sha256: of its model.keras.
        network: its builder's name, as its recipe says.
        dataset: what it was trained on, in words.
        fingerprint: of that data set with its splits.
        path: of its model.keras.
        options: of the builder, as its recipe says.
        rule: how any picture becomes its input.
    """

    name: str
    sha256: str
    network: str
    dataset: str
    fingerprint: str
    path: Path
    options: dict[str, Any] = field(repr=False)
    rule: ImageRule = field(repr=False)

    def to_json(self) -> dict[str, str]:
        """Return what run.json records: plain strings by name."""
        tree = asdict(self)
        return {key: tree[key] for key in ("name", "sha256", "network", "dataset", "fingerprint")}


def source_of(path: str | Path) -> Source:
    """Return the source that a run is.

    Args:
        path: of a run, or of the model.keras in a run's folder: the recipe beside it says how the
            network is built.

    Raises:
        RunError: there is no such run, it is not done, it is an ensemble, or it was written by a
            version that did not record its rule for pictures.
    """
    given = Path(path)
    run = Run(given.parent if given.suffix == ".keras" else given)
    info, recipe = run.info, run.recipe
    if info.members:
        raise RunError(f"--from {path}: an ensemble has several bodies; name one of its members")
    if not info.image:
        raise RunError(
            f"--from {path}: its run.json does not say how pictures become its input; train it "
            "again with this version"
        )
    if not run.keras_model.is_file():
        raise RunError(f"--from {path}: there is no {run.keras_model}; finish that training first")
    with run.keras_model.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(
        run.path.resolve().name,
        sha256,
        recipe.model.name,
        info.dataset,
        info.fingerprint,
        run.keras_model,
        dict(recipe.model.options),
        ImageRule.from_json(info.image),
    )


def with_body(recipe: Recipe, source: Source) -> Recipe:
    """Return the recipe with the source's network in the place of its own."""
    model = {"name": source.network, "options": source.options, "views": recipe.model.views}
    return recipe.override({"model": model})


def asked(
    source: str | Path | None,
    backbone: str | None,
    weights: str | Path | None,
    *,
    probe: bool,
    curve: bool = False,
) -> dict[str, Any]:
    """Return what was asked for, by name.

    Raises:
        RecipeError: it is not said, or said twice, which body is meant.
    """
    if curve and (source is not None or backbone is not None):
        raise RecipeError(
            "--learning-curve trains from scratch; leave out --from or --backbone, or the curve"
        )
    if source is not None and backbone is not None:
        raise RecipeError(
            f"--from {source} and --backbone {backbone} both name a body; leave one out"
        )
    if weights is not None and backbone is None:
        raise RecipeError(
            f"--weights {weights}: whose they are is not said; expected --backbone NAME, too, such "
            "as MobileNetV2"
        )
    if probe and source is None and backbone is None:
        raise RecipeError(
            "--probe fits a head on a trained body, and none is named; expected --from RUN or "
            "--backbone NAME"
        )
    return {"source": source, "backbone": backbone, "weights": weights, "probe": probe}


def check(recipe: Recipe, budget: float | None) -> None:
    """Raise a RecipeError where a recipe or a budget does not go with a body."""
    if recipe.train.balance == "auto":
        raise RecipeError(
            "--from and --backbone do not go with balance auto, which tries out networks without "
            "a source; name one, such as --balance logits"
        )
    if budget is not None:
        raise RecipeError(
            "--budget chooses the network's widths, and a trained body brings them along; leave "
            "one out"
        )


def check_size(source: Source, data: Splits) -> None:
    """Raise a RecipeError where a body was trained on pictures of another size."""
    expected = (source.rule.height, source.rule.width, source.rule.channels)
    if data.train.image_shape != expected:
        raise RecipeError(
            f"--from {source.name}: its pictures are {_words(expected)}, those of {data.source} "
            f"{_words(data.train.image_shape)}; give them in its size, or as a folder of "
            "pictures, which the command line brings to it"
        )


def notes(source: Source, data: Splits, *, probe: bool) -> list[str]:
    """Return what a reader of the figures must know of the body."""
    kept = "kept as it is under a linear probe" if probe else "trained on from"
    found = [f"the body of {source.name} ({source.network}, {source.sha256[:12]}), {kept}"]
    if source.fingerprint == data.fingerprint:
        return found
    return [
        *found,
        f"where {source.dataset}, which that body has learnt from, holds pictures of val or test, "
        "the figures on these flatter",
    ]


def _words(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}×{width} with {channels} channel{'s' if channels > 1 else ''}"
