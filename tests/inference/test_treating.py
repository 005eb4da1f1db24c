from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from builders_input_checks import enlarged, make_images, photo, reference, scenes
from tinylens.data.images import ImageRule, convert
from tinylens.errors import RecipeError
from tinylens.inference.input_checks.examine import KINDS, examine
from tinylens.inference.input_checks.fixes import InputChecks, allowed_kinds, treat
from tinylens.inference.input_checks.study import study

IMAGES = make_images(12, seed=9)
ALL = allowed_kinds("all")
RULE = ImageRule(28, 28, 1)


def seen(pixels: np.ndarray, fix: str = "all") -> np.ndarray:
    """Return what the network sees of an image, as int (28, 28)."""
    treated, _ = InputChecks(reference(), allowed_kinds(fix)).see(pixels)
    return convert(treated[None], RULE)[0, ..., 0].astype(int)


# --- what is allowed


def test_kinds_are_read_from_all_nothing_or_a_list():
    assert allowed_kinds("all") == frozenset(KINDS)
    assert allowed_kinds("") == frozenset()
    assert allowed_kinds(" margins,inverted ,") == {"margins", "inverted"}


def test_a_kind_that_is_none_is_refused_with_the_near_one():
    with pytest.raises(RecipeError) as caught:
        allowed_kinds("margins,inverte")
    assert str(caught.value) == (
        "fix margins,inverte: there is no 'inverte', did you mean inverted?; expected all, or some "
        "of rotation, colour, inverted, background, margins, upscaled, parted by commas"
    )


any_image = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
)


@given(any_image)
@settings(max_examples=40, deadline=None)
def test_with_nothing_allowed_nothing_is_changed(pixels):
    before = pixels.copy()
    treated, findings = treat(pixels, examine(pixels, reference()), frozenset())
    assert treated is pixels and (pixels == before).all()
    assert all(not each.fixed or each.kind in ("rotation", "colour") for each in findings)


@given(any_image)
@settings(max_examples=40, deadline=None)
def test_without_findings_or_without_a_reference_nothing_is_changed(pixels):
    examined = replace(examine(pixels, reference()), findings=())
    assert treat(pixels, examined, ALL) == (pixels, ()) or treat(pixels, examined, ALL)[0] is pixels
    assert InputChecks(None, ALL).see(pixels)[0] is pixels


@given(any_image)
@settings(max_examples=40, deadline=None)
def test_whatever_comes_can_be_treated(pixels):
    treated, findings = treat(pixels, examine(pixels, reference()), ALL)
    assert treated.dtype == np.uint8 and treated.ndim == 3 and treated.shape[2] in (1, 3)
    assert (treated is pixels) or any(each.fixed for each in findings)


def test_images_like_those_trained_on_are_left_alone_whatever_is_allowed():
    for image in IMAGES:
        treated, findings = treat(image, examine(image, reference()), ALL)
        assert treated is image and findings == ()


# --- each treatment, by its pixels


def test_a_negative_becomes_the_image_to_the_last_bit():
    for image in IMAGES:
        assert (seen(255 - image) == image[..., 0]).all()


def test_another_ground_becomes_that_of_the_training_images():
    for image in IMAGES:
        grounded = np.where(image > 0, image, 50).astype(np.uint8)
        assert np.abs(seen(grounded) - image[..., 0]).max() <= 1


def test_a_small_thing_fills_the_image_as_in_training():
    canvas = np.zeros((90, 70, 1), np.uint8)
    canvas[50:78, 5:33] = IMAGES[0]
    assert np.abs(seen(canvas) - IMAGES[0][..., 0]).mean() < 3
    assert np.abs(seen(canvas, "inverted") - IMAGES[0][..., 0]).mean() > 30


def test_a_thing_at_the_edge_is_framed_with_its_ground():
    canvas = np.zeros((90, 90, 1), np.uint8)
    canvas[0:28, 0:28] = IMAGES[1]
    assert np.abs(seen(canvas) - IMAGES[1][..., 0]).mean() < 3


def test_an_enlarged_image_is_nearer_to_itself_when_sharpened():
    for image in IMAGES:
        large = enlarged(image, 200)
        off = [np.abs(seen(large, fix) - image[..., 0]).mean() for fix in ("all", "")]
        assert off[0] < 0.8 * off[1]


def test_a_photo_on_a_white_table_becomes_what_training_images_are_like():
    for image in IMAGES:
        off = [np.abs(seen(photo(image), fix) - image[..., 0]).mean() for fix in ("all", "")]
        assert off[0] < 25 and off[1] > 75


def test_a_photo_of_a_thing_as_bright_as_in_training_is_not_inverted():
    for image in IMAGES:
        shot = photo(image, (40, 60, 90), negative=False)
        assert "inverted" not in examine(shot, reference()).kinds
        assert np.abs(seen(shot) - image[..., 0]).mean() < 25


def test_only_what_is_allowed_is_fixed_and_marked_so():
    shot = photo(IMAGES[0], (250, 190, 130))
    _, findings = treat(shot, examine(shot, reference()), {"margins"})
    marked = {each.kind: each.fixed for each in findings}
    assert marked == {
        "colour": True,  # made grey by the model's rule
        "inverted": False,
        "background": False,
        "margins": True,
        "upscaled": False,
    }


def test_inverting_alone_keeps_size_and_ground():
    shot = photo(IMAGES[0], noise=0)
    treated, _ = treat(shot, examine(shot, reference()), {"inverted"})
    assert treated[0, 0, 0] == 5 and treated[-1, -1, 0] == 5


def test_colour_is_taken_away_for_a_network_in_colour_that_saw_grey():
    known = study(make_images().repeat(3, axis=3))
    shot = photo(IMAGES[0], (250, 160, 60))
    treated, findings = treat(shot, examine(shot, known), {"colour"})
    assert treated.shape[2] == 1
    assert [each.fixed for each in findings if each.kind == "colour"] == [True]


def test_colour_is_not_given_to_a_grey_image():
    grey = scenes(1).mean(axis=3, keepdims=True).astype(np.uint8)[0]
    treated, (finding,) = treat(grey, examine(grey, study(scenes(300))), ALL)
    assert treated is grey and not finding.fixed


@pytest.mark.parametrize("shape", [(1500, 12_000), (12_000, 1500)])
def test_a_long_thing_in_a_large_image_takes_little_memory(shape):
    canvas = np.zeros((*shape, 1), np.uint8)
    along = np.s_[700:760, 500:11_500] if shape[0] < shape[1] else np.s_[500:11_500, 700:760]
    canvas[along] = 200
    tracemalloc.start()
    treated, findings = treat(canvas, examine(canvas, reference()), ALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [each.kind for each in findings if each.fixed] == ["margins"]
    assert max(treated.shape) <= 112
    assert peak < 20e6  # the window itself would be 11,000 pixels high and wide
