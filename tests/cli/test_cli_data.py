from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import builders_data as build

SOURCE = str(Path(__file__).parents[2] / "src")


def tinylens(*arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCE, "TINYLENS_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "tinylens", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cache.parent,
        env={**environment, "COLUMNS": "100"},
        check=False,
    )


@pytest.fixture
def pets(tmp_path):
    root = build.two_classes(tmp_path / "pets", 20)
    (root / "dog" / "broken.png").write_bytes(b"?")
    return root


def test_data_info_prints_counts_sizes_colours_and_what_is_broken(tmp_path, pets):
    done = tinylens("data", "info", pets, "--sheet", tmp_path / "sheet.png", cache=tmp_path / "c")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.split()[1::2][:4] == ["all", "30", "4", "6"] for line in lines if "all" in line)
    assert "images       8×8 RGB" in lines
    assert any(
        line.startswith("set aside ") and "broken.png: not an image" in line for line in lines
    )
    assert lines[-1] == f"contact sheet  {tmp_path / 'sheet.png'}"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_data_info_as_json_prints_one_object_and_nothing_else(tmp_path, pets):
    done = tinylens("data", "info", pets, "--json", "--val", "0", cache=tmp_path / "c")
    assert (done.returncode, done.stderr) == (0, "")
    described = json.loads(done.stdout)
    assert {name: part["images"] for name, part in described["parts"].items()} == {
        "train": 34,
        "test": 6,
    }
    assert described["class_names"] == ["cat", "dog"] and described["sheet"] == "pets-sheet.png"
    assert (tmp_path / "pets-sheet.png").is_file()
    assert described["parts"]["train"]["skipped"][0]["path"].endswith("broken.png")


def test_data_info_strict_ends_with_4_and_one_sentence(tmp_path, pets):
    done = tinylens("data", "info", pets, "--strict", cache=tmp_path / "c")
    assert done.returncode == 4 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_data_info_of_an_impossible_share_ends_with_2(tmp_path):
    done = tinylens("data", "info", "shapes", "--val", "2", cache=tmp_path / "c")
    assert done.returncode == 2 and "val is 2.0, expected a share" in done.stderr


def test_class_names_that_look_like_markup_are_printed_as_they_are(tmp_path):
    root = build.folder(tmp_path / "x", {"[red]": [build.plain()] * 9, "[b]": [build.plain()] * 9})
    done = tinylens("data", "info", root, cache=tmp_path / "c")
    assert done.returncode == 0 and "[red]" in done.stdout and "[b]" in done.stdout


# --- data convert, and sets with columns of their own


def test_data_convert_prints_what_it_wrote_and_what_it_left_behind(tmp_path, pets):
    done = tinylens("data", "convert", pets, tmp_path / "copy", cache=tmp_path / "c")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "images  train 40, 2 classes"
    assert lines[1].startswith("left out  dog/broken.png: not an image")
    assert lines[2] == f"set       {tmp_path / 'copy'}"
    again = tinylens("data", "convert", pets, tmp_path / "copy", cache=tmp_path / "c")
    assert again.returncode == 4 and again.stderr.endswith("is there already; expected a new name: "
                                                           "give another one\n")  # fmt: skip


def test_data_convert_as_json_and_back_gives_the_same_fingerprint(tmp_path, type_in, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "c"))
    monkeypatch.chdir(tmp_path)
    build.two_classes(tmp_path / "pets", 20)
    words = ("data", "convert", "pets", "shards", "--format", "parquet")
    code, out, _ = type_in(*words, "--groups", "([0-9]).png", "--json")
    described = json.loads(out)
    assert code == 0 and described["images"] == {"train": 40} and described["groups"] == 10
    assert described["class_names"] == ["cat", "dog"] and described["skipped"] == []
    prints = {
        json.loads(type_in("data", "info", path, "--json")[1])["fingerprint"]
        for path in ("pets", "shards")
    }
    assert len(prints) == 1


def test_data_convert_of_an_unknown_form_ends_with_2(tmp_path, type_in):
    build.two_classes(tmp_path / "pets")
    code, out, err = type_in(
        "data", "convert", tmp_path / "pets", tmp_path / "x", "--format", "zip"
    )
    assert (code, out) == (2, "") and "--format zip; expected folder or parquet" in err


def test_columns_may_be_named_on_the_command_line(tmp_path, type_in, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "c"))
    monkeypatch.chdir(tmp_path)
    build.two_classes(tmp_path / "pets", 20)
    rows = [f"pets/{name}/{n}.png;{name}" for name in ("cat", "dog") for n in range(20)]
    (tmp_path / "list.csv").write_text("where;what\n" + "\n".join(rows))
    code, _, err = type_in("data", "info", "list.csv")
    assert code == 4 and "found the columns where, what; expected one of path, " in err
    columns = ("--image-column", "where", "--label-column", "what")
    code, out, _ = type_in("data", "info", "list.csv", *columns, "--json")
    assert code == 0 and json.loads(out)["class_names"] == ["cat", "dog"]
