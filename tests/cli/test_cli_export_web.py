"""`tinylens export RUN --format web`."""

from __future__ import annotations

import json

import pytest

from builders_export import copy_of
from tinylens.errors import MissingExtra
from tinylens.exporting.webpage.runtime import runtime_files


@pytest.fixture
def fetched():
    try:
        runtime_files(None, lambda _: None)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.slow  # asks npm's registry where the cache has nothing
@pytest.mark.usefixtures("fetched")
def test_a_page_is_written_without_the_data_set_and_said_how_to_look_at(type_in, trained, tmp_path):
    run = copy_of(trained, tmp_path)
    code, out, err = type_in("export", run.path, "--format", "web")
    folder = run.exports / "web"
    assert (code, err) == (0, "")
    assert out.startswith(f"web          {folder / 'index.html'}  ")
    assert f"python3 -m http.server --bind 127.0.0.1 --directory {folder} 8000" in out
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.html", "onnxruntime-web.LICENSE.txt"}

    out_folder = tmp_path / "elsewhere"
    code, out, err = type_in("export", run.path, "--format", "web", "--out", out_folder, "--json")
    tree = json.loads(out)
    assert (code, err, tree["formats"], tree["passed"]) == (0, "", [], True)
    assert tree["page"]["path"] == str(out_folder / "web" / "index.html")
    assert tree["page"]["size"] == (out_folder / "web" / "index.html").stat().st_size


def test_a_folder_of_the_runtime_without_a_page_is_refused(type_in, trained, tmp_path):
    code, _, err = type_in(
        "export", trained.path, "--format", "onnx", "--onnxruntime-web", tmp_path
    )
    assert code == 2
    assert "--onnxruntime-web is for --format web, which was not asked for" in err


@pytest.mark.slow
@pytest.mark.usefixtures("fetched")
def test_a_damaged_model_gets_no_page(type_in, trained, tmp_path):
    run = copy_of(trained, tmp_path)
    content = bytearray(run.model.read_bytes())
    content[len(content) // 2] ^= 1
    run.model.write_bytes(content)
    code, _, err = type_in("export", run.path, "--format", "web")
    assert code == 5 and "was changed after it was written" in err
    assert not (run.exports / "web").exists()
