"""`convert`: a data set in another form, with the same bytes in every picture."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinylens import files
from tinylens.data import sources, writing
from tinylens.data.cache import cache_root
from tinylens.data.encoded import DEFAULTS, Options
from tinylens.data.stock import Stock, stock_of_arrays, stock_of_path
from tinylens.errors import DataError


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        destination: its path.
        class_names: in the order of their numbers.
        pictures: how many there are in each part.
        groups: how many groups they are in; 0 where every picture stands alone.
        skipped: (name, reason) of what is no picture and was left behind.
    """

    destination: str
    class_names: tuple[str, ...]
    pictures: dict[str, int]
    groups: int
    skipped: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; what was left behind as {"path", "reason"}."""
        skipped = [{"path": path, "reason": reason} for path, reason in self.skipped]
        return asdict(self) | {"skipped": skipped}


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    form: str = "",
    groups: str = "",
    options: Options = DEFAULTS,
) -> Converted:
    """Write a data set in another form; pictures keep their bytes, classes, parts and groups.

    Pictures in arrays (IDX, CIFAR, .npz, known sets) become PNG files, which keep every pixel.

    Args:
        source: a known set's name or a path, as for `tinylens.load`.
        destination: of what is written; must not be there.
        form: folder, zip, tar, tgz, csv, tsv, jsonl, parquet, webdataset or huggingface; "" goes by
            the ending of the destination.
        groups: what tells which pictures belong together; "" takes a column `group`, where there is
            one.
        options: how the source is read.

    Raises:
        DataError: the source cannot be read, the destination is there or cannot be written, or the
            form cannot keep what the source holds.
        RecipeError: no form is given, or one that does not go with the destination's name.
    """
    destination = Path(destination)
    chosen = writing.form_of(destination, form)
    if destination.exists() or destination.is_symlink():
        raise DataError(f"{destination}: is there already; expected a new name: give another one")
    root = cache_root(options.data_dir)
    with tempfile.TemporaryDirectory(dir=root, prefix=files.TEMPORARY_PREFIX) as workspace:
        stock = _stock_of(source, groups, options, Path(workspace))
        count = sum(map(len, stock.parts.values()))
        done = count

        def step() -> None:
            nonlocal done
            done += 1
            if options.progress:
                options.progress(done, 2 * count)

        try:
            writing.write(stock, chosen, destination, step)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"{destination}: cannot be written: {reason}") from error
    return Converted(
        destination=str(destination),
        class_names=stock.class_names,
        pictures={part: len(pictures) for part, pictures in stock.parts.items()},
        groups=len({picture.group for _, picture in stock.items()} - {""}),
        skipped=stock.skipped,
    )


def _stock_of(source: str | Path, groups: str, options: Options, workspace: Path) -> Stock:
    if isinstance(source, str) and source in sources.KNOWN_NAMES:
        return stock_of_arrays(sources.load_parts(source, options), {}, workspace, options.progress)
    path = Path(source)
    sources.kind_of(path)  # which says so where there is none
    return stock_of_path(path, options, groups, workspace)
