from __future__ import annotations

import json

import pytest

from builders_input_checks import make_images, reference, scenes
from tinylens.inference.input_checks.reference import VERSION, Reference
from tinylens.inference.input_checks.study import study


def test_images_on_black_have_that_ground_and_things_that_fill_them():
    found = reference()
    assert found.shape == (28, 28, 1) and found.images == 300
    assert found.plain and found.level == (0.0,) and found.spread == 0 and found.grey == 1
    assert found.fill == (1.0, 1.0)
    assert found.middle == pytest.approx((0.5, 0.5), abs=0.02) and found.off <= 0.04
    assert len(found.polarity) == 33
    assert 0.3 < found.sharpening < 1.5


def test_scenes_have_no_ground_in_common():
    found = study(scenes())
    assert not found.plain and found.polarity == () and found.grey < 0.02


def test_few_images_say_nothing_about_things():
    assert study(make_images(20)).polarity == ()
    assert study(make_images(1)).images == 1


def test_the_same_images_give_the_same_reference_again():
    assert study(make_images()) == reference()


def test_a_reference_survives_json():
    tree = json.loads(json.dumps(reference().to_json()))
    assert Reference.from_json(tree) == reference()
    assert len(json.dumps(tree)) < 1_500


def test_a_reference_of_a_newer_version_is_none():
    assert Reference.from_json({"version": VERSION + 1}) is None
    assert Reference.from_json(None) is None
