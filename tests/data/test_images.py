"""Golden pixels for every mode that an image can come in; a refusal for what cannot be shown."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from builders_data import encoded, noise, png_chunk, raw_png
from tinylens.data.images import Decoded, ImageRule, Probed, _fitted, convert, decode, probe
from tinylens.errors import DataError

RGB = ImageRule(2, 2, 3)
GREY = ImageRule(2, 2, 1)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
GREYS = np.array([[0, 10], [100, 255]], np.uint8)


def pixels(content: bytes, rule: ImageRule = RGB) -> list:
    return decode(content, rule).image.tolist()


def as_rgb(greys: np.ndarray) -> list:
    return np.repeat(greys[..., None], 3, axis=2).tolist()


# --- a treatment before an image is made small


def test_a_treatment_sees_the_image_upright_opaque_and_at_its_own_size():
    seen = []
    see = lambda pixels, orientation: seen.append((pixels.tolist(), orientation)) or pixels  # noqa: E731
    turned = Image.fromarray(GREYS)
    exif = Image.Exif()
    exif[0x0112] = 6
    decode(encoded(turned, exif=exif), ImageRule(1, 1, 3), see)
    decode(encoded(Image.new("RGBA", (1, 1), (*RED, 0))), RGB, see)
    convert(np.array([[[[*RED, 0]]]], np.uint8), RGB, see)
    assert seen == [
        ([[[100], [0]], [[255], [10]]], 6),
        ([[list(WHITE)]], 1),
        ([[list(WHITE)]], 1),
    ]


@pytest.mark.parametrize("rule", [RGB, GREY, ImageRule(3, 5, 1)])
def test_a_treatment_that_does_nothing_changes_nothing(rule):
    for image in (CORNERS, GREYS, Image.fromarray(CORNERS).convert("P"), noise(9, 7, 4)):
        content = encoded(image)
        expected = decode(content, rule)
        treated = decode(content, rule, lambda pixels, _: pixels)
        assert (treated.image == expected.image).all() and treated.notes == expected.notes
    several = noise(4, 9, 7, 3)
    same = convert(several, rule, lambda pixels, _: pixels)
    assert (same == convert(several, rule)).all()


def test_what_a_treatment_gives_is_made_to_fit():
    def negative(pixels, orientation):
        return 255 - pixels[:1]

    assert decode(encoded(CORNERS), RGB, negative).image.tolist() == [
        [[0, 255, 255], [255, 0, 255]],
        [[0, 255, 255], [255, 0, 255]],
    ]
    assert convert(GREYS[None], GREY, negative).tolist() == [[[[255], [245]], [[255], [245]]]]


@pytest.mark.parametrize(
    ("aspect", "shape"), [("stretch", (20, 50)), ("pad", (50, 50)), ("crop", (20, 20))]
)
def test_a_treatment_sees_a_image_as_those_of_training_were(aspect, shape):
    """Else the margins that cropping takes away would be called unlike the training images."""
    seen, rule = [], ImageRule(8, 8, 3, aspect=aspect)

    def see(pixels, _):
        seen.append(pixels)
        return pixels

    image = noise(20, 50, 3)
    found = decode(encoded(image), rule, see).image
    assert seen[0].shape == (*shape, 3)
    assert np.array_equal(found, decode(encoded(image), rule).image)
    whole = {"stretch": image, "pad": seen[0][15:35], "crop": image[:, 15:35]}[aspect]
    assert np.array_equal(whole, image if aspect == "pad" else seen[0])


def test_a_strip_is_not_padded_to_a_gigabyte_for_a_treatment():
    shapes = []
    rule = ImageRule(8, 8, 1, aspect="pad")
    decode(
        encoded(np.zeros((1, 16_000), np.uint8)), rule, lambda p, _: (shapes.append(p.shape), p)[1]
    )
    assert shapes == [(1, 16_000, 1)]


def test_a_treatment_that_fails_is_not_called_a_broken_image():
    def failing(pixels, orientation):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decode(encoded(CORNERS), RGB, failing)


# --- every mode, exactly


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_colours_come_out_as_they_went_in(kind):
    assert pixels(encoded(CORNERS, kind)) == CORNERS.tolist()


def test_a_lossless_webp_comes_out_as_it_went_in():
    assert pixels(encoded(CORNERS, "WEBP", lossless=True)) == CORNERS.tolist()


def test_a_jpeg_of_one_colour_comes_out_within_two_levels():
    sample = np.full((2, 2, 3), (200, 100, 50), np.uint8)
    image = decode(encoded(sample, "JPEG", quality=95), RGB).image
    assert np.abs(image.astype(int) - (200, 100, 50)).max() <= 2


def test_grey_becomes_three_equal_channels():
    assert pixels(encoded(GREYS)) == as_rgb(GREYS)


def test_colour_becomes_grey_by_itu_r_601():
    assert pixels(encoded(CORNERS), GREY) == [[[76], [150]], [[29], [255]]]


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[True, False], [False, True]]))
    assert image.mode == "1"
    assert pixels(encoded(image)) == as_rgb(np.array([[255, 0], [0, 255]]))


def test_a_palette_gives_colours_not_indices():
    image = Image.fromarray(CORNERS).convert("P", palette=Image.Palette.ADAPTIVE)
    assert pixels(encoded(image)) == CORNERS.tolist()


def test_a_transparent_palette_entry_shows_the_background():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((0, 0), 2)
    content = encoded(image, transparency=2)
    assert pixels(content) == [[list(WHITE), list(GREEN)], [list(GREEN), list(GREEN)]]


def test_a_transparent_gif_shows_the_background():
    image = Image.new("P", (2, 2), 0)
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 1), 1)
    content = encoded(image, "GIF", transparency=0)
    assert pixels(content) == [[list(WHITE)] * 2, [list(WHITE), list(GREEN)]]


def test_transparent_pixels_show_the_background_and_not_the_colours_under_it():
    image = np.full((2, 2, 4), (*RED, 0), np.uint8)
    image[0, 0, 3] = 255
    assert pixels(encoded(image)) == [[list(RED), list(WHITE)], [list(WHITE)] * 2]
    black = ImageRule(2, 2, 3, background=(0, 0, 0))
    assert pixels(encoded(image), black) == [[list(RED), [0, 0, 0]], [[0, 0, 0]] * 2]


def test_half_transparent_red_on_white_is_pink():
    image = np.full((2, 2, 4), (*RED, 128), np.uint8)
    assert pixels(encoded(image))[0][0] == [255, 127, 127]


def test_grey_with_alpha_is_composited():
    image = np.zeros((2, 2, 2), np.uint8)
    image[..., 1] = [[0, 255], [255, 255]]
    content = encoded(la(image))
    assert pixels(content, GREY) == [[[255], [0]], [[0], [0]]]


def la(array: np.ndarray) -> Image.Image:
    bands = [Image.fromarray(np.ascontiguousarray(array[..., band])) for band in (0, 1)]
    return Image.merge("LA", bands)


def test_a_transparent_colour_of_an_rgb_png_is_composited():
    image = Image.fromarray(CORNERS)
    content = encoded(image, transparency=RED)
    assert pixels(content)[0][0] == list(WHITE)
    assert pixels(content)[0][1] == list(GREEN)


def test_cmyk_becomes_rgb():
    sample = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    image = decode(encoded(sample, "JPEG", quality=95), RGB).image
    assert np.abs(image.astype(int) - RED).max() <= 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (128, 0), (129, 1), (256, 1), (257, 1), (25_700, 100), (65_406, 254), (65_535, 255)],
)
def test_16_bit_grey_is_scaled_by_257_and_rounded(value, expected):
    content = encoded(np.full((2, 2), value, np.uint16))
    assert pixels(content, GREY) == [[[expected]] * 2] * 2
    assert pixels(content)[0][0] == [expected] * 3


def test_16_bit_grey_with_a_transparent_level_is_composited():
    rows = b"\x00" + struct.pack(">HH", 5000, 0)
    content = raw_png(2, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 5000)))
    assert decode(content, ImageRule(1, 2, 1)).image.tolist() == [[[255], [0]]]


def test_16_bit_colour_keeps_the_upper_byte():
    rows = b"\x00" + struct.pack(">HHH", 0xFF00, 0x8000, 0x0100)
    assert decode(raw_png(1, 1, 16, 2, rows), ImageRule(1, 1, 3)).image.tolist() == [
        [[255, 128, 1]]
    ]


@pytest.mark.parametrize("mode", ["F", "LAB", "HSV"])
def test_modes_without_a_known_range_are_refused(mode):
    with pytest.raises(DataError, match=f"pixels of mode {mode} have no known range"):
        _fitted(Image.new(mode, (2, 2)), RGB)


def test_32_bit_whole_numbers_are_taken_for_16_bit_and_refused_beyond():
    assert _fitted(Image.new("I", (2, 2), 25_700), GREY)[0, 0, 0] == 100
    for value in (-1, 65_536):
        with pytest.raises(DataError, match="mode I have no known range"):
            _fitted(Image.new("I", (2, 2), value), GREY)


# --- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_set_upright_as_pillow_does(kind, orientation):
    image = Image.fromarray(np.repeat(np.repeat(CORNERS, 16, 0), 8, 1))  # 32 high, 16 wide
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(image, kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    rule = ImageRule(upright.height, upright.width, 3)
    assert np.array_equal(decode(content, rule).image, np.asarray(upright))
    assert probe(content) == Probed(upright.width, upright.height, grey=False)


def test_damaged_exif_is_no_reason_to_refuse_a_image_nor_to_warn():
    good = encoded(CORNERS, "JPEG", exif=Image.Exif())
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x1a\0\x05\xff\xff\xff\xff\xff\xff\xff\xff" * 3
    )
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    content = good[:2] + segment + good[2:]
    assert decode(content, RGB).image.tolist() == decode(good, RGB).image.tolist()


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_exif_that_says_nothing_means_upright(exif):
    from tinylens.data.images import orientation

    assert orientation(exif) == 1


# --- notes


def frames(kind: str) -> bytes:
    images = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"save_all": True, "append_images": images[1:]}
    return encoded(images[0], kind, **options, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_used_and_noted(kind):
    decoded = decode(frames(kind), ImageRule(8, 8, 3))
    assert decoded.image[0, 0].tolist() == list(RED)
    assert decoded.notes == ("animated: first of 3 frames used",)


def test_an_animation_header_that_lies_is_no_reason_to_warn():
    good = raw_png(4, 4, 8, 0, (b"\0" + b"\x07" * 4) * 4, png_chunk(b"acTL", bytes(8)))
    assert decode(good, ImageRule(4, 4, 1)).image.tolist() == [[[7]] * 4] * 4


def test_a_tiny_image_is_accepted_and_noted():
    decoded = decode(encoded(np.full((1, 1, 3), 9, np.uint8)), ImageRule(4, 4, 3))
    assert decoded.notes == ("tiny: 1×1",)
    assert decoded.image.tolist() == [[[9] * 3] * 4] * 4


# --- what is refused, and how


BROKEN = {
    "empty": (b"", "empty file"),
    "text": (b"hello, world", r"not an image: starts with b'hello, w', expected PNG, JPEG"),
    "html": (b"<!DOCTYPE html><html>", "not an image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "tiff": (encoded(CORNERS, "TIFF"), "not an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    "gif header and junk": (b"GIF89a\2\0\2\0\0\0\0" + b"junk" * 9, "broken GIF"),
    "gif header alone": (b"GIF89a", "broken GIF"),
    "png signature alone": (b"\x89PNG\r\n\x1a\n", "broken PNG"),
    "png of no size": (raw_png(0, 0, 8, 2, b""), "broken PNG"),
    "png cut in its pixels": (encoded(noise(64, 64, 3))[:2000], "broken PNG"),
    "jpeg cut in half": (encoded(noise(64, 64, 3), "JPEG")[:1000], "broken JPEG: .*truncated"),
    "jpeg without its end": (encoded(noise(64, 64, 3), "JPEG")[:-2], "broken JPEG: .*truncated"),
    "jpeg signature alone": (b"\xff\xd8\xff", "broken JPEG"),
    "gif cut in its pixels": (encoded(noise(64, 64, 3), "GIF")[:3000], "broken GIF"),
    "webp cut": (encoded(noise(64, 64, 3), "WEBP")[:500], "broken WEBP"),
    "webp header alone": (b"RIFF\x24\0\0\0WEBPVP8 ", "broken WEBP"),
    "bmp cut": (encoded(noise(64, 64, 3), "BMP")[:500], "broken BMP"),
    "bmp header alone": (b"BM", "broken BMP"),
    "text chunk bomb": (
        raw_png(
            1, 1, 8, 0, b"\0\0", png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
        ),
        "broken PNG",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bytes_are_bad_data_with_a_short_reason(name):
    content, reason = BROKEN[name]
    with pytest.raises(DataError, match=reason) as raised:
        decode(content, RGB)
    assert len(str(raised.value)) < 200


def test_a_png_without_its_end_is_whole_enough():
    assert pixels(encoded(CORNERS)[:-12]) == CORNERS.tolist()


def vp8x(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk + bytes(8)


def vp8l(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\x30\0\0\0WEBPVP8L\x20\0\0\0\x2f" + struct.pack("<I", bits) + bytes(16)


def vp8(width: int, height: int) -> bytes:
    return (
        b"RIFF\x30\0\0\0WEBPVP8 \x20\0\0\0"
        + b"\0\0\0\x9d\x01\x2a"
        + struct.pack("<HH", width, height)
        + bytes(16)
    )


LARGE = {
    "png of 100 million pixels": raw_png(10_000, 10_000, 8, 2, b""),
    "png 1 × 65,000": raw_png(1, 65_000, 8, 2, b""),
    "png of 2³¹ - 1": raw_png(2**31 - 1, 2**31 - 1, 8, 2, b""),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b";",
    "webp extended": vp8x(16_000, 16_000),
    "webp lossless": vp8l(16_000, 16_000),
    "webp lossy": vp8(16_000, 16_000),
    "bmp": b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 20_000, 20_000, 1, 24, *[0] * 6),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_image_too_large_is_refused_before_its_pixels_are_made(name):
    for look in (lambda content: decode(content, RGB), probe):
        with pytest.raises(DataError, match=r"too large: \d+×\d+ pixels, expected sides up to"):
            look(LARGE[name])


def test_the_largest_allowed_sides_are_allowed():
    assert probe(raw_png(16_384, 1_525, 8, 0, b"")) == Probed(16_384, 1_525, grey=True)


def test_a_program_that_turned_on_truncated_images_is_told_so(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES is set"):
        decode(encoded(CORNERS), RGB)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_raises_anything_but_bad_data(data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]))
    content = bytearray(encoded(noise(9, 7, 3), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(DataError):
        assert decode(bytes(content), RGB).image.shape == (2, 2, 3)


# --- names do not matter, probe, threads


def test_a_png_by_any_name_is_a_png():
    assert probe(encoded(CORNERS)) == Probed(2, 2, grey=False)
    assert probe(encoded(GREYS)) == Probed(2, 2, grey=True)
    assert probe(encoded(np.full((2, 3), 999, np.uint16))) == Probed(3, 2, grey=True)


def test_many_threads_decode_what_one_does():
    contents = [encoded(noise(20, 20, 3, seed=n), "JPEG") for n in range(40)]
    rule = ImageRule(16, 16, 3)
    alone = [decode(content, rule).image for content in contents]
    together: dict[int, Decoded] = {}

    def work(start: int) -> None:
        for number in range(start, len(contents), 4):
            together[number] = decode(contents[number], rule)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(together[n].image, alone[n]) for n in range(len(contents)))


# --- arrays take the same way


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([0, 1, 3, 4]),
    target=st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3])),
    aspect=st.sampled_from(["stretch", "pad", "crop"]),
    seed=st.integers(0, 9),
)
def test_convert_and_decode_give_the_same_pixels(height, width, channels, target, aspect, seed):
    array = noise(1, height, width, *([channels] if channels else []), seed=seed)
    rule = ImageRule(*target, aspect=aspect)
    squeezed = array[0, ..., 0] if channels == 1 else array[0]
    assert np.array_equal(convert(array, rule)[0], decode(encoded(squeezed), rule).image)


def test_arrays_that_are_right_are_not_copied():
    array = noise(3, 8, 8, 3)
    assert convert(array, ImageRule(8, 8, 3)) is array
    assert np.shares_memory(convert(array[..., 0], ImageRule(8, 8, 1)), array)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((1, 2, 2, 3)), "images are float64, expected uint8"),
        (np.zeros((2, 2), np.uint8), r"shape \(2, 2\), expected"),
        (np.zeros((1, 2, 2, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((1, 0, 2, 3), np.uint8), r"shape \(1, 0, 2, 3\)"),
    ],
)
def test_other_arrays_are_refused(array, reason):
    with pytest.raises(DataError, match=reason):
        convert(array, RGB)


# --- images of another ratio


WIDE = np.array([[10, 20, 30, 40, 50, 60], [61, 71, 81, 91, 101, 111]], np.uint8)


def shaped(array: np.ndarray, height: int, width: int, aspect: str) -> list:
    rule = ImageRule(height, width, 1, aspect=aspect)
    found = convert(array[None], rule)[0, ..., 0]
    assert np.array_equal(decode(encoded(array), rule).image[..., 0], found)
    return found.tolist()


def test_a_padded_image_lies_in_the_middle_on_the_mean_of_the_edges_that_it_shows():
    mean = 61  # of all 12 values: 60.5, rounded up
    assert shaped(WIDE, 6, 6, "pad") == [[mean] * 6] * 2 + WIDE.tolist() + [[mean] * 6] * 2
    columns = [0, 0, 61, 71, 0]  # the odd pixel of padding is on the right
    tall = np.array([columns[2:4]] * 5, np.uint8)
    assert shaped(tall, 5, 5, "pad") == [[66, 61, 71, 66, 66]] * 5


def test_the_padding_is_the_mean_of_the_edges_alone_and_of_each_channel():
    image = np.zeros((5, 3, 3), np.uint8)
    image[:, 0], image[:, 1], image[:, 2] = (10, 200, 0), (255, 255, 255), (21, 100, 0)
    found = convert(image[None], ImageRule(5, 5, 3, aspect="pad"))[0]
    assert found[:, 0].tolist() == found[:, 4].tolist() == [[16, 150, 0]] * 5
    assert np.array_equal(found[:, 1:4], image)


def test_a_image_is_made_to_fit_before_it_is_padded():
    """Six by two becomes three by one: each pixel what Pillow makes of the whole image."""
    small = Image.fromarray(WIDE).resize((3, 1), Image.Resampling.BICUBIC)
    [row] = np.asarray(small).tolist()
    mean = round(sum(row) / 3)
    assert shaped(WIDE, 3, 3, "pad") == [[mean] * 3, row, [mean] * 3]


def test_a_cropped_image_is_its_middle():
    assert shaped(WIDE, 2, 2, "crop") == [[30, 40], [81, 91]]
    assert shaped(WIDE.T, 2, 2, "crop") == [[30, 81], [40, 91]]
    assert shaped(WIDE, 2, 4, "crop") == WIDE[:, 1:5].tolist()


def test_a_image_is_cropped_before_it_is_made_small():
    large = noise(40, 90, seed=3)
    small = Image.fromarray(large[:, 25:65]).resize((8, 8), Image.Resampling.BICUBIC)
    assert shaped(large, 8, 8, "crop") == np.asarray(small).tolist()


@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(1, 16_384), (16_384, 1), (1, 1), (3, 4_000)])
def test_no_shape_is_too_odd_for_any_aspect(aspect, size):
    found = shaped(np.full(size, 77, np.uint8), 16, 24, aspect)
    assert found == [[77] * 24] * 16


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    times=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 9),
)
def test_images_of_the_ratio_wanted_are_brought_to_their_size_alike(ratio, times, seed):
    size, wanted = ([side * each for side in ratio] for each in times)
    found = [shaped(noise(*size, seed=seed), *wanted, each) for each in ("stretch", "pad", "crop")]
    assert found[0] == found[1] == found[2]


# --- the rule


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {},
        {"height": 8, "width": 8, "channels": 3},
        {"height": 8, "width": 8, "channels": 2, "background": [0, 0, 0]},
        {"height": 0, "width": 8, "channels": 3, "background": [0, 0, 0]},
        {"height": 8.0, "width": 8, "channels": 3, "background": [0, 0, 0]},
        {"height": True, "width": 8, "channels": 3, "background": [0, 0, 0]},
        {"height": 8, "width": 9999, "channels": 3, "background": [0, 0, 0]},
        {"height": 8, "width": 8, "channels": 3, "background": [0, 0, 256]},
        {"height": 8, "width": 8, "channels": 3, "background": [0, 0]},
        {"height": 8, "width": 8, "channels": 3, "background": "white"},
        {"height": 8, "width": 8, "channels": 3, "background": [0, 0, 0], "crop": 1},
        {"height": 8, "width": 8, "channels": 3, "background": [0, 0, 0], "aspect": "squeeze"},
        {"height": 8, "width": 8, "channels": 3, "background": [0, 0, 0], "aspect": None},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(tree):
    with pytest.raises(DataError, match="image rule"):
        ImageRule.from_json(tree)


@given(
    st.builds(
        ImageRule,
        st.integers(1, 4096),
        st.integers(1, 4096),
        st.sampled_from([1, 3]),
        st.tuples(*[st.integers(0, 255)] * 3),
        st.sampled_from(["stretch", "pad", "crop"]),
    )
)
def test_a_rule_survives_json(rule):
    assert ImageRule.from_json(rule.to_json()) == rule
    assert rule.shape == (rule.height, rule.width, rule.channels)


def test_a_rule_of_before_there_were_aspects_stretches_and_is_written_as_it_was():
    """Model files from then open as before, and what they can follow they are not refused."""
    tree = {"height": 28, "width": 20, "channels": 1, "background": [255, 255, 255]}
    assert ImageRule.from_json(tree) == ImageRule(28, 20, 1, aspect="stretch")
    assert ImageRule.from_json(tree).to_json() == tree
    assert ImageRule(28, 20, 1, aspect="pad").to_json() == {**tree, "aspect": "pad"}
