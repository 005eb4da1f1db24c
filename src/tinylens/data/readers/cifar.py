"""Reader for CIFAR-10 and CIFAR-100: python or binary version, archive or folder.

Pickles can execute code, so each is loaded only if its SHA-256 matches the published file, and
then by a restricted unpickler for arrays, text and numbers.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylens.data.dataset import Dataset, Images, Labels, Splits
from tinylens.data.splits import Parts, numbered_names, parts_of
from tinylens.errors import DataError


def unpickled(where: str, content: bytes) -> object:
    """Load a pickle safely: dict, list, text, bytes, numbers and `PickledArray` only.

    Raises:
        DataError: naming `where`, when it is damaged or asks for anything else.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # hostile bytes make the unpickler raise whatever they like
        raise DataError(
            f"{where}: cannot be unpickled: {error}; expected arrays, text and numbers alone"
        ) from error


def entry(tree: object, key: str) -> object:
    """Return `tree[key]`; the published files have bytes for keys."""
    if not isinstance(tree, dict):
        return None
    return tree.get(key.encode(), tree.get(key))


class PickledArray:
    """Placeholder for numpy.ndarray while unpickling; allocates nothing."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.kind = ""
        self.content = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, content = state
        if by_column or not isinstance(kind, _Kind) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of another kind than uint8 rows")
        self.shape, self.kind, self.content = tuple(shape), kind.code, content

    def values(self, where: str) -> Images:
        """Return the array, uint8.

        Raises:
            DataError: naming `where`, when it is of another type or has other bytes than its shape.
        """
        size = int(np.prod(self.shape, dtype=object)) if self.shape else 0
        if self.kind not in ("u1", "uint8", "|u1") or len(self.content) != size:
            raise DataError(
                f"{where}: data of type {self.kind} in {len(self.content):,} bytes for shape "
                f"{self.shape}, expected uint8"
            )
        return np.frombuffer(self.content, np.uint8).reshape(self.shape)


class _Kind:
    """Placeholder for numpy.dtype while unpickling."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, irrelevant for bytes."""


def _new_array(*_: object) -> PickledArray:
    return PickledArray()


def _as_bytes(text: str, encoding: str) -> bytes:
    """Replacement for codecs.encode, which Python 3 uses to pickle bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _as_bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return _KNOWN[module, name]


SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
MAX_MEMBER_BYTES = 400_000_000  # the largest published file, train of CIFAR-100, has 155,249,918
MAX_MEMBERS = 1_000
MAX_CLASSES = 256  # where there are no names: a label of the binary version is a byte


@dataclass(frozen=True)
class Layout:
    """File layout of one of the four CIFAR distributions.

    Attributes:
        folder: Folder of all files.
        parts: Files of each split.
        names: the file with the class names; the set is readable without.
        label: for the binary version, which byte before the pixels is the label; for the python
            version, the key of the labels.
        names_key: of the class names, in the python version; "" in the binary one.
        sha256: of each pickle as published, by file name.
    """

    folder: str
    parts: Mapping[str, tuple[str, ...]]
    names: str
    label: str | int
    names_key: str = ""
    sha256: Mapping[str, str] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All files, class names last."""
        return (*(name for names in self.parts.values() for name in names), self.names)


LAYOUTS = (
    Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        "labels",
        "label_names",
        {
            "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
            "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
            "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
            "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
            "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
            "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
            "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
        },
    ),
    Layout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)},
        "batches.meta.txt",
        0,
    ),
    Layout(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "meta",
        "fine_labels",
        "fine_label_names",
        {
            "train": "735e79b04f092ca3d2e6d07f368c0a7d70d48c48d28865950cc24454cf45129b",
            "test": "4b67687d9933c4db8f0831104447f15b93774f4f464bd0516f0f0f2ac83b7864",
            "meta": "a5d4786345c961390f865e93b434dbd5c6904ce880667e0cb888c97d449f28b9",
        },
    ),
    Layout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        1,  # byte 0 is the coarse label
    ),
)


def read(path: str | Path, *, trusted: bool = False) -> Dataset | Splits:
    """Read CIFAR from a folder or archive; CIFAR-100 with fine labels.

    Args:
        path: of the archive (.tar.gz), of the unpacked folder, or of the folder around it.
        trusted: unpickle files that are not the published ones too, still calling nothing.

    Raises:
        DataError: naming the file, when one is missing, damaged, or not the published one.
    """
    return read_parts(path, trusted=trusted).published()


def read_parts(path: str | Path, *, trusted: bool = False) -> Parts:
    """Read the splits of a folder or archive; see `read`."""
    path = Path(path)
    layout, contents = _from_folder(path) if path.is_dir() else _from_archive(path)
    where = {name: f"{path}: {name}" for name in layout.files}
    if layout.sha256 is not None and not trusted:
        _check_published(where, contents, layout.sha256)
    names = _class_names(where, contents, layout)
    limit = len(names) or MAX_CLASSES
    raw = {
        part: [
            _batch(where[name], contents[name], layout, limit) for name in inner if name in contents
        ]
        for part, inner in layout.parts.items()
    }
    highest = max(int(labels.max()) for batches in raw.values() for _, labels in batches)
    found = {
        part: Dataset(
            np.concatenate([images for images, _ in batches]),
            np.concatenate([labels for _, labels in batches]),
            names or numbered_names(highest),
            source=str(path),
        )
        for part, batches in raw.items()
        if batches
    }
    return parts_of(found, str(path))


def find_layout(folder: Path) -> tuple[Layout, Path] | None:
    """Detect the layout of an unpacked CIFAR folder; return it and the path of its files."""
    for layout in LAYOUTS:
        for place in (folder, folder / layout.folder):
            first = layout.parts["train"][0]
            # a folder with the entry "train" is more likely one of images
            if (place / first).is_file() and (place.name == layout.folder or first != "train"):
                return layout, place
    return None


def _from_folder(path: Path) -> tuple[Layout, dict[str, bytes]]:
    found = find_layout(path)
    if found is None:
        raise DataError(f"{path}: no CIFAR files; expected one of {_expected()} in it")
    layout, place = found
    contents = {}
    for file in (place / name for name in layout.files if (place / name).is_file()):
        try:
            if (size := file.stat().st_size) > MAX_MEMBER_BYTES:
                raise DataError(f"{file}: {size:,} bytes, too large for a CIFAR file")
            contents[file.name] = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    _check_complete(path, layout, contents)
    return layout, contents


def _from_archive(path: Path) -> tuple[Layout, dict[str, bytes]]:
    try:
        with tarfile.open(path, "r:*") as archive:
            found = _members(path, archive)
            _read_to_the_end(archive)
            return found
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise DataError(
            f"{path}: not a whole archive: {reason}; expected a CIFAR .tar.gz: fetch it anew"
        ) from error


def _members(path: Path, archive: tarfile.TarFile) -> tuple[Layout, dict[str, bytes]]:
    """Read a layout's files from an archive in memory."""
    wanted = {
        f"{layout.folder}/{name}": (layout, name) for layout in LAYOUTS for name in layout.files
    }
    layout: Layout | None = None
    contents: dict[str, bytes] = {}
    for number, member in enumerate(archive):
        if number >= MAX_MEMBERS:
            raise DataError(f"{path}: more than {MAX_MEMBERS:,} members, expected under ten")
        mine, name = wanted.get(member.name.removeprefix("./"), (None, ""))
        if mine is None:
            continue
        if (layout is not None and mine is not layout) or name in contents:
            raise DataError(f"{path}: holds {member.name} as well, expected each file of one set")
        if not member.isreg() or member.size > MAX_MEMBER_BYTES:
            raise DataError(
                f"{path}: {member.name} is {'too large' if member.isreg() else 'no regular file'}; "
                "expected a file as published"
            )
        source = archive.extractfile(member)
        layout, contents[name] = mine, source.read() if source else b""
    if layout is None:
        raise DataError(f"{path}: no CIFAR files in the archive; expected one of {_expected()}")
    _check_complete(path, layout, contents)
    return layout, contents


def _read_to_the_end(archive: tarfile.TarFile) -> None:
    """Read to the end so that gzip verifies its checksum, which tarfile does not reach."""
    source = archive.fileobj
    rest = MAX_MEMBER_BYTES
    while source is not None and rest > 0 and (piece := source.read(min(rest, 1 << 20))):
        rest -= len(piece)


def _expected() -> str:
    return ", ".join(f"{layout.folder}/{layout.parts['train'][0]}" for layout in LAYOUTS)


def _check_complete(path: Path, layout: Layout, contents: Mapping[str, bytes]) -> None:
    missing = [name for name in layout.parts["train"] if name not in contents]
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)}; expected {', '.join(layout.files)}")


def _check_published(
    where: Mapping[str, str], contents: Mapping[str, bytes], published: Mapping[str, str]
) -> None:
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != published[name]:
            raise DataError(
                f"{where[name]}: hash mismatch: expected {published[name]}, got {found}; it is a "
                "pickle and not the published one, so it is not opened: fetch it anew, or read it "
                "with tinylens.data.readers.cifar.read(path, trusted=True) if you made it"
            )


def _batch(where: str, content: bytes, layout: Layout, classes: int) -> tuple[Images, Labels]:
    if isinstance(layout.label, int):
        images, labels = _binary_batch(where, content, layout.label)
    else:
        images, labels = _pickled_batch(where, content, layout.label)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        shown = ", ".join(f"record {row}: {labels[row]}" for row in wrong[:5])
        raise DataError(
            f"{where}: {len(wrong)} labels outside 0…{classes - 1} ({shown}); expected each to "
            "number one of the class names"
        )
    return images, labels


def _binary_batch(where: str, content: bytes, label_byte: int) -> tuple[Images, Labels]:
    record = label_byte + 1 + IMAGE_BYTES
    if not content or len(content) % record:
        raise DataError(
            f"{where}: {len(content):,} bytes, expected a whole number of {record}-byte records; "
            f"the last begins at byte {len(content) // record * record:,}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _images(rows[:, label_byte + 1 :]), rows[:, label_byte].astype(np.int64)


def _pickled_batch(where: str, content: bytes, key: str) -> tuple[Images, Labels]:
    tree = unpickled(where, content)
    pixels, labels = entry(tree, "data"), entry(tree, key)
    if not isinstance(pixels, PickledArray) or not isinstance(labels, list):
        raise DataError(f"{where}: no {key} or no data; expected a CIFAR batch")
    if not labels or pixels.shape != (len(labels), IMAGE_BYTES):
        raise DataError(
            f"{where}: {len(labels)} labels and data of shape {pixels.shape}, expected "
            f"(n, {IMAGE_BYTES}) and n labels"
        )
    if not all(isinstance(label, int) and abs(label) < 2**31 for label in labels):
        odd = [label for label in labels if not isinstance(label, int) or abs(label) >= 2**31]
        raise DataError(f"{where}: labels {odd[:5]!r}, expected whole numbers from 0")
    return _images(pixels.values(where)), np.array(labels, np.int64)


def _images(rows: Images) -> Images:
    """Convert planar RGB rows to images, (n, 32, 32, 3)."""
    return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _class_names(
    where: Mapping[str, str], contents: Mapping[str, bytes], layout: Layout
) -> tuple[str, ...]:
    content = contents.get(layout.names)
    if content is None:
        return ()
    try:
        if not layout.names_key:
            return tuple(line for line in content.decode("utf-8").splitlines() if line)
        found = entry(unpickled(where[layout.names], content), layout.names_key)
        names = found if isinstance(found, list) else []
        return tuple(n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in names)
    except UnicodeDecodeError as error:
        raise DataError(f"{where[layout.names]}: class names that are no text") from error
