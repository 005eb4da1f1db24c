"""Every augmentation against a reference in NumPy, in float64, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from PIL import Image

from tinylens.models import augment
from tinylens.recipe import AugmentSection
from tinylens.training.dataset_layer import Augment

pytestmark = pytest.mark.backend


def make_images(count=3, height=9, width=7, channels=3, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, height, width, channels)).astype(np.float32)


def draws(count=3, **columns):
    """Draws that change nothing, but for the columns given."""
    table = np.zeros((count, augment.NUM_DRAWS), np.float32)
    for name, values in columns.items():
        table[:, getattr(augment, name.upper())] = values
    return table


def applied(function, images, table, *arguments):
    tensors = ops.convert_to_tensor(images), ops.convert_to_tensor(table)
    return ops.convert_to_numpy(function(*tensors, *arguments))


def moved(image, rows, columns, largest):
    """The window of an image padded by reflection, as NumPy pads."""
    padded = np.pad(image, ((largest, largest), (largest, largest), (0, 0)), mode="reflect")
    height, width, _ = image.shape
    return padded[largest + rows :, largest + columns :][:height, :width]


@pytest.mark.parametrize("largest", [1, 2, 6, 16])
def test_shift_reflects_the_border_for_every_offset(largest):
    offsets = np.arange(-largest, largest + 1)
    table = draws(len(offsets), row=(offsets + largest + 0.5) / (2 * largest + 1), column=0.5)
    images = make_images(len(offsets))
    found = applied(augment.shift_and_flip, images, table, largest, False)
    for image, offset, answer in zip(images, offsets, found, strict=True):
        assert np.array_equal(answer, moved(image, offset, 0, largest))
    table = draws(len(offsets), row=0.5, column=(offsets + largest + 0.5) / (2 * largest + 1))
    found = applied(augment.shift_and_flip, images, table, largest, False)
    for image, offset, answer in zip(images, offsets, found, strict=True):
        assert np.array_equal(answer, moved(image, 0, offset, largest))


@pytest.mark.parametrize(("draw", "offset"), [(0.0, -2), (1 - 2**-24, 2)])
def test_the_ends_of_the_draws_are_the_largest_shifts(draw, offset):
    images = make_images(1)
    found = applied(augment.shift_and_flip, images, draws(1, row=draw, column=0.5), 2, False)
    assert np.array_equal(found[0], moved(images[0], offset, 0, 2))


@pytest.mark.parametrize(("draw", "offset"), [(0.0, -2), (0.999, 2)])
def test_bfloat16_arithmetic_does_not_round_the_draws(draw, offset):
    images = make_images(1)
    layer = Augment(AugmentSection(shift=2), dtype="mixed_bfloat16")
    found = layer(images.astype(np.uint8), draws(1, row=draw, column=0.5), training=True)
    answer = ops.convert_to_numpy(ops.cast(found, "float32"))
    assert np.array_equal(answer[0], moved(images[0], offset, 0, 2))


@pytest.mark.parametrize("spec", [{"cutout": 40}, {"brightness": 0.2, "contrast": 0.5}])
def test_bfloat16_arithmetic_does_not_lose_the_mean(spec):
    """A sum of a thousand pixels in bfloat16 alone would stop growing at a quarter of it."""
    images, table = make_images(2, 32, 32).astype(np.uint8), draws(2, contrast=0.9)
    fine, coarse = (
        ops.convert_to_numpy(
            ops.cast(
                Augment(AugmentSection(**spec), dtype=policy)(images, table, training=True),
                "float32",
            )
        )
        for policy in ("float32", "mixed_bfloat16")
    )
    np.testing.assert_allclose(coarse, fine, atol=2.0)  # 255 has a step of 1 in bfloat16


def test_a_image_of_one_pixel_can_be_shifted_and_mirrored():
    images = make_images(2, 1, 1)
    found = applied(augment.shift_and_flip, images, draws(2, row=0.9, flip=0.9), 16, True)
    assert np.array_equal(found, images)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_a_flip_of_a_flip_is_the_image(seed):
    images = make_images(4, seed=seed)
    table = draws(4, flip=0.75)
    once = applied(augment.shift_and_flip, images, table, 0, True)
    assert np.array_equal(once, images[:, :, ::-1])
    assert np.array_equal(applied(augment.shift_and_flip, once, table, 0, True), images)


def test_a_coin_below_one_half_does_not_mirror():
    images = make_images(2)
    found = applied(augment.shift_and_flip, images, draws(2, flip=[0.49, 0.5]), 0, True)
    assert np.array_equal(found[0], images[0])
    assert np.array_equal(found[1], images[1, :, ::-1])


@pytest.mark.parametrize("side", [1, 2, 3, 20])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.4, 0.6), (0.999, 0.999)])
def test_cutout_sets_a_square_around_its_centre_to_the_mean(side, centre):
    images = make_images(1)
    table = draws(1, cutout_row=centre[0], cutout_column=centre[1])
    expected = images[0].astype(np.float64).copy()
    top, left = int(centre[0] * 9) - side // 2, int(centre[1] * 7) - side // 2
    area = np.s_[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    expected[area] = images[0].astype(np.float64).mean(axis=(0, 1))
    found = applied(augment.cut_out, images, table, side)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(st.floats(0, 1, width=32, exclude_max=True), st.floats(0, 1, width=32, exclude_max=True))
@settings(max_examples=20)
def test_light_scales_around_the_mean_and_adds(bright, contrasted):
    images = make_images(1)
    table = draws(1, brightness=bright, contrast=contrasted)
    found = applied(augment.change_light, images, table, 0.2, 0.4)[0]
    image = images[0].astype(np.float64)
    gain, offset = 1 + 0.4 * (2 * contrasted - 1), 255 * 0.2 * (2 * bright - 1)
    expected = (image - image.mean()) * gain + image.mean() + offset
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_all_of_them_are_shift_and_flip_then_light_then_cutout():
    spec = AugmentSection(flip="random", shift=2, cutout=3, brightness=0.1, contrast=0.2)
    images, table = make_images(), np.random.default_rng(3).random((3, 7), np.float32)
    step = applied(augment.shift_and_flip, images, table, 2, True)
    step = applied(augment.change_light, step, table, 0.1, 0.2)
    expected = applied(augment.cut_out, step, table, 3)
    found = applied(augment.augment, images, table, spec)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_nothing_asked_for_changes_nothing():
    images = make_images()
    table = np.random.default_rng(3).random((3, 7), np.float32)
    assert np.array_equal(applied(augment.augment, images, table, AugmentSection()), images)
    layer = Augment(AugmentSection(flip="random", shift=3, cutout=4, contrast=0.5))
    found = layer(images.astype(np.uint8), table, training=False)
    assert np.array_equal(ops.convert_to_numpy(found), images)


# --- smaller images


@pytest.mark.parametrize(("before", "after"), [((32, 32), (24, 24)), ((9, 7), (5, 4))])
def test_shrinking_is_pillows_bilinear_filter(before, after):
    images = make_images(2, *before)
    found = ops.convert_to_numpy(augment.shrink(ops.convert_to_tensor(images), *after))
    for image, small in zip(images, found, strict=True):
        for channel in range(3):
            plane = Image.fromarray(image[..., channel])  # mode F: no rounding
            expected = np.asarray(plane.resize(after[::-1], Image.Resampling.BILINEAR))
            np.testing.assert_allclose(small[..., channel], expected, atol=1e-3)


def test_an_even_image_stays_even_when_it_shrinks():
    images = np.full((1, 28, 28, 1), 200.0, np.float32)
    found = ops.convert_to_numpy(augment.shrink(ops.convert_to_tensor(images), 24, 24))
    np.testing.assert_allclose(found, 200.0, atol=1e-3)
