"""Reader for image archives (.zip, .tar, .tar.gz) in folder or manifest layout.

Archives are unpacked beside the cache while decoding; see `tinylens.data.readers.members` for what
is rejected. A .tar with .cls or .json files beside its images is read as a WebDataset shard.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.decode import Item, stamp_of
from tinylens.data.encoded import DEFAULTS, Encoded, Options, Seen, Source, read_encoded
from tinylens.data.readers import webdataset
from tinylens.data.readers.folder import IMAGE_SUFFIXES, TEXT_NAMES, Listing, lay_out, manifest_in
from tinylens.data.readers.manifest import Rows, class_names_beside, column_of
from tinylens.data.readers.members import Members, unpack
from tinylens.data.splits import Columns, Parts, shown


def read(path: str | Path, options: Options = DEFAULTS) -> Dataset | Splits:
    """Read an archive; returns Splits if there is a test split.

    Raises:
        DataError: it is damaged, encrypted or harmful, what is in it does not say which classes
            there are, or no image can be read.
    """
    return read_parts(path, options).published()


def read_parts(path: str | Path, options: Options = DEFAULTS) -> Parts:
    """Read the splits of an archive as stored; see `read`."""
    return read_encoded(source(Path(path), options), options)


def source(path: Path, options: Options = DEFAULTS) -> Source:
    """Return the image source of an archive."""
    return Source(
        name=str(path),
        prefix=f"{path.parent}/",
        look=lambda: Seen(_seen(path, options.columns)),
        collect=lambda workspace, expect: _collect(path, options.columns, workspace, expect),
    )


def read_column(
    path: Path, column: str, options: Options = DEFAULTS
) -> Mapping[str, str | None] | None:
    """Read a column of the archive's manifest by image name; None without a manifest.

    Raises:
        DataError: the archive or the manifest cannot be read.
    """
    with tempfile.TemporaryDirectory() as workspace:
        members = unpack(path, Path(workspace))
        if webdataset.is_shard(members.files):
            return webdataset.read_column(path, column, Path(workspace))
        found = manifest_in(_listing(path, members), options.columns)
    if found is None:
        return None
    manifest, prefix = found
    return column_of(manifest, column, f"{path}/{prefix}", options.columns)


def _seen(path: Path, columns: Columns) -> list[Any]:
    named = class_names_beside(path.parent)  # which a single shard takes
    return [str(path), stamp_of(str(path)), [columns.image, columns.label], named]


def _collect(
    path: Path, columns: Columns, workspace: Path, expect: Callable[[int], None]
) -> Encoded:
    seen = _seen(path, columns)

    def look() -> list[Any]:
        return _seen(path, columns)

    members = unpack(path, workspace)
    expect(len(members.files))
    if webdataset.is_shard(members.files):
        return webdataset.collect_archive(path, members.files, columns, seen, look)
    listing = _listing(path, members)
    rows, notes = lay_out(listing, columns)
    if members.ignored:
        notes.append(f"{members.ignored:,} files, no images by name, were left out")
    usable, items = _usable(rows, members)
    return Encoded(
        parts=usable.parts,
        items=items,
        labels=usable.labels,
        names=[f"{path.name}/{shown(name)}" for name in usable.names],
        class_names=tuple(map(shown, usable.class_names)),
        seen=lambda _: seen,
        unchanged=lambda: look() == seen,
        notes=notes,
        skipped=[(part, f"{path.name}/{shown(name)}", why) for part, name, why in usable.skipped],
    )


def _usable(rows: Rows, members: Members) -> tuple[Rows, list[Item]]:
    """Return the rows whose images exist in the archive, with their byte ranges."""
    kept = Rows({}, [], [], rows.class_names, list(rows.skipped))
    items: list[Item] = []
    members_by_name = {each.name: each for each in members.files}
    for part, (start, stop) in rows.parts.items():
        first = len(items)
        for name, label in zip(rows.names[start:stop], rows.labels[start:stop], strict=True):
            member = members_by_name.get(name)
            if member is None or member.problem:
                problem = member.problem if member else "not in the archive"
                kept.skipped.append((part, name, problem))
                continue
            kept.names.append(name)
            kept.labels.append(label)
            items.append(member.item)
        kept.parts[part] = (first, len(items))
    return kept, items


def _listing(path: Path, members: Members) -> Listing:
    """Return the members as a folder listing."""
    items = {each.name: each.item for each in members.files}
    folders: dict[str, list[str]] = {"": []}
    texts = []
    for name in sorted(items):
        folder, _, file = name.rpartition("/")
        if file.lower() in TEXT_NAMES:
            texts.append(name)
        if file.lower().rpartition(".")[2] not in IMAGE_SUFFIXES:
            continue
        above = folder
        while above not in folders:
            folders[above] = []
            above = above.rpartition("/")[0]
        folders[folder].append(file)
    return Listing(str(path), folders, texts, items.get)
