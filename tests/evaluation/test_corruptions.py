"""The corruptions: the published order of strengths, no state, and what each one must leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinylens.evaluation.robustness import CORRUPTIONS, STRENGTHS, corrupted, through_jpeg

GOLDEN = Path(__file__).parents[1] / "golden" / "corruptions.npz"
EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


def scene(count=3, side=32, channels=3):
    """Images with edges, plain parts and a colour ramp; the same wherever they are drawn."""
    rows, columns = np.mgrid[:side, :side]
    images = np.empty((count, side, side, channels), np.uint8)
    for number in range(count):
        ramp = (rows * 5 + columns * 2 + 40 * number) % 256
        box = (rows // 6 + columns // 6 + number) % 2 * 120
        for channel in range(channels):
            images[number, :, :, channel] = (ramp // (channel + 1) + box) % 256
    return images


def test_there_are_the_15_published_ones_at_five_strengths():
    assert len(CORRUPTIONS) == 15
    families = [each.family for each in CORRUPTIONS.values()]
    assert [families.count(name) for name in ("noise", "blur", "weather", "digital")] == [
        3,
        4,
        4,
        4,
    ]
    assert {len(each.parameters) for each in CORRUPTIONS.values()} == {len(STRENGTHS)}


@EVERY
@pytest.mark.parametrize("shape", [(32, 3), (28, 1), (20, 3)])
def test_images_keep_their_shape_and_are_changed_by_their_seed_alone(name, shape):
    images = scene(3, *shape)
    before = images.copy()
    first, again, other = (corrupted(images, name, 3, seed) for seed in (0, 0, 1))
    assert first.shape == images.shape and first.dtype == np.uint8
    assert np.array_equal(images, before)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, images)
    drawn = name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate")
    drawn = drawn and name != "jpeg_compression"
    assert np.array_equal(first, other) != drawn


@EVERY
def test_images_are_the_golden_ones(name):
    """A change of a kernel, of SciPy or of Pillow shows here: robustness figures would shift."""
    with np.load(GOLDEN) as golden:
        for strength in STRENGTHS:
            found = corrupted(scene(2, 16), name, strength).astype(int)
            expected = golden[f"{name}-{strength}"].astype(int)
            assert np.abs(found - expected).max() <= 1, strength  # rounding may fall otherwise


@pytest.mark.parametrize(
    "name",
    [
        *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur"),
        *("zoom_blur", "snow", "fog", "brightness", "contrast", "jpeg_compression"),
    ],
)
def test_stronger_is_further_from_the_image(name):
    images = scene(40)
    distances = [
        np.abs(corrupted(images, name, s) - images.astype(float)).mean() for s in STRENGTHS
    ]
    assert distances[0] < distances[2] < distances[4]


def test_gaussian_noise_has_the_published_spread():
    grey = np.full((50, 32, 32, 1), 128, np.uint8)
    spread = (corrupted(grey, "gaussian_noise", 3).astype(float) - 128).std()
    assert spread == pytest.approx(0.08 * 255, rel=0.02)


def test_impulse_noise_hits_the_published_share_with_black_and_white():
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    noisy = corrupted(grey, "impulse_noise", 5)
    assert (noisy != 128).mean() == pytest.approx(0.07, abs=0.003)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert (noisy == 0).sum() == pytest.approx((noisy == 255).sum(), rel=0.1)


def test_shot_noise_is_as_wide_as_the_root_of_the_light():
    for level in (64, 192):
        plain = np.full((50, 32, 32, 1), level, np.uint8)
        spread = (corrupted(plain, "shot_noise", 2).astype(float) - level).std() / 255
        assert spread == pytest.approx((level / 255 / 250) ** 0.5, rel=0.03)


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"])
def test_blurs_leave_a_plain_image_plain(name):
    plain = np.full((2, 32, 32, 3), 77, np.uint8)
    assert np.abs(corrupted(plain, name, 5).astype(int) - 77).max() <= 1


def test_brightness_adds_to_the_value_and_keeps_the_hue():
    colour = np.full((1, 4, 4, 3), (100, 50, 25), np.uint8)
    brighter = corrupted(colour, "brightness", 2)[0, 0, 0].astype(float)
    assert brighter[0] == pytest.approx(100 + 0.1 * 255, abs=1)
    assert brighter[1] / brighter[0] == pytest.approx(0.5, abs=0.01)


def test_contrast_keeps_the_mean_and_shrinks_the_spread():
    images = scene(1)
    flat = corrupted(images, "contrast", 4).astype(float)
    assert flat.mean() == pytest.approx(images.mean(), abs=0.5)
    assert flat[..., 0].std() == pytest.approx(0.3 * images[..., 0].std(), rel=0.02)


def test_jpeg_of_grey_and_colour_comes_back_in_its_shape():
    for channels in (1, 3):
        images = scene(2, 28, channels)
        assert through_jpeg(images, 60).shape == images.shape
