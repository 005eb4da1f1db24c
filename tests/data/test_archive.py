from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders_data import archive_of, encoded, files_of_pets, noise, packed, plain, two_classes
from tinylens.data.encoded import Options
from tinylens.data.load import load
from tinylens.data.readers import archive, members
from tinylens.data.readers.folder import read
from tinylens.errors import DataError

NAMES = ("pets.zip", "pets.tar", "pets.tar.gz", "pets.tgz")


@pytest.fixture
def options(tmp_path):
    return Options(data_dir=tmp_path / "cache")


def around(files, folder):
    return {f"{folder}/{name}": content for name, content in files.items()}


# --- what is read


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_is_what_its_folder_is(tmp_path, options, name):
    expected = read(two_classes(tmp_path / "pets"), options)
    data = archive.read(packed(tmp_path / name, files_of_pets()), options)
    assert data.fingerprint == expected.fingerprint and data.class_names == ("cat", "dog")
    assert sorted(data.paths)[0] == f"{tmp_path}/{name}/cat/0.png"
    again = archive.read(tmp_path / name, options)  # from the cache
    assert again.fingerprint == data.fingerprint and again.paths == data.paths
    left = {path.name for path in options.data_dir.rglob("*") if path.is_file()}
    assert not left & {"0.png"} and not list(options.data_dir.glob(".tmp-*"))


@pytest.mark.parametrize("name", NAMES)
def test_parts_a_folder_around_and_litter(tmp_path, options, name):
    files = around(files_of_pets(), "set/train") | around(files_of_pets(1), "./set/test")
    files |= {"__MACOSX/set/train/cat/._0.png": b"?", "set/train/cat/.DS_Store": b"?"}
    files |= {"set/README.txt": b"?", "set/train/cat/deeper/still/9.png": plain()}
    parts = archive.read_parts(packed(tmp_path / name, files), options)
    assert [(part, len(data)) for part, data in parts.items()] == [("train", 7), ("test", 2)]
    assert parts.notes == ("2 files, no images by name, were left out",)


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_inside_says_the_classes(tmp_path, options, name):
    files = {f"images/{n}.png": plain((9 * n, 0, 0)) for n in range(4)}
    rows = "".join(f"images/{n}.png,{'ab'[n % 2]},{n // 2}\n" for n in range(4))
    files["labels.csv"] = f"file,class,shoe\n{rows}images/7.png,a,9\n".encode()
    parts = archive.read_parts(packed(tmp_path / name, files), options)
    assert parts.train.counts.tolist() == [2, 2]
    assert [each.reason for each in parts.train.skipped] == ["not in the archive"]
    assert parts.notes[0] == "the classes are those of labels.csv"
    cells = archive.read_column(tmp_path / name, "shoe")
    assert {cells[path] for path in parts.train.paths} == {"0", "1"}


def test_zips_are_read_stored_or_deflated(tmp_path, options):
    found = set()
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = packed(tmp_path / f"{method}.zip", files_of_pets(), method)
        found.add(archive.read(path, options).fingerprint)
    assert len(found) == 1


def test_a_image_that_is_damaged_in_its_zip_is_set_aside(tmp_path, options):
    files = files_of_pets() | {"cat/9.png": encoded(noise(8, 8, 3))}
    path = packed(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    content = path.read_bytes().replace(files["cat/9.png"], files["cat/9.png"][:-9] + b"123456789")
    path.write_bytes(content)
    data = archive.read(path, options)
    assert len(data) == 6
    assert [each.reason for each in data.skipped] == [
        "damaged in its archive: Bad CRC-32 for file 'cat/9.png'"]  # fmt: skip


class Unflagged(zipfile.ZipInfo):
    """A member whose name is these bytes, without a flag that says how to read them."""

    def _encodeFilenameFlags(self):
        return self.comment, 0


def zip_of_raw_names(path: Path, files: dict[bytes, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for number, (name, content) in enumerate(files.items()):
            info = Unflagged(str(number))
            info.comment = name
            zipped.writestr(info, content)
    return path


def test_names_in_utf8_without_a_flag_are_understood(tmp_path, options):
    files = {"café/0.png".encode(): plain(), b"dog/0.png": plain((1, 2, 3))}
    data = archive.read(zip_of_raw_names(tmp_path / "x.zip", files), options)
    assert data.class_names == ("café", "dog")


def test_images_may_be_called_in_old_letters_and_classes_may_not(tmp_path, options):
    files = {b"cat/f\x81r.png": plain(), b"dog/0.png": plain((1, 2, 3))}
    assert len(archive.read(zip_of_raw_names(tmp_path / "x.zip", files), options)) == 2
    files = {b"caf\x82/0.png": plain(), b"dog/0.png": plain((1, 2, 3))}
    path = zip_of_raw_names(tmp_path / "y.zip", files)
    with pytest.raises(DataError, match="letters of an unknown kind, and its folder is a class"):
        archive.read(path, options)


# --- what is refused


def refusal(path: Path, options: Options) -> str:
    with pytest.raises(DataError) as raised:
        archive.read(path, options)
    message = str(raised.value)
    assert path.name in message and "expected" in message and "\n" not in message
    assert not options.data_dir.exists() or not list(options.data_dir.iterdir())
    return message


HARMFUL = ("../evil.png", "/tmp/evil.png", "cat/../../evil.png", "C:/evil.png", "..\\evil.png")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evil", HARMFUL)
def test_names_that_lead_out_are_refused(tmp_path, options, name, evil):
    path = packed(tmp_path / name, files_of_pets() | {evil: plain()})
    assert "leads out of the folder that it stands in" in refusal(path, options)
    assert not list(tmp_path.parent.glob("evil.png"))


KINDS = {
    "a symbolic link": tarfile.SYMTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a device": tarfile.CHRTYPE,
}


@pytest.mark.parametrize("name", ["pets.tar", "pets.tgz"])
@pytest.mark.parametrize("what", KINDS)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, options, name, what):
    info = tarfile.TarInfo("cat/9.png")
    info.type, info.linkname = KINDS[what], "/etc/passwd"
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tar:
        tar.addfile(info)
    assert f"cat/9.png is {what}, which could lead anywhere" in refusal(tmp_path / name, options)


def test_links_in_a_zip_are_refused(tmp_path, options):
    path = packed(tmp_path / "x.zip", files_of_pets())
    with zipfile.ZipFile(path, "a") as more:
        info = zipfile.ZipInfo("cat/link.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        more.writestr(info, "/etc/passwd")
    assert "cat/link.png is a link" in refusal(path, options)


def test_a_zip_with_a_password_is_refused(tmp_path, options):
    path = packed(tmp_path / "x.zip", files_of_pets())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    assert "is encrypted; expected an archive without a password" in refusal(path, options)


def test_a_zip_of_another_method_is_refused(tmp_path, options):
    path = packed(tmp_path / "x.zip", files_of_pets(), zipfile.ZIP_LZMA)
    assert "is packed by method 14; expected stored or deflated" in refusal(path, options)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_there_twice_is_refused(tmp_path, options, name):
    path = tmp_path / name
    if path.suffix == ".zip":
        packed(path, files_of_pets())
        with zipfile.ZipFile(path, "a") as more:
            more.writestr("cat/./0.png", plain())
    else:
        packed(path, files_of_pets() | {"./cat/0.png": plain()})
    assert "holds cat/0.png twice" in refusal(path, options)


@pytest.mark.parametrize("name", NAMES)
def test_archives_in_archives_are_told(tmp_path, options, name):
    path = packed(tmp_path / name, {"a.zip": b"PK", "b.tar.gz": b"?", "notes.txt": b"?"})
    assert "holds 2 archives and no images" in refusal(path, options)


def test_a_zip_that_claims_too_much_is_refused(tmp_path, options):
    path = packed(tmp_path / "x.zip", files_of_pets())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 3_000_000_000)
    path.write_bytes(bytes(content))
    assert "would unpack to more than 1,000,000,000 bytes, over 200 times" in refusal(path, options)


def test_a_member_that_inflates_to_more_than_it_says_is_set_aside(tmp_path, options):
    bomb = b"\x89PNG\r\n\x1a\n" + bytes(50_000_000)
    path = packed(tmp_path / "x.zip", {"cat/9.png": bomb} | files_of_pets())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 100)
    path.write_bytes(bytes(content))
    data = archive.read(path, options)
    assert len(data) == 6 and "Bad CRC-32" in data.skipped[0].reason


def test_members_that_lie_upon_one_another_are_set_aside(tmp_path, options):
    """A small zip becomes a huge one when all its members share their bytes (Fifield 2019)."""
    path = packed(tmp_path / "x.zip", files_of_pets())
    content = bytearray(path.read_bytes())
    entries = [at for at in range(len(content) - 4) if content[at : at + 4] == b"PK\x01\x02"]
    content[entries[1] + 42 : entries[1] + 46] = content[entries[0] + 42 : entries[0] + 46]
    path.write_bytes(bytes(content))
    data = archive.read(path, options)
    assert len(data) == 5
    assert [each.reason.partition(":")[0] for each in data.skipped] == ["damaged in its archive"]


def test_a_gz_that_unpacks_to_too_much_is_refused(tmp_path, options, monkeypatch):
    monkeypatch.setattr(members, "HARMLESS_BYTES", 1_000_000)
    path = packed(tmp_path / "x.tgz", {"cat/0.bmp": bytes(40_000_000)})
    assert path.stat().st_size < 100_000
    assert "would unpack to more than" in refusal(path, options)


def test_more_members_than_any_set_has_are_refused(tmp_path, options, monkeypatch):
    monkeypatch.setattr(members, "MAX_MEMBERS", 5)
    for name in NAMES:
        path = packed(tmp_path / name, files_of_pets())
        assert "more than 5 members; expected fewer" in refusal(path, options)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar", "x.zip"])
@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"text " * 999), b"text " * 999, b"", b"PK"],
    ids=["packed text", "text", "nothing", "two letters"],  # not the time that gzip writes down
)
def test_what_is_called_an_archive_and_is_none_is_told(tmp_path, options, name, content):
    (tmp_path / name).write_bytes(content)
    assert "not a whole archive" in refusal(tmp_path / name, options)


def test_a_tar_that_was_cut_between_two_members_is_told(tmp_path, options):
    path = packed(tmp_path / "x.tar", files_of_pets())
    with tarfile.open(path) as archive_:
        end = archive_.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:end])
    assert "it ends without the mark of its end" in refusal(path, options)


def test_a_sparse_member_is_refused(tmp_path, options):
    info = tarfile.TarInfo("cat/0.png")
    header = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "cat/0.png",
              "GNU.sparse.realsize": "99999999999"}  # fmt: skip
    info.pax_headers = header
    body = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    path = archive_of(tmp_path / "x.tar.gz", [(info, body)])
    assert "a sparse file" in refusal(path, options)


def test_a_folder_in_letters_that_are_no_text_is_told(tmp_path, options):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        for name in ("café/0.png", "dog/0.png"):
            info = tarfile.TarInfo(name)
            info.size = len(plain())
            tar.addfile(info, io.BytesIO(plain()))
    assert "is not in UTF-8, and its folder is a class" in refusal(path, options)


def test_load_reads_archives_and_still_knows_those_of_cifar(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    splits = load(packed(tmp_path / "pets.zip", files_of_pets(20)))
    assert [len(part) for _, part in splits.items()] == [30, 4, 6]


CHANGE = st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=6))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(NAMES), st.lists(CHANGE, min_size=1, max_size=4), st.booleans())
def test_whatever_is_wrong_in_an_archive_is_no_traceback(name, changes, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = packed(Path(folder) / name, files_of_pets(2), zipfile.ZIP_STORED)
        content = bytearray(path.read_bytes())
        for where, change in changes:
            at = where % len(content)
            content[at : at + len(change)] = change
        path.write_bytes(bytes(content[: len(content) - cut * changes[0][0] % len(content)]))
        try:
            data = archive.read(path, Options(data_dir=Path(folder) / "cache", workers=1))
        except DataError as error:
            assert name in str(error)
        else:
            assert len(data) + len(data.skipped) <= 4
