from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders_data import archive as packed
from builders_data import cifar10_binary, cifar10_python, idx_folder, noise
from tinylens.data import builtin
from tinylens.data.builtin import (
    CIFAR10,
    CIFAR100,
    FASHION_MNIST,
    MNIST,
    CifarSet,
    IdxSet,
    Patience,
    Places,
    Remote,
    read_known,
    usual_places,
)
from tinylens.data.cache import cache_root
from tinylens.data.readers import cifar, idx
from tinylens.errors import DataError

NOWHERE = ("http://127.0.0.1:9/",)  # the port of discard: nobody listens


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    return Places(
        given=None,
        cache=cache_root(),
        keras=tmp_path / "keras",
        system=tmp_path / "system",
        patience=Patience(0.5, tries=1),
        packages=False,
    )


def tiny_idx(tmp_path: Path) -> tuple[IdxSet, Path]:
    """A known set of the same kind as Fashion-MNIST, and where its files are."""
    source = idx_folder(tmp_path / "made")
    payloads = {
        file.name.removesuffix(".gz"): hashlib.sha256(
            gzip.decompress(file.read_bytes())
        ).hexdigest()
        for file in source.glob("*.gz")
    }
    return IdxSet(
        "tiny", tuple("abcde"), payloads, NOWHERE, "tiny-package", "usr/share/tiny"
    ), source


@pytest.mark.parametrize(
    "where",
    ["given", "given/tiny", "cache/tiny", "keras/tiny", "keras", "system/usr/share/tiny"],
)
def test_files_are_taken_from_wherever_they_are(tmp_path, places, where):
    tiny, source = tiny_idx(tmp_path)
    shutil.copytree(source, tmp_path / where, dirs_exist_ok=True)
    if where.startswith("given"):
        places = replace(places, given=tmp_path / "given")
    parts = read_known(tiny, places)
    assert parts.train.class_names == tuple("abcde")
    assert parts.train.source == parts.test.source == "tiny"
    assert parts.notes == (f"files: {tmp_path / where}",)


def test_the_nearest_place_goes_first(tmp_path, places):
    tiny, source = tiny_idx(tmp_path)
    for where in ("given", "keras/tiny", "system/usr/share/tiny"):
        shutil.copytree(source, tmp_path / where)
    given = replace(places, given=tmp_path / "given")
    assert read_known(tiny, given).notes == (f"files: {tmp_path / 'given'}",)
    assert read_known(tiny, places).notes == (f"files: {tmp_path / 'keras/tiny'}",)


def test_damaged_files_are_passed_over_and_noted(tmp_path, places):
    tiny, source = tiny_idx(tmp_path)
    for where in ("keras/tiny", "system/usr/share/tiny"):
        shutil.copytree(source, tmp_path / where)
    cut = tmp_path / "keras/tiny/train-images-idx3-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-50])  # as Keras leaves it when it is killed
    other = tmp_path / "keras/tiny/t10k-labels-idx1-ubyte.gz"
    idx.write_file(other, np.zeros(10, np.uint8))
    notes = read_known(tiny, places).notes
    assert notes[0] == f"files: {tmp_path / 'system/usr/share/tiny'}"
    assert notes[1].startswith("passed over: ") and "train-images-idx3-ubyte.gz" in notes[1]


def test_offline_and_nowhere_says_which_file_to_put_where(tmp_path, places):
    tiny, _ = tiny_idx(tmp_path)
    with pytest.raises(DataError, match=r"tiny: cannot fetch [a-z0-9-]+\.gz: ") as raised:
        read_known(tiny, places)
    assert "By hand: put the file from http://127.0.0.1:9/" in str(raised.value)
    assert str(raised.value).endswith(str(tmp_path / "cache" / "tiny"))


def test_files_that_are_served_are_fetched_into_the_cache(tmp_path, places, serve):
    tiny, source = tiny_idx(tmp_path)
    tiny = replace(tiny, mirrors=(*NOWHERE, serve(source)))
    parts = read_known(tiny, places)
    assert parts.notes == (f"files: {tmp_path / 'cache/tiny'}",)
    assert read_known(replace(tiny, mirrors=NOWHERE), places).train.fingerprint == (
        parts.train.fingerprint
    )


def test_a_package_is_the_last_way(tmp_path, places, monkeypatch):
    tiny, source = tiny_idx(tmp_path)
    requested = []

    def fetch_files(package, inner, folder):
        requested.append((package, sorted(inner)[0]))
        shutil.copytree(source, folder, dirs_exist_ok=True)

    monkeypatch.setattr(builtin, "fetch_files", fetch_files)
    parts = read_known(tiny, replace(places, packages=True))
    assert len(parts.train) == 20
    assert requested == [("tiny-package", "usr/share/tiny/t10k-images-idx3-ubyte.gz")]


def test_a_package_of_something_else_is_refused(tmp_path, places, monkeypatch):
    tiny, _ = tiny_idx(tmp_path)

    def fetch_files(package, inner, folder):
        idx_folder(folder, n_train=11)

    monkeypatch.setattr(builtin, "fetch_files", fetch_files)
    with pytest.raises(DataError, match="hash mismatch: expected"):
        read_known(tiny, replace(places, packages=True))


def test_kerass_npz_of_mnist_is_taken_when_it_is_the_published_one(tmp_path, places):
    tiny, _ = tiny_idx(tmp_path)
    packed_by_keras = places.keras / "tiny.npz"
    packed_by_keras.parent.mkdir()
    arrays = {"x_train": noise(5, 8, 8), "y_train": [0, 1, 2, 3, 4], "x_test": noise(2, 8, 8)}
    np.savez(packed_by_keras, **arrays, y_test=[0, 1])
    sha256 = hashlib.sha256(packed_by_keras.read_bytes()).hexdigest()
    parts = read_known(replace(tiny, keras=sha256), places)
    assert parts.train.class_names == tuple("abcde") and len(parts.test) == 2
    with pytest.raises(DataError, match=r"passed over: .*tiny.npz: hash mismatch"):
        read_known(replace(tiny, keras="0" * 64), places)


# --- CIFAR


def tiny_cifar(tmp_path: Path, maker) -> tuple[CifarSet, Path]:
    place = maker(tmp_path / "made")
    target = packed(place, tmp_path / "made" / "tiny.tar.gz")
    sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
    remote = Remote("tiny.tar.gz", sha256, (f"{NOWHERE[0]}tiny.tar.gz",))
    return CifarSet("tiny", remote, {"tiny.tar.gz": sha256}, place.name), target


@pytest.mark.parametrize("where", ["given", "given/tiny", "cache/tiny", "keras"])
def test_an_archive_is_taken_from_wherever_it_is(tmp_path, places, where):
    tiny, target = tiny_cifar(tmp_path, cifar10_binary)
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    shutil.copy(target, tmp_path / where)
    if where.startswith("given"):
        places = replace(places, given=tmp_path / "given")
    parts = read_known(tiny, places)
    assert (len(parts.train), parts.train.source) == (50, "tiny")


def test_an_archive_with_another_hash_is_not_believed(tmp_path, places):
    tiny, target = tiny_cifar(tmp_path, cifar10_binary)
    places.keras.mkdir()
    (places.keras / "tiny.tar.gz").write_bytes(target.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"passed over: .*tiny\.tar\.gz: hash mismatch: expected"):
        read_known(tiny, places)


def test_an_archive_is_fetched(tmp_path, places, serve):
    tiny, target = tiny_cifar(tmp_path, cifar10_binary)
    url = serve(target.parent) + "tiny.tar.gz"
    tiny = replace(tiny, archive=replace(tiny.archive, urls=(url,)))
    assert len(read_known(tiny, places).test) == 10
    assert (tmp_path / "cache" / "tiny" / "tiny.tar.gz").is_file()


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py-target"])
def test_an_unpacked_folder_is_believed_for_each_files_hash(tmp_path, places, monkeypatch, inner):
    place = cifar10_python(places.keras / inner)
    with pytest.raises(DataError, match=r"passed over: .*hash mismatch: expected 54636561"):
        read_known(replace(CIFAR10, archive=Remote("x", "", NOWHERE)), places)
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in place.iterdir()}
    layouts = (replace(cifar.LAYOUTS[0], sha256=hashes), *cifar.LAYOUTS[1:])
    monkeypatch.setattr(cifar, "LAYOUTS", layouts)
    assert len(read_known(CIFAR10, places).train) == 50


# --- what is pinned


def test_the_official_names_are_in_the_official_order():
    assert (
        FASHION_MNIST.class_names[0] == "T-shirt/top"
        and FASHION_MNIST.class_names[9] == "Ankle boot"
    )
    assert FASHION_MNIST.class_names[5:8] == ("Sandal", "Shirt", "Sneaker")
    assert MNIST.class_names == tuple("0123456789")


def test_every_pinned_hash_is_a_sha256_and_stands_once():
    hashes = [
        *FASHION_MNIST.payloads.values(),
        *MNIST.payloads.values(),
        MNIST.keras,
        *{*CIFAR10.archives.values(), *CIFAR100.archives.values()},
        *(value for layout in cifar.LAYOUTS for value in (layout.sha256 or {}).values()),
    ]
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in hashes)
    assert len(set(hashes)) == len(hashes) == 4 + 4 + 1 + 4 + 7 + 3


# --- the machine's own


def test_keras_home_is_looked_at_and_a_missing_home_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras home"))
    assert usual_places(None).keras == tmp_path / "keras home" / "datasets"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert not usual_places(None).keras.exists()


def test_with_a_folder_named_an_unusable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "file"))
    assert usual_places(tmp_path).cache is None
    with pytest.raises(DataError, match="cannot keep data in"):
        usual_places(None)


_SHARED = Path(os.environ.get("TINYLENS_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
_PLACES = (_SHARED / "fashion-mnist", Path("/usr/share/datasets/fashion-mnist"))
REAL = next((place for place in _PLACES if place.is_dir()), _PLACES[1])


@pytest.mark.skipif(not REAL.is_dir(), reason="Fashion-MNIST is not installed on this machine")
def test_the_real_fashion_mnist_has_the_pinned_contents(places):
    parts = read_known(FASHION_MNIST, replace(places, given=REAL))
    assert parts.notes == (f"files: {REAL}",)
    assert parts.train.counts.tolist() == [6000] * 10
    assert parts.test.counts.tolist() == [1000] * 10
    assert parts.train.class_names[parts.train.labels[0]] == "Ankle boot"


# --- packages


UNPACKS = """#!/bin/sh
mkdir -p "$3/usr/share/tiny" && echo hello > "$3/usr/share/tiny/a.gz"
"""


def fake_programs(folder: Path, download: str) -> None:
    """Programs by the names of Debian's, for machines that have none."""
    folder.mkdir()
    for name, script in {"apt-get": download, "dpkg-deb": UNPACKS}.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)


GIVES = '#!/bin/sh\n[ "$1" = download ] && echo packed > "$2.deb"\n'
NEEDS_LISTS = """#!/bin/sh
case "$*" in
*Lists*update) : > lists/known ;;
*Lists*download*) [ -e lists/known ] && echo packed > tiny.deb ;;
*) echo "E: Unable to locate package tiny" >&2; exit 100 ;;
esac
"""


@pytest.mark.parametrize("script", [GIVES, NEEDS_LISTS])
def test_a_package_is_unpacked_without_being_installed(tmp_path, monkeypatch, script):
    fake_programs(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert builtin.can_fetch_packages()
    builtin.fetch_files("tiny", ["usr/share/tiny/a.gz"], tmp_path / "out")
    assert (tmp_path / "out" / "a.gz").read_text() == "hello\n"
    with pytest.raises(DataError, match="the Debian package tiny has no usr/share/tiny/b"):
        builtin.fetch_files("tiny", ["usr/share/tiny/b"], tmp_path / "out")


def test_a_package_that_cannot_be_had_is_told_in_the_programs_words(tmp_path, monkeypatch):
    fake_programs(tmp_path / "bin", "#!/bin/sh\necho 'E: no network' >&2; exit 100\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(DataError, match="apt-get ended with code 100: E: no network"):
        builtin.fetch_files("tiny", ["a"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_programs_no_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not builtin.can_fetch_packages()
    with pytest.raises(DataError, match="apt-get did not run"):
        builtin.fetch_files("tiny", ["a"], tmp_path / "out")


def test_nobody_listens_on_the_port_of_discard():
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 9)) != 0
