from __future__ import annotations

import numpy as np
import pytest

from builders_input_checks import enlarged, make_images, photo, reference, scenes
from tinylens.inference.input_checks.examine import UNEXAMINED, examine
from tinylens.inference.input_checks.study import study

IMAGES = make_images(40, seed=9)


def kinds(pixels: np.ndarray, orientation: int = 1) -> list[str]:
    return [finding.kind for finding in examine(pixels, reference(), orientation).findings]


def messages(pixels: np.ndarray) -> dict[str, str]:
    return {each.kind: each.message for each in examine(pixels, reference()).findings}


def test_images_like_those_trained_on_have_no_findings():
    assert [kinds(each) for each in IMAGES] == [[]] * len(IMAGES)


def test_scenes_have_no_findings_for_a_model_that_was_trained_on_scenes():
    known = study(scenes(200))
    assert [examine(each, known).findings for each in scenes(240)[200:]] == [()] * 40


def test_without_a_reference_nothing_is_judged():
    (finding,) = examine(IMAGES[0], None).findings
    assert finding.kind == UNEXAMINED and not finding.fixed
    assert finding.message.startswith("the model does not know what its training images were")


def test_a_negative_is_only_that():
    assert [kinds(255 - each) for each in IMAGES] == [["inverted"]] * len(IMAGES)
    assert messages(255 - IMAGES[0])["inverted"] == (
        "looks like a negative of the training images: what is bright there is dark here"
    )


def test_another_ground_is_told_with_its_brightness():
    image = np.where(IMAGES[0] > 0, IMAGES[0], 60).astype(np.uint8)
    assert messages(image) == {
        "background": "its ground is dark (about 60 of 255); that of the training images is dark "
        "(about 0 of 255)"
    }


def test_a_coloured_ground_is_called_so():
    found = messages(photo(IMAGES[0], (230, 60, 60), noise=0))
    assert found["background"].startswith(
        "its ground is of middle brightness (about 117 of 255, and"
    )


def test_a_small_thing_has_margins():
    canvas = np.zeros((80, 80, 1), np.uint8)
    canvas[10:38, 40:68] = IMAGES[0]
    assert messages(canvas)["margins"] == (
        "the thing in it takes up 35% of its height or width, whichever is more, where the "
        "training images' take up 100%"
    )


def test_a_thing_off_the_middle_is_told():
    narrow = np.zeros((28, 28, 1), np.uint8)
    narrow[:, 2:14] = 180
    assert messages(narrow)["margins"] == (
        "the thing in it lies 21% of a side away from where the training images' lie"
    )


def test_an_enlarged_image_is_told_and_one_with_detail_is_not():
    assert kinds(enlarged(IMAGES[0], 200)) == ["upscaled"]
    detailed = enlarged(IMAGES[0], 200)
    stripes = np.where(np.arange(200) % 6 < 3, 1.0, 0.5)[None, :, None]
    assert kinds((detailed * stripes).astype(np.uint8)) == []


def test_colours_are_told_where_training_images_are_grey():
    found = examine(photo(IMAGES[0], (250, 160, 60)), reference()).findings
    assert [each.fixed for each in found if each.kind == "colour"] == [True]  # by the rule


def test_grey_is_told_where_training_images_have_colours():
    grey = scenes(1).mean(axis=3, keepdims=True).astype(np.uint8)[0]
    (finding,) = examine(grey, study(scenes(300))).findings
    assert finding.kind == "colour" and "nothing can bring back" in finding.message


def test_a_turn_by_exif_is_told_as_done():
    (finding,) = examine(IMAGES[0], reference(), orientation=6).findings
    assert (finding.kind, finding.fixed) == ("rotation", True)
    assert finding.message == "turned or mirrored by its EXIF (orientation 6), and set upright"


def test_a_busy_ground_is_told_as_one_that_cannot_be_taken_away():
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    found = examine(noise, reference())
    assert found.ground is None
    assert "no even ground" in found.findings[-1].message


@pytest.mark.parametrize("level", [0, 7, 128, 255])
def test_a_image_of_nothing_has_no_thing_to_judge(level):
    assert kinds(np.full((28, 28, 1), level, np.uint8)) == []
    assert kinds(np.full((280, 280, 1), level, np.uint8)) == []


def test_a_photo_of_a_shirt_on_a_white_table():
    found = kinds(photo(IMAGES[0]))
    assert {"inverted", "margins", "upscaled"} <= set(found)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 3), (2, 2, 3), (5000, 3, 1)])
def test_images_of_odd_shapes_are_examined(shape):
    random = np.random.default_rng(0)
    for image in (np.zeros(shape, np.uint8), random.integers(0, 256, shape, np.uint8)):
        assert isinstance(kinds(image), list)
