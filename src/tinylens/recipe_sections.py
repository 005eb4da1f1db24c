"""The sections of a recipe, each with what its keys mean and which values they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, lt=1)]
OptionValue = bool | int | float | str | list[int] | list[float]


class Section(BaseModel):
    """A part of a recipe: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class DataSection(Section):
    """How a data set becomes train, val and test parts.

    Attributes:
        val: share of train carved out for choosing, where the set brings no val part.
        test: share carved out for judging, where the set brings no test part.
        split_seed: the seed of both draws; apart from `train.seed` so that runs with several
            seeds are judged on the same pictures.
        size: height and width in pixels to which a folder's pictures are brought; None takes the
            pictures' own size where they agree.
        groups: what tells which pictures belong together and are not parted, such as those of one
            product: a column, an array or a pattern; see `tinylens.data.groups`.
        aspect: what becomes of a picture whose sides have another ratio than the size: "stretch"
            it, "pad" it or "crop" its middle; see `tinylens.data.images.ImageRule`. "auto" pads
            where the pictures' own ratios differ, and else stretches.
        image_column: of a table or a manifest that holds the pictures or their paths, where its
            name is none of the usual ones.
        label_column: the same for their classes.
    """

    val: Fraction = 0.1
    test: Fraction = 0.15
    split_seed: Annotated[int, Field(ge=0)] = 0
    size: Annotated[int, Field(ge=8, le=256)] | None = None
    groups: str = ""
    aspect: Literal["auto", "stretch", "pad", "crop"] = "auto"
    image_column: str = ""
    label_column: str = ""


class ModelSection(Section):
    """Which network, and how it answers when it is trained.

    Attributes:
        name: in `tinylens.models.BUILDERS`.
        options: that builder's own.
        views: of each picture whose answers are averaged, in what ships and in every figure: 1, 2
            (and its mirror image) or 6 (both, moved by a pixel two ways); an answer takes as many
            times longer.
    """

    name: str = "classic"
    options: dict[str, OptionValue] = {}
    views: Literal[1, 2, 6] = 1


class AugmentSection(Section):
    """Random changes of the training pictures, drawn anew for every picture in every epoch.

    Attributes:
        flip: mirror left to right: "none", "random" (a coin a picture and epoch) or "alternating"
            (a coin a picture, then every epoch the other side; Jordan 2024, arXiv:2404.00498).
        shift: largest shift in pixels, both axes, the border filled by reflection.
        cutout: side in pixels of a square set to the mean colour (DeVries & Taylor 2017).
        brightness: largest change added to all pixels, as a share of the full range.
        contrast: largest relative change of the distance from the picture's mean.
    """

    flip: Literal["none", "random", "alternating"] = "none"
    shift: Annotated[int, Field(ge=0, le=16)] = 0
    cutout: Annotated[int, Field(ge=0, le=128)] = 0
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0


class OptimizerSection(Section):
    """The optimizer and how its learning rate moves.

    Attributes:
        name: "adam" (Kingma & Ba 2015), "adamw" (Loshchilov & Hutter 2019), "sgd" with Nesterov
            momentum, or "muon": orthogonal steps on convolution kernels (Jordan et al. 2024), sgd
            on the rest.
        learning_rate: the highest one of the schedule.
        weight_decay: decoupled; with "muon" of the rest. Not for "adam".
        momentum: for "sgd" and "muon".
        vector_momentum: with "muon", of all that is no convolution kernel.
        head_rate: for "sgd" and "muon", the rate of dense kernels as a multiple of the learning
            rate.
        bias_rate: likewise of biases and of the scales and offsets of norms.
        schedule: "constant", "cosine" (to `final_rate`) or "linear" (to `final_rate`).
        warmup: share of all steps over which the rate rises from a tenth to its highest.
        final_rate: the last learning rate as a share of the highest.
        clip_norm: largest norm of a whole gradient; 0 leaves it alone.
    """

    name: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    momentum: Fraction = 0.9
    vector_momentum: Fraction = 0.85
    head_rate: Annotated[float, Field(ge=0)] = 1.0
    bias_rate: Annotated[float, Field(ge=0)] = 1.0
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: Fraction = 0.0
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip_norm: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("head_rate", "bias_rate")
    @classmethod
    def _rates_apart_only_without_moments(cls, value: float, info: ValidationInfo) -> float:
        if value != 1 and info.data.get("name") in ("adam", "adamw"):
            raise ValueError(f"1 with {info.data['name']}; sgd and muon take it")
        return value

    @field_validator("weight_decay")
    @classmethod
    def _decays_only_where_it_is_decoupled(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("name") == "adam":
            raise ValueError("0 with adam; adamw, sgd and muon take it")
        return value


class AnswerSection(Section):
    """When the model that ships does not answer.

    Attributes:
        max_error: share of answers that may be wrong; pictures that would need more are answered
            "unknown". 0 answers always.
        refused: share of ordinary pictures, such as those of val, that may be answered "unknown"
            for being unlike what was trained on, so that strangers are. 0 refuses none.
    """

    max_error: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    refused: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class DistilSection(Section):
    """How much a teacher counts, in a training that has one; see `tinylens.distilling`.

    Attributes:
        temperature: what the logarithms of the teacher's and the student's probabilities are
            divided by before they are compared (Hinton et al. 2015, arXiv:1503.02531).
        share: of the loss that is taken against the teacher's answers; the rest is against labels.
    """

    temperature: Annotated[float, Field(ge=1, le=100)] = 2.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.9


class TransferSection(Section):
    """How a network that starts with a trained body is trained on; see `tinylens.probing`.

    Attributes:
        rate: of the layer below the head, as a multiple of the head's learning rate.
        rate_decay: of each layer below that, as a multiple of the rate of the one above it.
    """

    rate: Annotated[float, Field(ge=0, le=1)] = 0.3
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 0.8


class TrainSection(Section):
    """How long, in what pieces and from which seed.

    Attributes:
        epochs: passes over the training part.
        epoch_share: share of the training pictures that an epoch sees, others each time.
        batch_size: pictures a step.
        hard_share: share of the training pictures that the later epochs see: those whose loss was
            largest when they were last seen (Jordan 2024, arXiv:2404.00498, section 4.2).
        hard_from: share of the epochs before that begins.
        early_scale: height and width of the pictures in the first epochs, as a share of their own;
            1 leaves them (Howard 2018, "progressive resizing").
        early_share: share of the epochs that see pictures of that size.
        label_smoothing: share of each label spread over all classes.
        early_stopping: stop after this many epochs without a better val loss; 0 never stops.
        val_every: epochs from one look at val to the next; the last epoch always has one.
        score_train: training pictures that are judged in the end, drawn by `data.split_seed`; 0
            judges all, which takes a while with a large network.
        best_weights: end with the weights of the epoch with the best val accuracy.
        ema: momentum of a running mean of the weights, used instead of them; 0 is off.
        balance: what makes up for uneven classes: "none"; "weights" of the loss; "sampling", which
            shows rare classes more often; "logits", which come with the classes' shares in
            training; or "auto", which tries these and takes the best on val. See
            `tinylens.balance`.
        seed: of the starting weights, the order of the pictures, augmentation and dropout.
        precision: "auto", "float32" or "bfloat16" (float32 weights, bfloat16 arithmetic).
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    epoch_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    hard_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    hard_from: Fraction = 0.5
    early_scale: Annotated[float, Field(ge=0.25, le=1)] = 1.0
    early_share: Fraction = 0.5
    label_smoothing: Fraction = 0.0
    early_stopping: Annotated[int, Field(ge=0)] = 0
    val_every: Annotated[int, Field(ge=1)] = 1
    score_train: Annotated[int, Field(ge=0)] = 0
    best_weights: bool = True
    ema: Fraction = 0.0
    balance: Literal["none", "weights", "sampling", "logits", "auto"] = "none"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _read_what_earlier_versions_wrote(cls, values: Any) -> Any:
        """Read `class_weights`, which stands in the recipes of old runs, as `balance`."""
        if not (isinstance(values, Mapping) and "class_weights" in values):
            return values
        rest = {key: value for key, value in values.items() if key != "class_weights"}
        wanted = values["class_weights"]
        if not isinstance(wanted, bool):
            raise ValueError(f"train.balance instead of train.class_weights, got {wanted!r}")
        if wanted and rest.get("balance", "none") not in ("none", "weights"):
            raise ValueError(
                f"train.class_weights or train.balance, got both: true and {rest['balance']!r}"
            )
        return rest | {"balance": "weights"} if wanted else rest


class Searched(Section):
    """What `tinylens tune` may try for one key: the numbers of a range, or one of some values.

    Attributes:
        low: the smallest number.
        high: the largest one.
        log: whether a factor counts, and not a difference, as for learning rates.
        step: between one number and the next, from `low` on; None takes any.
        choices: values in place of a range.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[OptionValue] | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> Searched:
        if self.choices is not None:
            self._check_choices(self.choices)
        elif self.low is None or self.high is None:
            raise ValueError("low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low below high; low is {self.low}, high {self.high}")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("low above 0 and no step where log is true")
        elif self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"a step above 0 that fits between {self.low} and {self.high}")
        return self

    def _check_choices(self, choices: list[OptionValue]) -> None:
        if (self.low, self.high, self.step) != (None, None, None) or self.log:
            raise ValueError("low and high, or choices, not both")
        if not choices or any(value in choices[:place] for place, value in enumerate(choices)):
            raise ValueError("one choice or more, none of them twice")

    @property
    def whole(self) -> bool:
        """Whether the range is of whole numbers."""
        ends = (self.low, self.high, self.step)
        return self.choices is None and all(isinstance(each, int | None) for each in ends)

    @property
    def values(self) -> list[OptionValue]:
        """The choices, or the ends of the range."""
        if self.choices is not None:
            return self.choices
        return [end for end in (self.low, self.high) if end is not None]

    @property
    def words(self) -> str:
        """The range or the choices, as on the command line."""
        if self.choices is not None:
            return ", ".join(str(value) for value in self.choices)
        by = f" by {self.step:g}" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{by}{', by factors' if self.log else ''}"
