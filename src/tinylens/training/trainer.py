"""Trainer: network, data, optimizer and batch order of a recipe, compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens import system
from tinylens.data.cache import cache_root
from tinylens.data.dataset import Dataset, Images, Splits, joined
from tinylens.data.prefetch import Stream
from tinylens.data.summary import channel_statistics
from tinylens.errors import RecipeError
from tinylens.models import augment, losses, optimizers
from tinylens.models.build import build_network
from tinylens.models.embedding import open_network
from tinylens.models.optimizers import set_apart
from tinylens.models.pretrained import rates, statistics, take
from tinylens.models.spec import NetworkShape
from tinylens.recipe import Recipe
from tinylens.training import imbalance
from tinylens.training.curriculum import Curriculum
from tinylens.training.dataset_layer import Augment, LossMemory, Order, PriorLogits, ResidentImages
from tinylens.training.distillation import softened
from tinylens.training.transfer import Head

if TYPE_CHECKING:
    from tinylens.training.many_steps import ManySteps

SAMPLE = 5_000  # training images that starting weights may be computed from


@dataclass(frozen=True)
class Start:
    """What a network starts with, where not with weights drawn from its seed.

    Attributes:
        source: the model.keras whose body it is.
        head: for the classes of the data.
    """

    source: Path
    head: Head


@dataclass(frozen=True)
class Trainer:
    """All that a training of one recipe on one data set needs, built and compiled.

    Attributes:
        network: pixels to logits; what is wanted in the end.
        model: indices and draws to logits, around the network; what `fit` is called on.
        progressive_model: the same on smaller images, for the first epochs; None without such
            epochs.
        curriculum: what each epoch sees.
        order: of the images within an epoch.
        labels: one-hot, float32, shape (n_train + n_val, classes), train first. With a teacher they
            have twice as many columns: see `tinylens.models.losses.LabelsAndTeacher`.
        weights: of the loss, float32, shape (n_train,), or None for all 1.
        memory: of every image's loss, where hard ones are chosen by it.
        stream: of the images, where they do not fit into memory.
        loops: what trains in calls of many steps, by whether images are small; empty where
            `fit` is to be called.
    """

    recipe: Recipe
    network: keras.Model
    model: keras.Model
    progressive_model: keras.Model | None
    curriculum: Curriculum
    order: Order
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    n_val: int
    memory: LossMemory | None
    stream: Stream | None
    loops: Mapping[bool, ManySteps]

    def model_of(self, place: int) -> keras.Model:
        """Return the model that trains the epoch at `place` of the course."""
        return self.progressive_model if self.curriculum.is_early(place) else self.model

    def steps_of(self, place: int) -> int:
        """Return the steps of the epoch at `place` of the course."""
        return self.order.steps(self.curriculum.share(place))

    def reading_ahead(
        self, indices: NDArray[np.int32], batch_size: int
    ) -> contextlib.AbstractContextManager[None]:
        """Return a block within which batches of `indices` are read before they are needed."""
        if self.stream is None:
            return contextlib.nullcontext()
        return self.stream.ahead(indices, batch_size)

    def arrays(self) -> dict[str, Any]:
        """Return the variables that a checkpoint holds, by name."""
        named = {f"network/{i:04d}": v for i, v in enumerate(self.network.variables)}
        named |= {f"optimizer/{i:04d}": v for i, v in enumerate(self.model.optimizer.variables)}
        if self.memory is not None:
            named |= {"losses/now": self.memory.latest, "losses/start": self.memory.at_start}
        return named


def build(
    splits: Splits,
    recipe: Recipe,
    precision: str,
    distilled: NDArray[np.float32] | None = None,
    start: Start | None = None,
) -> Trainer:
    """Build and compile what trains `recipe` on `splits`, with starting weights from its seed.

    Args:
        splits: the parts; test is not looked at.
        recipe: resolved.
        precision: "float32" or "bfloat16".
        distilled: a teacher's probabilities for train, float32, shape (n_train, classes), if any.
        start: a trained body with a new head, instead of weights drawn from the seed.

    Raises:
        RecipeError: a network or an option of one that does not exist.
    """
    train, spec = splits.train, recipe.train
    parts = [train] if splits.val is None else [train, splits.val]
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    order = Order(
        count=len(train),
        batch_size=min(spec.batch_size, len(train)),
        seed=spec.seed,
        flip=recipe.augment.flip,
        labels=train.labels if spec.balance == "sampling" else None,
    )
    curriculum = Curriculum(spec, train.image_shape[:2])
    loss_memory = LossMemory(train.labels) if spec.hard_example_fraction < 1 else None
    images = _images(parts)
    network, model, progressive_model = _build_models(
        train, images, recipe, policy, curriculum, loss_memory, start
    )
    steps = sum(order.steps(curriculum.share(place)) for place in range(spec.epochs))
    optimizer = optimizers.build(recipe.optimizer, steps, spec.ema, precision)
    if start is not None:
        apart = rates(network, recipe.transfer.rate, recipe.transfer.rate_decay)
        set_apart(optimizer, network.trainable_variables, apart)
    optimizer.build(model.trainable_variables)
    trained = (
        {False: model} if progressive_model is None else {False: model, True: progressive_model}
    )
    for each in trained.values():
        each.compile(
            optimizer=optimizer,
            loss=losses.build(recipe, distilled=distilled is not None),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            # XLA's convolutions on a processor are 3 times slower than TensorFlow's own
            jit_compile=keras.backend.backend() == "jax",
        )
    return Trainer(
        recipe=recipe,
        network=network,
        model=model,
        progressive_model=progressive_model,
        curriculum=curriculum,
        order=order,
        labels=_targets(parts, recipe, distilled),
        weights=(
            imbalance.loss_weights(train.labels, len(train.class_names))
            if spec.balance == "weights"
            else None
        ),
        n_val=0 if splits.val is None else len(splits.val),
        memory=loss_memory,
        stream=images if isinstance(images, Stream) else None,
        loops=_loops(trained),
    )


def _targets(
    parts: list[Dataset], recipe: Recipe, distilled: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return one-hot labels and, with a teacher, beside them what it said, softened."""
    labels = np.concatenate([part.labels for part in parts])
    one_hot: NDArray[np.float32] = np.eye(len(parts[0].class_names), dtype=np.float32)[labels]
    if distilled is None:
        return one_hot
    soft = np.zeros_like(one_hot)  # val is judged by its labels alone
    soft[: len(distilled)] = softened(distilled, recipe.distil.temperature)
    # labels first: the first of the largest columns is the label, which is what accuracy counts by
    targets: NDArray[np.float32] = np.concatenate([one_hot, soft], axis=1)
    return targets


def forget() -> None:
    """Let go of all networks built before: those of a series would fill the memory."""
    keras.backend.clear_session()


def _loops(models_by_size: Mapping[bool, keras.Model]) -> Mapping[bool, ManySteps]:
    """Return what takes many steps in a call, where that is faster than Keras's `fit`."""
    if keras.backend.backend() != "jax":
        return {}
    from tinylens.training import many_steps

    if not many_steps.pay():
        return {}
    many_steps.keep_compiled(cache_root() / "compiled-by-jax")
    return {small: many_steps.ManySteps(model) for small, model in models_by_size.items()}


def _images(parts: list[Dataset]) -> Images | Stream:
    """Return the images of all parts, one after the other; a stream where memory is short."""
    images = [part.images for part in parts]
    if system.fits(sum(each.nbytes for each in images)):
        return joined(images)
    return Stream(images)


def _build_models(
    train: Dataset,
    images: Images | Stream,
    recipe: Recipe,
    policy: str,
    curriculum: Curriculum,
    loss_memory: LossMemory | None,
    start: Start | None,
) -> tuple[keras.Model, keras.Model, keras.Model | None]:
    """Return the network, and what trains it on whole and on smaller images."""
    origin = None if start is None else open_network(start.source)
    mean, std = channel_statistics(train.images) if origin is None else statistics(origin)
    shape = NetworkShape(
        image_shape=train.image_shape,
        num_classes=len(train.class_names),
        mean=mean,
        std=tuple(each or 1.0 for each in std),  # a channel that is flat is left as it is
        sample=train.images[:SAMPLE],
        seed=recipe.train.seed,
    )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = build_network(recipe.model.name, shape, recipe.model.options)
        if start is not None:
            take(network, origin, start.head.kernel, start.head.bias)
        indices = keras.Input((), dtype="int32", name="indices")
        draws = keras.Input((augment.NUM_DRAWS,), dtype="float32", name="draws")
        shown = ResidentImages(images)(indices)

        def around(answering: keras.Model, size: tuple[int, int] | None) -> keras.Model:
            logits = answering(Augment(recipe.augment, size)(shown, draws))
            if recipe.train.balance == "logits":
                logits = PriorLogits(imbalance.priors(train.counts))(logits)
            remembered = logits if loss_memory is None else loss_memory(indices, logits)
            return keras.Model([indices, draws], remembered)

        small = curriculum.progressive_size
        early = None if small is None else around(_on_smaller(network, small), small)
        return network, around(network, None), early
    finally:
        keras.config.set_dtype_policy(before)


def _on_smaller(network: keras.Model, size: tuple[int, int]) -> keras.Model:
    """Return the network's own layers on images of another size.

    Raises:
        RecipeError: a layer's weights depend on the size of the images.
    """
    images = keras.Input((*size, network.input_shape[3]))
    try:
        return keras.models.clone_model(
            network, input_tensors=images, clone_function=lambda layer: layer
        )
    except ValueError:
        raise RecipeError(
            f"train.progressive_resize_scale: the network {network.name} takes images of one size; "
            "set it to 1, or take a network that ends in global pooling, such as whitened"
        ) from None
