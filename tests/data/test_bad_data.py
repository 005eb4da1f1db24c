"""Bad data, one by one: a sentence of ours, the exit code 4, and nothing half-written.

The names of the rows are those of the list of faults that the design asks to survive: D for data,
I for images. What a row has beyond these is tested beside the module that meets it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import builders_data as build
from tinylens.data.builtin import Patience, Remote, fetch
from tinylens.data.cache import cache_root
from tinylens.data.load import load
from tinylens.errors import DataError

Case = Callable[[Path], object]  # makes the bad input in a folder and meets it

DISCARD = "http://127.0.0.1:9/file"  # the port of discard: nobody listens
QUICK = Patience(timeout=0.3, tries=2, pause=0.01)


# --- files of known sets


def cut_download_left_by_another_program(root: Path) -> object:
    file = build.idx_folder(root) / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-40])
    return load(root)


def wrong_half_left_by_an_earlier_download(root: Path) -> object:
    (root / "file.part").write_bytes(b"half")
    return fetch(Remote("file", "0" * 64, [DISCARD]), root, QUICK)


def offline(root: Path) -> object:
    return fetch(Remote("file", "0" * 64, [DISCARD]), root, QUICK)


def cache_that_cannot_be_written(root: Path) -> object:
    (root / "file").write_text("")
    return load(build.two_classes(root / "pets", 9), data_dir=root / "file" / "cache")


def cache_without_a_home(root: Path) -> object:
    environment = dict(os.environ)
    for name in ("HOME", "XDG_CACHE_HOME", "TINYLENS_CACHE"):
        os.environ.pop(name, None)
    original, os.path.expanduser = os.path.expanduser, lambda path: path
    try:
        return cache_root()
    finally:
        os.path.expanduser = original
        os.environ.update(environment)


# --- archives and pickles


def tar_with(root: Path, name: str, kind: bytes) -> object:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    build.archive_of(root / "x.tar.gz", [(info, b"")])
    return load(root / "x.tar.gz")


def written(path: Path, content: bytes) -> object:
    path.write_bytes(content)
    return load(path)


def zip_bomb(root: Path) -> object:
    np.savez(root / "x.npz", images=build.noise(2, 4, 4), labels=[0, 1])
    content = bytearray((root / "x.npz").read_bytes())
    entry = content.index(b"PK\x01\x02")  # of the directory at the end, which is what is believed
    content[entry + 24 : entry + 28] = struct.pack("<I", 3_000_000_000)
    (root / "x.npz").write_bytes(bytes(content))
    return load(root / "x.npz")


class Gadget:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def pickle_gadget(root: Path) -> object:
    place = build.cifar10_python(root)
    content = build.cifar_pickle({b"data": Gadget(root / "ran"), b"labels": [1]})
    (place / "data_batch_1").write_bytes(content)
    try:
        return load(root)
    finally:
        assert not (root / "ran").exists()


def object_array(root: Path) -> object:
    path = root / "ran"
    content = np.array([Gadget(path), None])
    np.savez(root / "x.npz", images=build.noise(2, 4, 4), labels=content)
    try:
        return load(root / "x.npz")
    finally:
        assert not path.exists()


def memory_bomb(root: Path) -> object:
    buffer = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": (2**44,)}
    np.lib.format.write_array_header_1_0(buffer, form)
    with zipfile.ZipFile(root / "x.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
        archive.writestr("labels.npy", buffer.getvalue())
    return load(root / "x.npz")


# --- arrays and labels


def idx(root: Path, name: str, content: bytes) -> object:
    build.idx_folder(root)
    (root / f"train-{name}-ubyte.gz").write_bytes(content)
    return load(root)


def npz(root: Path, **arrays: object) -> object:
    np.savez(root / "x.npz", **({"images": build.noise(6, 4, 4), "labels": [0, 1] * 3} | arrays))
    return load(root / "x.npz")


GOOD_IDX = build.idx_bytes(build.noise(20, 8, 8))


# --- folders and tables


def pets(root: Path, **classes: list[bytes]) -> object:
    return load(build.folder(root / "pets", classes))


def empty_class(root: Path) -> object:
    (root / "pets" / "owl").mkdir(parents=True)
    return load(build.two_classes(root / "pets"))


def unicode_twins(root: Path) -> object:
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    return pets(root, **dict.fromkeys(names, [build.plain()] * 9))


def corrupt_image_when_strict(root: Path) -> object:
    build.folder(root / "pets", {"cat": [build.plain(), b"broken"], "dog": [build.plain()]})
    return load(root / "pets", strict=True)


def only_links_out_of_the_folder(root: Path) -> object:
    build.two_classes(root / "pets", 9)
    (root / "elsewhere.png").write_bytes(build.plain())
    (root / "pets" / "owl").mkdir()
    (root / "pets" / "owl" / "0.png").symlink_to(root / "elsewhere.png")
    return load(root / "pets")


def link_in_a_list(root: Path) -> object:
    build.two_classes(root)
    (root / "cat" / "9.png").symlink_to("/etc/passwd")
    return written(root / "x.csv", b"path,label\ncat/9.png,cat\ndog/0.png,dog\n")


def table(root: Path, **options: object) -> object:
    build.parquet(root / "x.parquet", [build.plain()] * 9, [0, 1, 0] * 3, **options)
    return load(root / "x.parquet")


def null_rows(root: Path) -> object:
    build.parquet(root / "x.parquet", [None] * 9, [0, 1, 0] * 3)
    return load(root / "x.parquet")


def make_images(root: Path, content: bytes) -> object:
    return pets(root, cat=[content] * 9, dog=[content] * 9)


def large_png(width: int, height: int) -> bytes:
    return build.raw_png(width, height, 8, 2, b"")


CASES: dict[str, tuple[Case, str]] = {
    "D1-download-cut": (
        cut_download_left_by_another_program,
        r"train-images.*cannot be read: Comp",
    ),
    "D1-download-half": (wrong_half_left_by_an_earlier_download, "cannot fetch file: .*refused"),
    "D4-offline": (offline, r"Connection refused\. By hand: put the file from http.* into "),
    "D6-cache-read-only": (cache_that_cannot_be_written, "cannot keep data in .*--data-dir FOLDER"),
    "D6-no-home": (cache_without_a_home, "cannot keep data in the user's cache: .*TINYLENS_CACHE"),
    "D7-tar-dots": (
        lambda r: tar_with(r, "../evil", tarfile.REGTYPE),
        r"x\.tar\.gz: '\.\./evil' leads out of the folder that it stands in; expected paths within",
    ),
    "D7-tar-absolute": (
        lambda r: tar_with(r, "/tmp/evil", tarfile.REGTYPE),
        "'/tmp/evil' leads out of the folder",
    ),
    "D7-tar-of-images-symlink": (
        lambda r: tar_with(r, "cat/0.png", tarfile.SYMTYPE),
        r"cat/0\.png is a symbolic link, which could lead anywhere; .* --dereference",
    ),
    "D7-tar-of-images-hardlink": (
        lambda r: tar_with(r, "cat/0.png", tarfile.LNKTYPE),
        r"cat/0\.png is a hard link",
    ),
    "D7-tar-of-images-device": (
        lambda r: tar_with(r, "cat/0.png", tarfile.CHRTYPE),
        r"cat/0\.png is a device",
    ),
    "D7-gz-of-no-tar": (
        lambda r: written(r / "x.tar.gz", gzip.compress(b"text" * 999)),
        r"not a whole archive: .*expected a \.tar or \.tar\.gz, as its name says",
    ),
    "D7-manifest-dots": (
        lambda r: written(r / "x.csv", b"path,label\n../../etc/passwd,cat\n"),
        "row 1: '../../etc/passwd' leads out of the folder",
    ),
    "D8-zip-slip": (
        lambda r: load(build.packed(r / "x.zip", {"../evil.png": build.plain()})),
        r"x\.zip: '\.\./evil\.png' leads out",
    ),
    "D8-zip-cut": (
        lambda r: written(
            r / "y.zip", build.packed(r / "x.zip", build.files_of_pets()).read_bytes()[:-40]
        ),
        r"y\.zip: not a whole archive: File is not a zip file; .* fetch or pack it anew",
    ),
    "D8-zip-of-zips": (
        lambda r: load(build.packed(r / "x.zip", {"a.zip": b"PK"})),
        "holds 1 archives and no images, and archives in archives are not opened",
    ),
    "D7-tar-symlink": (
        lambda r: tar_with(r, "cifar-10-batches-bin/data_batch_1.bin", tarfile.SYMTYPE),
        r"data_batch_1\.bin is no regular file",
    ),
    "D7-tar-hardlink": (
        lambda r: tar_with(r, "cifar-10-batches-bin/data_batch_1.bin", tarfile.LNKTYPE),
        r"data_batch_1\.bin is no regular file",
    ),
    "D7-tar-device": (
        lambda r: tar_with(r, "cifar-10-batches-bin/data_batch_1.bin", tarfile.CHRTYPE),
        r"data_batch_1\.bin is no regular file",
    ),
    "D8-zip-bomb": (zip_bomb, "unzip to 3,000,000,[0-9]+, expected at most"),
    "D9-pickle-gadget": (
        pickle_gadget,
        "data_batch_1: hash mismatch: expected 54636561.*not opened",
    ),
    "D9-object-array": (object_array, r"labels\.npy holds Python objects"),
    "D10-memory-bomb": (memory_bomb, "claims .* 17,592,186,044,416 bytes, and holds 0"),
    "D11-idx-magic": (
        lambda r: idx(r, "images-idx3", b"PK" + GOOD_IDX),
        "byte 0: starts with 504b",
    ),
    "D11-idx-short": (lambda r: idx(r, "images-idx3", GOOD_IDX[:-9]), "the file ends at byte 1287"),
    "D11-idx-long": (lambda r: idx(r, "images-idx3", GOOD_IDX + b"!"), "the file goes on"),
    "D11-idx-floats": (
        lambda r: idx(r, "images-idx3", build.idx_bytes(build.noise(9, 2, 2), 0x0D)),
        "byte 2: values of type float",
    ),
    "D11-idx-empty": (lambda r: idx(r, "images-idx3", b""), "byte 0: the file ends"),
    "D11-gzip-check": (
        lambda r: idx(r, "images-idx3", gzip.compress(GOOD_IDX)[:-8] + bytes(8)),
        "CRC check failed",
    ),
    "D12-labels-out-of-range": (
        lambda r: npz(r, class_names=["a", "b"], labels=[0, 1, 2, 0, 1, 9]),
        r"2 labels outside 0…1 \(row 2: 2, row 5: 9\)",
    ),
    "D12-labels-negative": (lambda r: npz(r, labels=[0, 1, -1, 0, 1, 0]), "row 2: -1"),
    "D12-labels-float": (lambda r: npz(r, labels=np.linspace(0, 1, 6)), "labels are float64"),
    "D12-labels-nan": (lambda r: npz(r, labels=[0, 1, 0, 1, 0, np.nan]), "labels are float64"),
    "D12-labels-one-hot": (lambda r: npz(r, labels=np.eye(6, dtype=int)), r"argmax\(axis=1\)"),
    "D13-count": (lambda r: npz(r, labels=[0, 1]), "6 images but 2 labels"),
    "D13-idx-count": (
        lambda r: idx(r, "labels-idx1", build.idx_bytes(np.zeros(7, np.uint8))),
        "20 images but 7 labels",
    ),
    "D14-empty-class": (empty_class, "pets/owl: no images of class owl"),
    "D14-one-image": (
        lambda r: pets(r, cat=[build.plain()] * 9, dog=[build.plain()]),
        "one image alone of class dog",
    ),
    "D14-one-class": (lambda r: pets(r, cat=[build.plain()] * 9), "found 1 class folders: cat"),
    "D14-no-class": (load, "no data set that is known here"),
    "D15-unicode-twins": (unicode_twins, "differ in Unicode form alone"),
    "D15-case-twins": (
        lambda r: pets(r, Cat=[build.plain()] * 9, cat=[build.plain()] * 9),
        "differ in upper and lower case alone",
    ),
    "D15-other-class-in-test": (
        lambda r: load(
            build.folder(
                r / "pets",
                {f"train/{n}": [build.plain()] for n in "ab"} | {"test/c": [build.plain()]},
            )
        ),
        "test has classes that train lacks: c",
    ),
    "D16-strict": (corrupt_image_when_strict, r"1 images cannot be read: .*cat/1\.png: not a"),
    "D16-all-corrupt": (lambda r: make_images(r, b"broken"), "none of 18 files is an image"),
    "D19-link-in-a-list": (link_in_a_list, r"cat/9\.png is a link that leads out of the folder"),
    "D19-links-out": (only_links_out_of_the_folder, "pets/owl: no images of class owl"),
    "D21-no-image-column": (
        lambda r: table(r, image_column="photo"),
        "columns photo, label; expected",
    ),
    "D21-no-label-column": (
        lambda r: table(r, label_column="kind"),
        "columns image, kind; expected",
    ),
    "D21-null-rows": (null_rows, "no images"),
    "I1-empty": (lambda r: make_images(r, b""), "empty file"),
    "I1-text": (lambda r: make_images(r, b"<html>"), "not an image: starts with b'<html>'"),
    "I1-truncated": (
        lambda r: make_images(r, build.encoded(build.noise(64, 64, 3), "PNG")[:4000]),
        "none of 18 files|no image of train can be read: .*broken PNG",
    ),
    "I2-tiff-of-floats": (
        lambda r: make_images(r, build.encoded(np.zeros((4, 4), np.float32), "TIFF")),
        "not an image",
    ),
    "I5-bomb": (
        lambda r: make_images(r, large_png(50_000, 50_000)),
        "too large: 50000×50000 pixels",
    ),
    "I5-one-by-65000": (
        lambda r: make_images(r, large_png(1, 65_000)),
        "too large: 1×65000 pixels",
    ),
    "I8-exe-named-png": (lambda r: make_images(r, b"MZ\x90\0" + bytes(99)), "not an image"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_a_sentence_and_leaves_nothing_half_written(name, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("TINYLENS_CACHE", str(cache))
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "input").mkdir()
    case, words = CASES[name]
    with pytest.raises(DataError, match=words) as raised:
        case(tmp_path / "input")
    assert raised.value.exit_code == 4
    assert "\n" not in str(raised.value) and "Traceback" not in str(raised.value)
    left = [path for path in cache.rglob("*") if path.is_file()]
    whole = {"images.npy", "labels.npy", "meta.json"}
    assert all(path.name in whole or path.parent.name == "signatures" for path in left)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_tampered_mirror_leaves_nothing(tmp_path, monkeypatch):
    """D2: what a mirror gives is thrown away when its hash is wrong."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "file").write_bytes(b"tampered")
    handler = functools.partial(Quiet, directory=str(tmp_path / "mirror"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/file"
        sha256 = hashlib.sha256(b"original").hexdigest()
        with pytest.raises(DataError, match=f"hash mismatch: expected {sha256}, got"):
            fetch(Remote("file", sha256, [url]), tmp_path / "cache", QUICK)
        server.shutdown()
        thread.join()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["file.lock"]


# --- bad data that is survived: the rest of the set is used, and what was done is told


def survived(root: Path, **extra: bytes) -> object:
    build.two_classes(root, 9)
    for name, content in extra.items():
        (root / "cat" / name.replace("_dot_", ".")).write_bytes(content)
    return load(root)


def test_one_corrupt_image_in_a_folder_is_set_aside(tmp_path, monkeypatch):
    """D16: it costs that image, not the training."""
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    splits = survived(tmp_path / "pets", x_dot_png=build.plain()[:40])
    assert [Path(one.path).name for one in splits.train.skipped] == ["x.png"]
    assert "1 images could not be read and were set aside" in splits.notes


def test_files_that_are_no_images_are_left_out(tmp_path, monkeypatch):
    """D17."""
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    splits = survived(tmp_path / "pets", Thumbs_dot_db=b"?", desktop_dot_ini=b"?", x_dot_txt=b"?")
    assert splits.train.skipped == ()
    assert "3 files or folders, no images by name, were left out" in splits.notes


def test_a_image_whose_name_lies_about_its_format_is_read(tmp_path, monkeypatch):
    """I8: its content says what it is."""
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    png = build.encoded(np.full((8, 8, 3), 77, np.uint8))
    splits = survived(tmp_path / "pets", a_dot_jpg=png, b_dot_gif=png, c_dot_bmp=png)
    assert sum((part.images == 77).all(axis=(1, 2, 3)).sum() for _, part in splits.items()) == 3
    assert splits.train.skipped == ()


def test_a_one_pixel_image_is_used_and_noted(tmp_path, monkeypatch):
    """I5: 1×1 is accepted."""
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    tiny = build.raw_png(1, 1, 8, 2, struct.pack("4B", 0, 9, 9, 9))
    notes = survived(tmp_path / "pets", x_dot_png=tiny).notes
    assert any("side under 4 pixels" in note for note in notes)
