"""A recipe: everything that decides a training run except the data, as typed data in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from tinylens.errors import RecipeError, did_you_mean

Fraction = Annotated[float, Field(ge=0, lt=1)]
OptionValue = bool | int | float | str | list[int] | list[float]


class Section(BaseModel):
    """A part of a recipe: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class DataSection(Section):
    """How a data set becomes train, val and test splits.

    Attributes:
        val: share of train carved out for choosing, where the set brings no val split.
        test: share carved out for judging, where the set brings no test split.
        split_seed: the seed of both draws; apart from `train.seed` so that runs with several
            seeds are judged on the same images.
        size: height and width in pixels to which a folder's images are brought; None takes the
            images' own size where they agree.
        groups: what tells which images belong together and are not parted, such as those of one
            product: a column, an array or a pattern; see `tinylens.data.groups`.
        aspect: what becomes of an image whose sides have another ratio than the size: "stretch"
            it, "pad" it or "crop" its middle; see `tinylens.data.images.ImageRule`. "auto" pads
            where the images' own ratios differ, and else stretches.
        image_column: of a table or a manifest that holds the images or their paths, where its
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
        name: in `tinylens.models.build.BUILDERS`.
        options: that builder's own.
        tta_views: of each image whose answers are averaged, in what ships and in every figure: 1, 2
            (and its mirror image) or 6 (both, moved by a pixel two ways); an answer takes as many
            times longer.
    """

    name: str = "classic"
    options: dict[str, OptionValue] = {}
    tta_views: Literal[1, 2, 6] = 1


class AugmentSection(Section):
    """Random changes of the training images, drawn anew for every image in every epoch.

    Attributes:
        flip: mirror left to right: "none", "random" (a coin an image and epoch) or "alternating"
            (a coin an image, then every epoch the other side; Jordan 2024, arXiv:2404.00498).
        shift: largest shift in pixels, both axes, the border filled by reflection.
        cutout: side in pixels of a square set to the mean colour (DeVries & Taylor 2017).
        brightness: largest change added to all pixels, as a share of the full range.
        contrast: largest relative change of the distance from the image's mean.
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
        head_lr_multiplier: for "sgd" and "muon", the rate of dense kernels as a multiple of the
            learning rate.
        bias_lr_multiplier: likewise of biases and of the scales and offsets of norms.
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
    head_lr_multiplier: Annotated[float, Field(ge=0)] = 1.0
    bias_lr_multiplier: Annotated[float, Field(ge=0)] = 1.0
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: Fraction = 0.0
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip_norm: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("head_lr_multiplier", "bias_lr_multiplier")
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
        max_error: share of answers that may be wrong; images that would need more are answered
            "unknown". 0 answers always.
        refused: share of ordinary images, such as those of val, that may be answered "unknown"
            for being unlike what was trained on, so that out-of-distribution images are. 0 refuses
            none.
    """

    max_error: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    refused: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class DistilSection(Section):
    """How much a teacher counts, in a training that has one; see `tinylens.training.distillation`.

    Attributes:
        temperature: what the logarithms of the teacher's and the student's probabilities are
            divided by before they are compared (Hinton et al. 2015, arXiv:1503.02531).
        share: of the loss that is taken against the teacher's answers; the rest is against labels.
    """

    temperature: Annotated[float, Field(ge=1, le=100)] = 2.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.9


class TransferSection(Section):
    """Learning rates of transfer learning; see `tinylens.training.transfer`.

    Attributes:
        rate: of the layer below the head, as a multiple of the head's learning rate.
        rate_decay: of each layer below that, as a multiple of the rate of the one above it.
    """

    rate: Annotated[float, Field(ge=0, le=1)] = 0.3
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 0.8


class TrainSection(Section):
    """How long, in what pieces and from which seed.

    Attributes:
        epochs: passes over the training split.
        epoch_share: share of the training images that an epoch sees, others each time.
        batch_size: images a step.
        hard_example_fraction: share of the training images that the later epochs see: those whose
            loss was largest when they were last seen (Jordan 2024, arXiv:2404.00498, section 4.2).
        hard_examples_from: share of the epochs before that begins.
        progressive_resize_scale: height and width of the images in the first epochs, as a share of
            their own; 1 leaves them (Howard 2018, "progressive resizing").
        progressive_resize_fraction: share of the epochs that see images of that size.
        label_smoothing: share of each label spread over all classes.
        early_stopping: stop after this many epochs without a better val loss; 0 never stops.
        val_every: epochs from one look at val to the next; the last epoch always has one.
        score_train: training images that are judged in the end, drawn by `data.split_seed`; 0
            judges all, which takes a while with a large network.
        best_weights: end with the weights of the epoch with the best val accuracy.
        ema: momentum of a running mean of the weights, used instead of them; 0 is off.
        balance: what makes up for uneven classes: "none"; "weights" of the loss; "sampling", which
            shows rare classes more often; "logits", which come with the classes' shares in
            training; or "auto", which tries these and takes the best on val. See
            `tinylens.training.imbalance`.
        seed: of the starting weights, the order of the images, augmentation and dropout.
        precision: "auto", "float32" or "bfloat16" (float32 weights, bfloat16 arithmetic).
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    epoch_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    hard_example_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    hard_examples_from: Fraction = 0.5
    progressive_resize_scale: Annotated[float, Field(ge=0.25, le=1)] = 1.0
    progressive_resize_fraction: Fraction = 0.5
    label_smoothing: Fraction = 0.0
    early_stopping: Annotated[int, Field(ge=0)] = 0
    val_every: Annotated[int, Field(ge=1)] = 1
    score_train: Annotated[int, Field(ge=0)] = 0
    best_weights: bool = True
    ema: Fraction = 0.0
    balance: Literal["none", "weights", "sampling", "logits", "auto"] = "none"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


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


OPTIONS = "model.options."  # what follows is the network's own, and checked where Keras is
FIXED = {  # what a search would gain by these is luck, or other images to be judged on
    "data": "it decides which images are judged",
    "answer": "it changes nothing that is trained",
    "train.seed": "the best of several seeds is luck",
    "train.score_train": "it changes nothing that is trained",
}


def search_mistakes(space: Mapping[str, Searched], sections: Mapping[str, Any]) -> list[str]:
    """Return everything wrong with the keys of a search space and with their values.

    Args:
        space: by key, "section.key".
        sections: the types of a recipe's sections, by name; what is no section is passed over.
    """
    known = {
        f"{section}.{name}": item
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
        for name, item in kind.model_fields.items()
    }
    return [
        mistake for key, searched in space.items() for mistake in _mistakes(key, searched, known)
    ]


def _mistakes(key: str, searched: Searched, known: Mapping[str, Any]) -> Iterator[str]:
    if key.startswith(OPTIONS) and len(key) > len(OPTIONS):
        return
    if key not in known or key == OPTIONS.rstrip("."):
        near = did_you_mean(key, [*known, OPTIONS + "widths", OPTIONS + "dropout"])
        yield f"search.{key}: no such key in a recipe{near or '; write it as section.key'}"
        return
    reason = FIXED.get(key) or FIXED.get(key.partition(".")[0])
    if reason:
        yield f"search.{key}: not to be searched, since {reason}"
        return
    item = known[key]
    annotated: Any = Annotated[(item.annotation, item, *item.metadata)]
    kind: TypeAdapter[Any] = TypeAdapter(annotated)
    for value in searched.values:
        try:
            kind.validate_python(value)
        except ValidationError as error:
            wanted = error.errors()[0]["msg"].removeprefix("Input should be ")
            yield f"search.{key}: expected {wanted}, got {value!r}"


class Recipe(Section):
    """Everything that decides a training run except the data.

    >>> recipe = Recipe(name="mine").override({"train.epochs": 3})
    >>> recipe.train.epochs
    3
    >>> Recipe.from_toml(recipe.to_toml()) == recipe
    True
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    summary: str = ""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainSection = TrainSection()
    answer: AnswerSection = AnswerSection()
    distil: DistilSection = DistilSection()
    transfer: TransferSection = TransferSection()
    search: dict[str, Searched] = Field(default_factory=dict)

    @field_validator("search")
    @classmethod
    def _searches_keys_that_there_are(cls, space: dict[str, Searched]) -> dict[str, Searched]:
        sections = {name: item.annotation for name, item in cls.model_fields.items()}
        mistakes = search_mistakes(space, sections)
        if mistakes:
            raise ValueError("\n  ".join(mistakes))
        return space

    @model_serializer(mode="wrap")
    def _without_empty_search(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)
        if not self.search:  # recipes that search nothing are written as they were before
            tree.pop("search", None)
        return tree

    @staticmethod
    def load(name_or_path: str | Path) -> Recipe:
        """Return the built-in recipe of that name, or the one in that TOML file.

        Raises:
            RecipeError: no such recipe, or it does not parse; all mistakes are named at once.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml":
            if not path.is_file():
                raise RecipeError(f"no recipe file {path}; built-in recipes: {_listed()}")
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{path} cannot be read as a recipe: {error}") from None
            return Recipe.from_toml(text, where=str(path))
        builtin = _builtin_files().get(str(name_or_path))
        if builtin is None:
            near = did_you_mean(str(name_or_path), _builtin_files())
            raise RecipeError(
                f"no recipe {str(name_or_path)!r}{near}; built-in recipes: {_listed()}; "
                "a recipe of your own is a path that ends in .toml"
            )
        return Recipe.from_toml(builtin.read_text(encoding="utf-8"), where=str(name_or_path))

    @staticmethod
    def from_toml(text: str, where: str = "recipe") -> Recipe:
        """Parse a recipe; `where` names it in an error.

        Raises:
            RecipeError: it is not TOML, or says something impossible; all mistakes at once.
        """
        try:
            return Recipe.from_dict(tomllib.loads(text), where)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{where} is not a TOML file: {error}") from None

    @staticmethod
    def from_dict(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Check `values` and return them as a recipe; errors as in `from_toml`."""
        try:
            return Recipe.model_validate(dict(values))
        except ValidationError as error:
            # an option that fits no type is one mistake, though pydantic tells one a type
            mistakes = "\n  ".join(dict.fromkeys(map(_explain, error.errors())))
            raise RecipeError(f"{where} has mistakes:\n  {mistakes}") from None

    def override(self, values: Mapping[str, Any]) -> Recipe:
        """Return a copy with `values` set, keys as "section.key"; strings are read as TOML.

        Raises:
            RecipeError: an unknown key or an impossible value; all mistakes at once.
        """
        tree = self.model_dump()
        for dotted, value in values.items():
            *parents, key = dotted.split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
                if not isinstance(place, dict):
                    raise RecipeError(f"{dotted}: {parent} is a value, not a section")
            place[key] = _parse_value(value) if isinstance(value, str) else value
        return Recipe.from_dict(tree, where=f"recipe {self.name} with changes")

    def without_search(self) -> Recipe:
        """Return the recipe without [search], which says nothing of a training."""
        return self.model_copy(update={"search": {}}) if self.search else self

    def to_toml(self) -> str:
        """Return the recipe as TOML, complete: also what stands at its default."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def differences(self, other: Recipe) -> list[str]:
        """Return "section.key: mine → theirs" for every value that differs."""
        mine, theirs = _flat(self.model_dump()), _flat(other.model_dump())
        return [
            f"{key}: {mine.get(key)} → {theirs.get(key)}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def builtin_recipes() -> dict[str, Recipe]:
    """Return the recipes that come with tinylens, by name."""
    return {name: Recipe.load(name) for name in _builtin_files()}


def _builtin_files() -> dict[str, Any]:
    folder = resources.files("tinylens") / "recipes"
    found = {
        item.name.removesuffix(".toml"): item
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def _listed() -> str:
    return ", ".join(_builtin_files())


def _parse_value(text: str) -> Any:
    """Read `text` as a TOML value; what is not one is a plain string, so quotes may be left off."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    if location[:2] == ["model", "options"] and len(location) > 2:
        return (
            f"{'.'.join(location[:3])}: expected a number, a word, true, false or a list of "
            f"numbers, got {item['input']!r}"
        )
    dotted = ".".join(location)
    if item["type"] == "extra_forbidden":
        parents, key = location[:-1], location[-1]
        return f"{dotted}: unknown key{_near_key(parents, key)}"
    if item["type"] == "missing":
        return f"{dotted}: missing"
    if location == ["search"] and item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    reason = str(item["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    if isinstance(item["input"], Mapping) and item["type"] == "value_error":
        return f"{dotted}: expected {reason}"  # of a whole section, which says itself what it got
    return f"{dotted}: expected {reason}, got {item['input']!r}"


def _near_key(parents: list[str], key: str) -> str:
    section: type[BaseModel] = Recipe
    if parents[:1] == ["search"]:
        section, parents = Searched, parents[2:]
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        section = annotation
    near = did_you_mean(key, section.model_fields)
    prefix = "".join(f"{parent}." for parent in parents)
    return near.replace("did you mean ", f"did you mean {prefix}") or (
        f"; {prefix.rstrip('.') or 'a recipe'} has {', '.join(section.model_fields)}"
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
