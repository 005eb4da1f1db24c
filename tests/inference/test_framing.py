from __future__ import annotations

import numpy as np
import pytest

from builders_input_checks import make_images, reference
from tinylens.inference.input_checks import margins
from tinylens.inference.input_checks.background import WHOLE, Ground, Window
from tinylens.inference.input_checks.margins import Framed

BLACK = Ground.flat([0.0])
IMAGE = make_images(1, seed=9)[0]


def test_a_window_has_the_shape_that_the_network_wants():
    box = Window(0.25, 0.25, 0.25, 0.5)  # 50 pixels high, 200 wide
    window = margins.window_around(box, (200, 400, 3), reference())
    assert (window.height * 200, window.width * 400) == pytest.approx((200, 200))
    assert window.middle == pytest.approx((0.375, 0.5), abs=0.02)


def test_the_whole_image_at_its_size_is_not_touched():
    assert margins.frame(IMAGE, WHOLE, BLACK, reference()).pixels is IMAGE


def test_what_lies_outside_is_ground():
    canvas = np.full((40, 40, 3), 200, np.uint8)
    ground = Ground.flat([10.0, 20.0, 30.0])
    framed = margins.frame(canvas, Window(-0.5, 0.0, 1.0, 1.0), ground, reference())
    assert framed.pixels.shape == (40, 40, 3)
    assert framed.pixels[:18].tolist() == [[[10, 20, 30]] * 40] * 18
    assert (framed.pixels[22:] == 200).all()
    assert not framed.covered[:18].any() and framed.covered[22:].all()


def test_a_window_of_a_large_image_shows_the_same_as_of_a_small_one():
    large = IMAGE.repeat(40, axis=0).repeat(40, axis=1)
    window = Window(0.1, 0.0, 1.0, 1.0)
    found = margins.frame(large, window, BLACK, reference()).pixels.astype(int)
    blocks = IMAGE.repeat(4, axis=0).repeat(4, axis=1).astype(int)
    shifted = np.zeros_like(blocks)
    shifted[: 112 - 11] = blocks[11:]  # a tenth of 112 pixels is 11.2
    assert np.abs(found - shifted).mean() < 6


def test_composing_inverts_replaces_the_ground_and_takes_colour_away():
    pixels = np.array([[[100, 150, 200], [0, 10, 20]]], np.uint8)
    framed = Framed(pixels, np.array([[1.0, 0.25]]))
    known = reference()  # grey, on black
    done = margins.compose(framed, known, negative=True, background=True, grey=False)
    assert done.tolist() == [[[155, 105, 55], [64, 61, 59]]]
    done = margins.compose(framed, known, negative=False, background=False, grey=True)
    assert done.tolist() == [[[141], [8]]]


def test_sharpening_adds_what_a_blur_takes_away():
    step = np.array([[[50]] * 3, [[50]] * 3, [[90]] * 3], np.uint8)
    assert margins.details(step)[:, 0, 0].tolist() == [0, -5, 5]
    assert margins.sharpened(step, 2.0)[:, 0, 0].tolist() == [50, 40, 100]
    assert (margins.sharpened(step, 0.0) == step).all()
    flat = np.full((4, 4, 3), 77, np.uint8)
    assert (margins.sharpened(flat, 5.0) == flat).all()


def test_grey_is_the_decoders_grey():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert margins.without_colour(colours).tolist() == [[[76], [150], [29]]]
    assert margins.without_colour(IMAGE) is IMAGE
