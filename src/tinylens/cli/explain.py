"""`tinylens explain`."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag, ModelArgument
from tinylens.errors import DataError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from tinylens.data.dataset import Dataset, Images, Labels
    from tinylens.explaining.explain import Look, NearestImages
    from tinylens.heatmaps import Heatmaps
    from tinylens.inference.classifier import Classifier
    from tinylens.results import Explanations
    from tinylens.run import Run


FLATTENED = (
    "This network flattens its maps: what speaks for a class in one place may speak against it in "
    "another, and Grad-CAM, which weighs both alike, may point beside the object. Occlusion "
    "does not: leave --method out."
)

_Where = tuple[str | None, Path | None]  # what --data and --data-dir say


class Method(enum.StrEnum):
    """How to find out where a network looks."""

    GRAD_CAM = "grad-cam"
    OCCLUSION = "occlusion"


@dataclass(frozen=True)
class _Way:
    """What finds out where a network looks, in how many places, and why its maps may mislead."""

    method: str
    look: Look
    places: tuple[int, int] | None = None
    caution: str = ""


def explain(
    model: ModelArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders or glob patterns (default: the worst mistakes of the run)."
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Explain this class instead of the predicted one.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="Grad-CAM needs a run; occlusion works with any model.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of confused class pairs to show (default: 6).")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set of the run, if its files have moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder for the page (default: the run folder, or one next to it)."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Keras backend: tensorflow, jax or torch.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show where a network looks, in the worst mistakes of a run or in your own images."""
    from tinylens.inference.classifier import Classifier
    from tinylens.reporting import write
    from tinylens.run import Run

    classifier = Classifier.open(model)
    run = Run(model) if model.is_dir() else None
    _check(classifier, run, images, class_name, method, top, data)
    way = _way(method, classifier, run, backend)
    if run and not images:
        found = _of_mistakes(run, way, top, backend, (data, data_dir))
    else:
        near = _near_if_there(run, backend, (data, data_dir)) if run else None
        found = _of_images(model, classifier, images or [], class_name, way, near)
    folder = Run(out or (_beside(model) if images else model))
    folder.write_explanations(found)
    write.write_explanations(folder, found)
    if as_json:
        frame.print_json({"folder": str(folder.path), "explanations": found.to_json()})
        return
    from rich.console import Console

    from tinylens.reporting import tables

    Console().print(tables.explanations(found))
    typer.echo(f"\npage  {folder.explanations}")


def _check(
    classifier: Classifier,
    run: Run | None,
    images: list[str] | None,
    class_name: str | None,
    method: Method | None,
    top: int | None,
    data: str | None,
) -> None:
    """Raise a RecipeError where the arguments do not go together."""
    if run is None and not images:
        raise RecipeError(
            "a model alone does not know of its mistakes; name images: tinylens explain MODEL "
            "IMAGE…, or give the folder of its run"
        )
    if run is None and method == Method.GRAD_CAM:
        raise RecipeError(
            "--method grad-cam takes the network itself, and model.onnx has no gradients; give the "
            "folder of its run, or leave --method out"
        )
    if run is None and data is not None:
        raise RecipeError("--data is where a run's images are; a model alone has none")
    if class_name is not None and not images:
        raise RecipeError(
            "--class asks about images that are named; a mistake is explained for its own class "
            "and for its answer"
        )
    if top is not None and images:
        raise RecipeError("--top counts confused pairs, but images are named; leave one out")
    names = classifier.class_names
    if class_name is not None and class_name not in names:
        raise RecipeError(
            f"--class {class_name}: no such class{did_you_mean(class_name, names)}; the model has "
            f"{', '.join(names)}"
        )


def _way(
    method: Method | None, classifier: Classifier, run: Run | None, backend: str | None
) -> _Way:
    """Return what was asked for; else Grad-CAM where a network pools its maps, or occlusion."""
    if run is None or method == Method.OCCLUSION:
        return _Way("occlusion", _by_occlusion(classifier))
    from tinylens.backend import activate

    activate(backend)
    from tinylens.explaining.gradcam import GradCam
    from tinylens.models.embedding import open_network

    grad_cam = GradCam(open_network(run.keras_model))
    if grad_cam.flattened and method is None:
        typer.echo("occlusion, as the network flattens its maps: Grad-CAM would mislead", err=True)
        return _Way("occlusion", _by_occlusion(classifier))

    def look(images: Images, labels: Labels) -> Heatmaps:
        with frame.progress("images looked at") as progress:
            return grad_cam(images, labels, progress)

    return _Way("grad-cam", look, grad_cam.places, FLATTENED if grad_cam.flattened else "")


def _by_occlusion(classifier: Classifier) -> Look:
    from tinylens.inference.occlusion import occlusion

    def look(images: Images, labels: Labels) -> Heatmaps:
        with frame.progress("images looked at") as progress:
            return occlusion(classifier.probabilities, images, labels, progress)

    return look


def _of_mistakes(
    run: Run, way: _Way, top: int | None, backend: str | None, where: _Where
) -> Explanations:
    """Explain the worst mistakes of a run; that test is looked at goes on record."""
    from tinylens.data.load import reopen
    from tinylens.evaluation import compare
    from tinylens.evaluation.evaluate import record_look
    from tinylens.explaining import explain as reasons
    from tinylens.results import Explanations

    answers, labels = compare.test_answers(run)
    splits = reopen(run, *where)
    record_look(run, frame.command_line())
    near = _near(run, splits.train, backend)
    pairs = top or reasons.PAIRS
    sheets = reasons.explain_mistakes(splits.test, answers, way.look, near, pairs=pairs)
    mistakes = int((answers.argmax(axis=1) != labels).sum())
    return Explanations(str(run.path), way.method, sheets, way.places, mistakes, (), way.caution)


def _of_images(
    model: Path,
    classifier: Classifier,
    samples: list[str],
    class_name: str | None,
    way: _Way,
    near: NearestImages | None,
) -> Explanations:
    """Explain images that were named; those that cannot be read are told of."""
    import numpy as np

    from tinylens.explaining import explain as reasons
    from tinylens.inference import batch_predict
    from tinylens.results import Broken, Explanations

    read = [classifier.read(path) for path in batch_predict.expand(samples, sys.stdin.buffer)]
    broken = tuple(Broken(each.path or "", each.error) for each in read if each.error)
    shown = [(each.path or "", each.image) for each in read if each.image is not None]
    if not shown:
        raise DataError(
            f"none of the {len(read)} images could be read; {broken[0].path}: {broken[0].reason}"
        )
    images = np.stack([image for _, image in shown])
    sheets = reasons.explain_images(
        images,
        [path for path, _ in shown],
        classifier.probabilities(images),
        classifier.class_names,
        way.look,
        near,
        requested=None if class_name is None else classifier.class_names.index(class_name),
    )
    return Explanations(str(model), way.method, sheets, way.places, None, broken, way.caution)


def _near_if_there(run: Run, backend: str | None, where: _Where) -> NearestImages | None:
    """Return what finds the nearest training images; where they are gone, say so."""
    from tinylens.data.load import reopen

    try:
        train = reopen(run, *where).train
    except DataError as error:
        if where[0] is not None:
            raise
        typer.echo(f"no training images are shown: {error}", err=True)
        return None
    return _near(run, train, backend)


def _near(run: Run, train: Dataset, backend: str | None) -> NearestImages:
    from tinylens.backend import activate

    activate(backend)
    from tinylens.explaining.explain import NearestImages
    from tinylens.models.embedding import Embedding

    with frame.progress("training images") as progress:
        return NearestImages(Embedding(run.keras_model), train, progress)


def _beside(model: Path) -> Path:
    """Return a folder beside a run or a model file."""
    path = model.resolve()
    name = path.name if model.is_dir() else path.stem
    return model.parent / f"{name}-explained"
