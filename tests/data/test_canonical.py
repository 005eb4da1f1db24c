from __future__ import annotations

import hashlib
import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import builders_data as build
import tinylens as tl
from tinylens.data.canonical import canonical_rows

ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), min_size=1, max_size=12)


@given(ROWS, st.integers(0, 99))
def test_the_order_in_which_images_came_does_not_matter(rows, seed):
    """Duplicates are in it: of 4 contents and 3 classes there are but 12 kinds of images."""

    def ordered(rows):
        digests, labels = ([row[n] for row in rows] for n in (0, 1))
        names = list(map(str, range(len(rows))))
        kept, bounds = canonical_rows({"train": (0, len(rows))}, (), digests, labels, names)
        assert sorted(kept) == list(range(len(rows))) and bounds == {"train": [0, len(rows)]}
        return [rows[row] for row in kept]

    assert ordered(rows) == ordered(random.Random(seed).sample(rows, len(rows)))


def test_images_are_carved_by_what_they_show_and_not_by_their_names(tmp_path):
    """Two of them are the same image, and one is the same in both classes."""
    images = [build.plain((9 * n, 0, 0)) for n in range(20)]
    images[7] = images[3]
    labels = [n % 2 for n in range(20)]
    labels[3] = labels[7] = 0
    images[8], labels[8], images[9], labels[9] = images[10], 0, images[10], 1
    found = []
    for seed in range(3):
        rows = random.Random(seed).sample(list(zip(images, labels, strict=True)), 20)
        root = tmp_path / str(seed)
        for name, (content, label) in enumerate(rows):
            (root / "ab"[label]).mkdir(parents=True, exist_ok=True)
            (root / "ab"[label] / f"{name}.png").write_bytes(content)
        found.append(tl.load(root, val=0.2, test=0.2, data_dir=tmp_path / "cache"))
    assert len({splits.fingerprint for splits in found}) == 1
    assert len({tuple(splits.train.paths) for splits in found}) == 3


def test_rows_are_in_the_order_of_the_hashes_of_files(tmp_path):
    root = build.two_classes(tmp_path / "pets", 8)
    train = tl.load(root, val=0, data_dir=tmp_path / "cache").train
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in train.paths]
    assert digests == sorted(digests) and len(set(train.labels.tolist())) == 2
