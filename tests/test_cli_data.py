from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import builders_data as build

SOURCE = str(Path(__file__).parents[1] / "src")


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
    assert "pictures       8×8 RGB" in lines
    assert any(
        line.startswith("set aside ") and "broken.png: not a picture" in line for line in lines
    )
    assert lines[-1] == f"contact sheet  {tmp_path / 'sheet.png'}"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_data_info_as_json_prints_one_object_and_nothing_else(tmp_path, pets):
    done = tinylens("data", "info", pets, "--json", "--val", "0", cache=tmp_path / "c")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert {name: part["pictures"] for name, part in told["parts"].items()} == {
        "train": 34,
        "test": 6,
    }
    assert told["class_names"] == ["cat", "dog"] and told["sheet"] == "pets-sheet.png"
    assert (tmp_path / "pets-sheet.png").is_file()
    assert told["parts"]["train"]["skipped"][0]["path"].endswith("broken.png")


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
