"""Images that belong together stay together, whatever they are read from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinylens as tl
from builders_data import encoded, parquet
from tinylens.data import groups
from tinylens.data.convert import FORMS, convert
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.readers import arrays
from tinylens.errors import DataError, RecipeError

PRODUCTS = 24
EACH = 5


def products(seed=0):
    """Return images of some products, and what each shows; all pixels tell the product."""
    labels = np.repeat(np.arange(PRODUCTS) % 3, EACH)
    product = np.repeat(np.arange(PRODUCTS), EACH)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = np.repeat(product[:, None] * 10, 64, axis=1).reshape(-1, 8, 8, 1).astype(np.uint8)
    return images[order], labels[order], product[order]


def write_npz(path):
    images, labels, product = products()
    np.savez(path, images=images, labels=labels, sku=product, shop=product.astype(str))
    return path


def products_of(part):
    """Return the products of a part, by their pixels."""
    return set((part.images[:, 0, 0, 0] // 10).tolist())


def check_apart(splits):
    parts = [products_of(part) for _, part in splits.items()]
    assert sum(map(len, parts)) == PRODUCTS == len(set.union(*parts))
    for _, part in splits.items():
        assert set(part.labels) == {0, 1, 2}
        assert len(part.groups) == len(part)
    assert sum(len(part) for _, part in splits.items()) == PRODUCTS * EACH


@pytest.mark.parametrize("name", ["sku", "shop"])
@pytest.mark.parametrize("seed", range(5))
def test_no_product_is_in_two_parts(name, seed, tmp_path):
    path = write_npz(tmp_path / "shop.npz")
    splits = tl.load(path, groups=name, val=0.2, test=0.25, split_seed=seed)
    check_apart(splits)
    assert 0.15 <= len(splits.test) / (PRODUCTS * EACH) <= 0.35
    assert "groups kept whole" in " ".join(splits.notes)
    again = tl.load(path, groups=name, val=0.2, test=0.25, split_seed=seed)
    assert again.fingerprint == splits.fingerprint


def test_without_groups_products_are_parted(tmp_path):
    splits = tl.load(write_npz(tmp_path / "shop.npz"), val=0.2, test=0.25)
    assert products_of(splits.train) & products_of(splits.test)


def test_a_column_of_a_table(tmp_path):
    images, labels, product = products()
    samples = [encoded(image[..., 0]) for image in images]
    parquet(tmp_path / "train.parquet", samples, labels.tolist(), names="abc", sku=product.tolist())
    check_apart(tl.load(tmp_path, groups="sku", val=0.2, test=0.25))
    with pytest.raises(DataError, match=r"column shop is missing; expected .* sku"):
        tl.load(tmp_path, groups="shop")


@pytest.mark.parametrize("form", FORMS)
def test_groups_are_kept_apart_whatever_the_set_lies_in(tmp_path, form, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "set"
    convert(write_npz(tmp_path / "shop.npz"), path, form=form, groups="sku")
    found = tl.load(path, groups="group", val=0.2, test=0.25)
    check_apart(found)
    other = tl.load(path, groups="group", val=0.2, test=0.25, split_seed=1)
    assert other.fingerprint != found.fingerprint
    with pytest.raises(
        (DataError, RecipeError), match=r"no column is called so|column shop is mis"
    ):
        tl.load(path, groups="shop")


def test_the_form_does_not_change_which_groups_are_carved_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    prints = set()
    for form in FORMS:
        path = tmp_path / form
        convert(write_npz(tmp_path / "shop.npz"), path, form=form, groups="sku")
        prints.add(tl.load(path, groups="group", val=0.2, test=0.25).fingerprint)
    assert len(prints) == 1


def test_a_pattern_of_folders(tmp_path):
    from PIL import Image

    for row, (image, label, product) in enumerate(zip(*products(), strict=True)):
        folder = tmp_path / f"class{label}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"sku{product}-{row}.png")
    check_apart(tl.load(tmp_path, groups="(sku[0-9]+)-", val=0.2, test=0.25))
    with pytest.raises(DataError, match="120 of 120 images have no group by"):
        tl.load(tmp_path, groups="(article[0-9]+)")
    with pytest.raises(RecipeError, match="0 brackets, expected one"):
        tl.load(tmp_path, groups="sku[0-9]+")
    with pytest.raises(RecipeError, match="no regular expression"):
        tl.load(tmp_path, groups="(sku")


def test_parts_that_share_a_group_are_refused(tmp_path):
    images, labels, product = products()
    split = np.where(np.arange(len(labels)) < 90, "train", "test")
    np.savez(tmp_path / "a.npz", images=images, labels=labels, split=split, sku=product)
    with pytest.raises(DataError, match=r"groups by 'sku' are in test and in another part as well"):
        tl.load(tmp_path / "a.npz", groups="sku")
    apart = np.where(product < 18, "train", "test")
    np.savez(tmp_path / "b.npz", images=images, labels=labels, split=apart, sku=product)
    check_apart(tl.load(tmp_path / "b.npz", groups="sku", val=0.2))


def test_arrays_of_parts_have_groups_of_their_own(tmp_path):
    images, labels, product = products()
    old = product < 18
    np.savez(
        tmp_path / "a.npz",
        x_train=images[old], y_train=labels[old], sku_train=product[old],
        x_test=images[~old], y_test=labels[~old], sku_test=product[~old],
    )  # fmt: skip
    check_apart(tl.load(tmp_path / "a.npz", groups="sku", val=0.2))
    with pytest.raises(DataError, match="groups 'shop' of train: none, expected"):
        tl.load(tmp_path / "a.npz", groups="shop")


def test_a_set_without_names_or_columns_has_no_groups():
    with pytest.raises(DataError, match="neither names nor columns"):
        tl.load("shapes", groups="sku")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.sampled_from([0.1, 0.2, 0.3, 0.5]))
def test_carving_keeps_groups_whole_and_comes_near_the_share(seed, share):
    random = np.random.default_rng(seed)
    product = np.repeat(np.arange(200), random.integers(1, 8, 200))
    labels = product % 4
    rest, part = groups.carve(labels, list(map(str, product)), share, seed)
    assert not set(product[rest]) & set(product[part])
    assert sorted([*rest, *part]) == list(range(len(product)))
    assert abs(len(part) / len(product) - share) < 0.05
    counts = np.bincount(labels[part]) / np.bincount(labels)
    assert np.abs(counts - share).max() < 0.12


def test_a_class_of_one_group_cannot_be_carved():
    with pytest.raises(DataError, match=r"1 classes have too few groups .*\(number 1\)"):
        groups.carve(np.array([0, 0, 0, 0, 1, 1]), list("abcdee"), 0.5, 0)


def test_a_subset_keeps_its_groups():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    data = Dataset(images, [0, 1, 0, 1], ("a", "b"), source="test", groups=tuple("wxyz"))
    assert data.subset([2, 0]).groups == ("y", "w")
    parts = data.split({"one": [3], "two": [0, 1]})
    assert parts["one"].groups == ("z",) and parts["two"].groups == ("w", "x")
    with pytest.raises(DataError, match="4 images but 1 groups"):
        Dataset(images, [0, 1, 0, 1], ("a", "b"), source="test", groups=("w",))


def test_written_parts_can_be_read_back_with_or_without_groups(tmp_path):
    part = Dataset(np.zeros((4, 2, 2, 1), np.uint8), [0, 1, 0, 1], ("a", "b"), source="test")
    arrays.write(tmp_path / "a.npz", Splits(part, None, part))
    assert tl.load(tmp_path / "a.npz", val=0).train.groups == ()
