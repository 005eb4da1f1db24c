"""Dataset summary statistics and contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.markup import escape
from rich.table import Column, Table

from tinylens import files
from tinylens.data.dataset import Dataset, Images, Splits
from tinylens.data.resize_policy import DONE

CELL = 48  # pixels; smaller images are shown twice, three times, … as large
LARGEST_CELL = 128
MAX_ROWS = 200
GAP = 4

_BLOCK = 250  # images at a time: at every pixel their squares add up to less than 2³¹


@dataclass(frozen=True)
class PartSummary:
    """Summary of one split: size, images per class, skipped images."""

    images: int
    counts: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Summary:
    """Dataset summary.

    Attributes:
        source: Built-in dataset name or path.
        class_names: Class names in label order.
        image_shape: Height, width, channels.
        aspect: Resize mode for other aspect ratios.
        parts: Split summaries by name; `skipped` holds (path, reason).
        channel_mean: Mean of each channel over train, 0 to 255.
        channel_std: Standard deviation of each channel over train.
        fingerprint: SHA-256 of all splits.
        notes: Origin of the splits.
    """

    source: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    aspect: str
    parts: dict[str, PartSummary]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; skipped images as {"path", "reason"}."""
        tree = asdict(self)
        for part in tree["parts"].values():
            part["skipped"] = [{"path": path, "reason": why} for path, why in part["skipped"]]
        return tree

    def table(self) -> Table:
        """Format a table of image counts by class and split."""
        columns = [Column(name, justify="right") for name in self.parts]
        table = Table("class", *columns, title=escape(self.source))
        for number, name in enumerate(self.class_names):
            counts = [part.counts[number] for part in self.parts.values()]
            table.add_row(escape(name), *(f"{count:,}" for count in counts))
        table.add_section()
        table.add_row("all", *(f"{part.images:,}" for part in self.parts.values()))
        return table

    def lines(self, most_skipped: int = 20) -> Iterator[str]:
        """Yield the remaining facts, one per line, with the first `most_skipped` skipped images."""
        height, width, channels = self.image_shape
        colours = "grey" if channels == 1 else "RGB"
        aspect = "" if self.aspect == "stretch" else f", others {DONE[self.aspect]} to it"
        yield f"images       {width}×{height} {colours}{aspect}"
        pairs = zip(self.channel_mean, self.channel_std, strict=True)
        yield f"channels       {', '.join(f'{m:.1f} ± {s:.1f}' for m, s in pairs)} (of 255)"
        yield f"fingerprint    {self.fingerprint}"
        yield from (f"note           {note}" for note in self.notes)
        skipped = [one for part in self.parts.values() for one in part.skipped]
        yield from (f"set aside      {path}: {why}" for path, why in skipped[:most_skipped])
        if len(skipped) > most_skipped:
            yield f"set aside      and {len(skipped) - most_skipped:,} more; --json lists all"


def summarize(splits: Splits) -> Summary:
    """Summarize `splits`.

    >>> from tinylens.data.readers.synthetic import shapes
    >>> summarize(shapes(n_train=20, n_test=10)).parts["test"].images
    10
    """
    mean, std = channel_statistics(splits.train.images)
    return Summary(
        source=splits.source,
        class_names=splits.class_names,
        image_shape=splits.train.image_shape,
        aspect=splits.train.aspect,
        parts={name: _part(dataset) for name, dataset in splits.items()},
        channel_mean=mean,
        channel_std=std,
        fingerprint=splits.fingerprint,
        notes=splits.notes,
    )


def _part(dataset: Dataset) -> PartSummary:
    skipped = tuple((one.path, one.reason) for one in dataset.skipped)
    return PartSummary(len(dataset), tuple(dataset.counts.tolist()), skipped)


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute the exact mean and standard deviation of each channel.

    >>> channel_statistics(np.array([[[[0], [10]]]], np.uint8))
    ((5.0,), (5.0,))
    """
    channels = images.shape[3]
    sums, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), _BLOCK):
        levels = images[start : start + _BLOCK].astype(np.int32)
        sums += levels.sum(axis=0).reshape(-1, channels).sum(axis=0, dtype=np.int64)
        squares += (levels * levels).sum(axis=0).reshape(-1, channels).sum(axis=0, dtype=np.int64)
    count = images[..., 0].size
    # Python's whole numbers until the division: nothing is lost where the variance is small
    totals = list(zip(sums.tolist(), squares.tolist(), strict=True))
    variances = [(count * of_squares - total**2) / count**2 for total, of_squares in totals]
    return tuple(total / count for total, _ in totals), tuple(each**0.5 for each in variances)


def write_contact_sheet(data: Dataset, path: Path, columns: int = 12) -> None:
    """Write a contact sheet: a PNG with one labelled row of images per class.

    Args:
        data: Dataset.
        path: Output PNG.
        columns: Images per row, evenly spaced over the class.
    """
    files.write_with(path, lambda file: contact_sheet(data, columns).save(file, "PNG"))


def contact_sheet(data: Dataset, columns: int = 12) -> Image.Image:
    """Render the contact sheet of `write_contact_sheet`."""
    names = [_shortened(name) for name in data.class_names[:MAX_ROWS]]
    font = ImageFont.load_default(size=16)
    left = GAP * 2 + int(max(font.getlength(name) for name in names))
    height, width, _ = data.image_shape
    cell = _cell_size(height, width)
    rows = len(names) + (len(data.class_names) > MAX_ROWS)
    sheet = Image.new(
        "RGB",
        (left + columns * (cell[0] + GAP), rows * (cell[1] + GAP) + GAP),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for label, name in enumerate(names):
        top = GAP + label * (cell[1] + GAP)
        pen.text((GAP, top + cell[1] / 2), name, fill="black", font=font, anchor="lm")
        for column, row in enumerate(_evenly(np.flatnonzero(data.labels == label), columns)):
            image = _enlarged(data.images[row], cell)
            sheet.paste(image, (left + column * (cell[0] + GAP), top))
    if rows > len(names):
        more = f"… and {len(data.class_names) - MAX_ROWS} classes more"
        pen.text((GAP, sheet.height - cell[1] / 2), more, fill="black", font=font, anchor="lm")
    return sheet


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """Return the cell (width, height); small images are enlarged by integer factors."""
    larger = max(height, width)
    if larger > LARGEST_CELL:
        factor = LARGEST_CELL / larger
        return max(round(width * factor), 1), max(round(height * factor), 1)
    times = -(-CELL // larger)
    return width * times, height * times


def _evenly(rows: NDArray[np.int64], count: int) -> Sequence[int]:
    if len(rows) <= count:
        return [int(row) for row in rows]
    return [int(rows[i * len(rows) // count]) for i in range(count)]


def _enlarged(pixels: Images, size: tuple[int, int]) -> Image.Image:
    squeezed = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(squeezed)).convert("RGB")
    smaller = size[0] < image.width
    way = Image.Resampling.BICUBIC if smaller else Image.Resampling.NEAREST
    return image.resize(size, way)
