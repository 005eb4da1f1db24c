"""Reader and writer for .npz files and folders of .npy files.

Arrays are x_train, y_train, x_test, y_test, or images, labels, class_names, split. Images of a
folder are memory-mapped. Pickled object arrays are rejected; sizes are checked before unzipping.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.data.dataset import SPLIT_NAMES, Aspect, Dataset, Splits
from tinylens.data.splits import Parts, numbered_names, parts_of
from tinylens.errors import DataError

MAX_BYTES = 16_000_000_000  # of all arrays, unzipped
SUSPICIOUS_BYTES = 1_000_000_000  # above it, what was zipped to under 1 % is taken for a bomb
SUSPICIOUS_RATIO = 100
MAX_CLASSES = 10_000  # without names, a label above is more likely damage than a class

Arrays = dict[str, NDArray[Any]]

_PAIRS = {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
_WHOLE = ("images", "labels", "class_names", "split", "aspect")
_KNOWN = (*(name for pair in _PAIRS.values() for name in pair), *_WHOLE)


def read(path: str | Path) -> Dataset | Splits:
    """Read an .npz file.

    Either x_train and y_train, with x_test, y_test, x_val, y_val where there are such parts, as
    Keras writes MNIST; or images and labels, with split ("train", "val" or "test" an image) where
    there are parts. class_names goes with both; without it classes are called by their numbers.
    aspect, too, says how images of other shapes were brought to this one: "pad" or "crop".

    Raises:
        DataError: naming the file, when it is damaged, holds objects, claims more than it holds,
            or its arrays do not fit together.
    """
    return read_parts(path).published()


def read_parts(path: str | Path, class_names: tuple[str, ...] = ()) -> Parts:
    """Read the splits of an .npz file or a folder of .npy files; see `read`.

    The images of a folder are mapped, not read. `class_names` go before those in the file.
    """
    path = Path(path)
    arrays = _load_folder(path) if path.is_dir() else _load(path)
    pairs = _pairs(path, arrays)
    names = class_names or _class_names(path, arrays, pairs)
    aspect = _aspect(path, arrays)
    found = {
        part: Dataset(images, labels, names, source=str(path), aspect=aspect)
        for part, (images, labels) in pairs.items()
    }
    return parts_of(found, str(path))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder of .npy files with training images."""
    return any((path / f"{name}.npy").is_file() for name in ("x_train", "images"))


def read_groups(path: Path, name: str) -> dict[str, list[str]]:
    """Read groups by split from the array `name`, or `name`_train and so on.

    Raises:
        DataError: there is no such array, or it is not one group an image.
    """
    wanted = (name, *(f"{name}_{part}" for part in SPLIT_NAMES))
    arrays = _load(path, (*_KNOWN, *wanted))
    pairs = _pairs(path, arrays)
    split = arrays.get("split")
    found = {}
    for part, (_, labels) in pairs.items():
        groups = arrays.get(f"{name}_{part}")
        if groups is None and name in arrays and "images" in arrays:
            groups = arrays[name] if split is None else arrays[name][split == part]
        if groups is None or groups.shape != labels.shape or groups.dtype.kind not in "iuU":
            described = "none" if groups is None else f"{groups.dtype} of shape {groups.shape}"
            raise DataError(
                f"{path}: groups {name!r} of {part}: {described}, expected whole numbers or text, "
                f"one for each of its {len(labels)} images, as {name} beside images, or as "
                f"{name}_{part} beside x_{part}"
            )
        found[part] = [str(group) for group in groups.tolist()]
    return found


def write(path: str | Path, data: Dataset | Splits) -> None:
    """Write `data` as an .npz file that `read` reads back.

    >>> from tempfile import TemporaryDirectory
    >>> data = Dataset(np.zeros((2, 4, 4, 1), np.uint8), [0, 1], ("cat", "dog"), source="example")
    >>> with TemporaryDirectory() as folder:
    ...     write(f"{folder}/pets.npz", data)
    ...     read(f"{folder}/pets.npz").fingerprint == data.fingerprint
    True
    """
    if isinstance(data, Dataset):
        _save(Path(path), data, {"images": data.images, "labels": data.labels})
    else:
        write_parts(path, Parts(data.train, data.val, data.test))


def write_parts(path: str | Path, parts: Parts) -> None:
    """Write splits (val and test optional) as an .npz file; see `write`.

    Where the images have groups, arrays `groups_train` and so on hold them; see `read_groups`.
    """
    found: Arrays = {}
    for name, part in parts.items():
        x_name, y_name = _PAIRS[name]
        found |= {x_name: part.images, y_name: part.labels}
        if part.groups:
            found[f"groups_{name}"] = np.array(part.groups)
    _save(Path(path), parts.train, found)


def _save(path: Path, data: Dataset, arrays: Arrays) -> None:
    whole: Arrays = {"class_names": np.array(data.class_names), **arrays}
    if data.aspect != "stretch":
        whole["aspect"] = np.array(data.aspect)
    files.write_with(path, lambda file: np.savez_compressed(file, allow_pickle=False, **whole))


def _load(path: Path, wanted: Sequence[str] = _KNOWN) -> Arrays:
    """Load the arrays with known names after checking their declared sizes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive, wanted)
            return {name: _member(path, archive, info) for name, info in members.items()}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, MemoryError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or "memory is short"
        raise DataError(
            f"{path}: cannot be read: {reason}; expected an .npz file of plain arrays"
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
        raise DataError(
            f"{path}: cannot be unzipped: {error}; write it with numpy.savez"
        ) from error


def _load_folder(path: Path) -> Arrays:
    """Load a folder's arrays with known names; large ones are memory-mapped."""
    found: Arrays = {}
    for name in _KNOWN:
        file = path / f"{name}.npy"
        if not file.is_file():
            continue
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise DataError(
                f"{file}: cannot be read: {reason}; expected an .npy file of numbers or text, not "
                "of Python objects"
            ) from error
        # the test of its size that a copy cut short fails is the mapping itself
        found[name] = array if array.ndim > 2 else np.array(array)
    if not found:
        raise DataError(
            f"{path}: a folder without x_train.npy and y_train.npy; expected these, or an .npz file"
        )
    if "split" in found:
        raise DataError(
            f"{path}: holds split.npy, expected a folder's parts in files of their own: "
            "x_train.npy and y_train.npy, x_test.npy and y_test.npy, and with val in the name; a "
            "set that fits into memory may be one .npz file"
        )
    return found


def _members(
    path: Path, archive: zipfile.ZipFile, wanted: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    members = {name: infos[name] for name in wanted if name in infos}
    total = sum(info.file_size for info in members.values())
    zipped = sum(info.compress_size for info in members.values())
    bomb = total > SUSPICIOUS_BYTES and total > SUSPICIOUS_RATIO * zipped
    if total > MAX_BYTES or bomb:
        raise DataError(
            f"{path}: {zipped:,} bytes unzip to {total:,}, expected at most {MAX_BYTES:,} and, "
            f"above {SUSPICIOUS_BYTES:,}, {SUSPICIOUS_RATIO} times the zipped size"
        )
    if not members:
        found = ", ".join(sorted(infos)) or "nothing"
        raise DataError(
            f"{path}: holds {found}; expected x_train and y_train, or images and labels"
        )
    return members


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as file:
        shape, dtype, header_bytes = _npy_header(path, file, info.filename)
        claimed = dtype.itemsize * int(np.prod(shape, dtype=object))
        if claimed != info.file_size - header_bytes:
            raise DataError(
                f"{path}: {info.filename} claims shape {shape} of {dtype}, {claimed:,} bytes, and "
                f"holds {info.file_size - header_bytes:,}; expected as many"
            )
    with archive.open(info) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _npy_header(path: Path, file: IO[bytes], name: str) -> tuple[tuple[int, ...], Any, int]:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise DataError(f"{path}: {name} is of .npy version {version}, expected (1, 0) or (2, 0)")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise DataError(
            f"{path}: {name} holds Python objects, expected numbers or text; such a file can run a "
            "program when it is opened, so it is not"
        )
    return shape, dtype, file.tell()


def _pairs(path: Path, arrays: Arrays) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    if "images" in arrays or "labels" in arrays:
        return _by_split(path, arrays)
    pairs = {}
    for part, (x_name, y_name) in _PAIRS.items():
        if (x_name in arrays) != (y_name in arrays):
            found, missing = (x_name, y_name) if x_name in arrays else (y_name, x_name)
            raise DataError(f"{path}: holds {found} but no {missing}; expected both")
        if x_name in arrays:
            pairs[part] = arrays[x_name], arrays[y_name]
    if not pairs:
        raise DataError(
            f"{path}: holds {', '.join(arrays)} alone; expected x_train and y_train, or images and "
            "labels"
        )
    return pairs


def _by_split(path: Path, arrays: Arrays) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    if not ("images" in arrays and "labels" in arrays):
        raise DataError(f"{path}: holds {', '.join(arrays)}; expected both images and labels")
    images, labels = arrays["images"], arrays["labels"]
    split = arrays.get("split")
    if split is None:
        return {"train": (images, labels)}
    if split.dtype.kind != "U" or split.shape != (len(images),) or len(labels) != len(images):
        raise DataError(
            f"{path}: {len(images)} images, {len(labels)} labels and split {split.dtype} of shape "
            f"{split.shape}; expected one label and one word each"
        )
    unknown = sorted(set(split.tolist()) - set(SPLIT_NAMES))
    if unknown:
        raise DataError(f"{path}: split says {', '.join(unknown[:5])}; expected train, val, test")
    present = [part for part in SPLIT_NAMES if (split == part).any()]
    return {part: (images[split == part], labels[split == part]) for part in present}


def _aspect(path: Path, arrays: Arrays) -> Aspect:
    given = arrays.get("aspect", np.array("stretch"))
    for known in get_args(Aspect):
        if given.shape == () and given.item() == known:
            return cast(Aspect, known)
    raise DataError(
        f"{path}: aspect is {given.dtype} of shape {given.shape}, expected one of the words "
        f"{', '.join(get_args(Aspect))}"
    )


def _class_names(
    path: Path, arrays: Arrays, pairs: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
) -> tuple[str, ...]:
    given = arrays.get("class_names")
    if given is not None:
        if given.dtype.kind != "U" or given.ndim != 1:
            raise DataError(
                f"{path}: class_names is {given.dtype} of shape {given.shape}, expected text of "
                "shape (classes,)"
            )
        return tuple(str(name) for name in given)
    labels = [labels for _, labels in pairs.values()]
    if any(each.dtype.kind not in "iu" or not each.size for each in labels):
        return numbered_names(1)  # Dataset says what is wrong with them
    highest = max(int(each.max()) for each in labels)
    if highest >= MAX_CLASSES:
        raise DataError(f"{path}: the highest label is {highest}, expected under {MAX_CLASSES:,}")
    return numbered_names(max(highest, 0))
