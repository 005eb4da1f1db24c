from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from builders_input_checks import make_images, photo, reference
from shipped import CLASS_NAMES, RULE, linear_answers, model_bytes, some_images
from tinylens import cli
from tinylens.data.images import ImageRule
from tinylens.data.readers.folder import IMAGE_SUFFIXES
from tinylens.errors import DataError, MissingExtra, ModelError, RecipeError
from tinylens.inference import batch_predict
from tinylens.inference.batch_predict import expand, printable
from tinylens.inference.classifier import Classifier, Prediction
from tinylens.inference.selective_prediction import Level, SelectivePrediction, SetLevel

NOTHING = io.BytesIO(b"")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty folder, the current one, beside which stands a model file."""
    (tmp_path / "m.onnx").write_bytes(model_bytes())
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def write_image(path: Path, seed: int = 0) -> np.ndarray:
    pixels = some_images(1, RULE, seed)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, "PNG")
    return pixels


def run(*arguments: str, **options: object) -> Result:
    return CliRunner().invoke(cli.app, ["predict", "../m.onnx", *arguments], **options)


# --- which images are meant


def test_a_folder_means_the_images_below_it_by_code_point(folder):
    for name in ("b.PNG", "a/z.jpeg", "a/B.gif", "Z.webp", "é.bmp", "a-1.jpg"):
        write_image(folder / name)
    for name in ("notes.txt", ".hidden.png", ".git/x.png", "Thumbs.db", "png"):
        write_image(folder / name)
    (folder / "folder.png").mkdir()
    names = ["Z.webp", "a-1.jpg", "a/B.gif", "a/z.jpeg", "b.PNG", "é.bmp"]
    assert expand(["."], NOTHING) == names
    assert expand([str(folder)], NOTHING) == [str(folder / name) for name in names]


def test_files_stay_in_the_order_given_whatever_their_names(folder):
    for name in ("z.png", "a.txt"):
        write_image(folder / name)
    assert expand(["z.png", "a.txt", "z.png"], NOTHING) == ["z.png", "a.txt", "z.png"]


def test_patterns_are_expanded_and_sorted(folder):
    for name in ("2.png", "10.png", "sub/deep/3.png", "sub/4.jpg", "5.txt"):
        write_image(folder / name)
    assert expand(["*.png"], NOTHING) == ["10.png", "2.png"]
    assert expand(["**/*.png"], NOTHING) == ["10.png", "2.png", "sub/deep/3.png"]
    assert expand(["s*"], NOTHING) == ["sub/4.jpg", "sub/deep/3.png"]
    assert expand([f"{folder}/?.png"], NOTHING) == [f"{folder}/2.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(folder):
    for name in ("photo[1].png", "photo1.png", "what?.png"):
        write_image(folder / name)
    assert expand(["photo[1].png", "what?.png"], NOTHING) == ["photo[1].png", "what?.png"]


def test_a_dash_means_paths_on_the_standard_input(folder):
    lines = io.BytesIO(b"a b.png\r\n\nnone.png\ncaf\xe9.png")
    assert expand(["-"], lines) == ["a b.png", "none.png", "caf\udce9.png"]


def test_links_to_folders_are_not_followed(folder):
    write_image(folder / "a/1.png")
    (folder / "a/loop").symlink_to(folder)
    (folder / "a/broken.png").symlink_to(folder / "nowhere")
    assert expand(["a"], NOTHING) == ["a/1.png", "a/broken.png"]


def test_what_means_nothing_stays_in_the_list_beside_what_does(folder):
    write_image(folder / "1.png")
    (folder / "empty").mkdir()
    arguments = ["none.png", "1.png", "empty", "*.gif", "x" * 300, "-"]
    assert expand(arguments, NOTHING) == arguments


def test_nothing_at_all_is_an_error_that_says_what_is_expected(folder):
    (folder / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        expand(["empty", "none\n.png", "*.gif"], NOTHING)
    assert str(caught.value).startswith(r"no images found: empty, none\n.png, *.gif; expected ")
    assert "named .bmp, .gif, .jfif, .jpe, .jpeg, .jpg, .png, .webp, or -" in str(caught.value)


def test_training_and_predicting_take_the_same_files_of_a_folder():
    assert batch_predict.IMAGE_SUFFIXES == IMAGE_SUFFIXES


@given(st.text())
def test_a_printable_text_is_one_line_that_a_terminal_shows_as_it_is(text):
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


# --- how they are kept

ANSWERED = Prediction("a.png", "bag", 0.75, (("bag", 0.75), ("coat", 0.25)), notes=("animated",))
BROKEN = Prediction("b.png", error="empty file")
WEIRD = [
    "a b.png",
    "caf\udce9.png",
    "new\nline.png",
    "carriage\rreturn.png",
    "[bold]red[/bold].png",
    'quo"te,comma.png',
    "=1+1.png",
    "\x1b[31mred.png",
    "日本.png",
]


def rows(writer: object, predictions: list[Prediction]) -> None:
    with writer as keep:
        for prediction in predictions:
            keep(prediction)


paths = st.text(st.characters(exclude_categories=[]))  # with lone surrogates: bytes of a name
predictions = st.builds(
    lambda path, ranked, error: (
        Prediction(path, error=error) if error else Prediction(path, *ranked[0], ranked)
    ),
    path=paths,
    ranked=st.tuples(*[st.tuples(st.sampled_from(CLASS_NAMES), st.floats(0, 1))] * 2),
    error=st.none() | st.text(min_size=1),
)


@given(st.lists(predictions, max_size=4))
def test_a_json_list_gives_back_every_row(given_rows):
    file = io.BytesIO()
    rows(batch_predict.json_list(file), given_rows)
    assert json.loads(file.getvalue()) == [prediction.to_json() for prediction in given_rows]


@given(st.lists(predictions, max_size=4))
def test_a_csv_file_gives_back_every_row(tmp_path_factory, given_rows):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    rows(batch_predict.csv_file(path, top=2), given_rows)
    with path.open(newline="", encoding="utf-8") as file:
        header, *read = csv.reader(file)
    assert header == [
        *("path", "label", "confidence", "unknown", "ood_score", "error"),
        *("label_2", "probability_2"),
    ]
    for row, prediction in zip(read, given_rows, strict=True):
        assert row[0] == utf8(prediction.path)
        if prediction.error:
            assert row[1:] == ["", "", "False", "", utf8(prediction.error)]
        else:
            (label, value), (second, second_value) = prediction.top
            assert row[1:] == [label, str(value), "False", "", "", second, str(second_value)]


def utf8(text: str | None) -> str:
    return (text or "").encode(errors="backslashreplace").decode()


@given(st.lists(predictions, max_size=4))
@settings(deadline=None)  # the first example waits for pyarrow's import
def test_a_parquet_file_gives_back_every_row(tmp_path_factory, given_rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    rows(batch_predict.parquet_file(path), given_rows)
    expected = [
        {**row, "path": utf8(row["path"]), "error": row["error"] and utf8(row["error"])}
        for row in (prediction.to_json() for prediction in given_rows)
    ]
    assert parquet.read_table(path).to_pylist() == expected


def test_many_rows_of_parquet_come_in_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(batch_predict, "ROWS_A_GROUP", 3)
    rows(batch_predict.parquet_file(tmp_path / "rows.parquet"), [ANSWERED, BROKEN] * 4)
    read = parquet.ParquetFile(tmp_path / "rows.parquet")
    assert [read.metadata.row_group(i).num_rows for i in range(3)] == [3, 3, 2]
    assert read.read()["path"].to_pylist() == ["a.png", "b.png"] * 4


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_file_of_rows_appears_whole_or_not_at_all(tmp_path, name):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"rows.{name}"
    path.write_bytes(b"of before")
    writer = (
        batch_predict.csv_file(path, top=2) if name == "csv" else batch_predict.parquet_file(path)
    )
    with pytest.raises(KeyboardInterrupt), writer as keep:
        keep(ANSWERED)
        raise KeyboardInterrupt
    assert path.read_bytes() == b"of before"
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_without_pyarrow_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    words = "writing Parquet needs pyarrow; type: pip install pyarrow"
    with (
        pytest.raises(MissingExtra, match=words),
        batch_predict.parquet_file(tmp_path / "rows.parquet"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_line_for_people_says_what_a_image_is_and_what_else_it_could_be():
    file = io.BytesIO()
    unsure = Prediction("c.png", "coat", 0.985, (("coat", 0.985), ("bag", 0.009)))
    rows(batch_predict.lines_for_people(file, CLASS_NAMES), [ANSWERED, BROKEN, unsure])
    assert file.getvalue().decode().splitlines() == [
        "confidence  label       path",
        "     75.0%  bag         a.png  (or coat 25%; animated)",
        "         –  –           b.png  error: empty file",
        "     98.5%  coat        c.png",
    ]


def test_an_unknown_image_and_a_set_of_classes_are_shown_as_such():
    file = io.BytesIO()
    two = (("coat", 0.5), ("bag", 0.4))
    unknown = Prediction("a.png", "coat", 0.5, two, unknown=True, reason="its confidence …")
    either = Prediction("b.png", "coat", 0.5, two, label_set=("coat", "bag"))
    rows(batch_predict.lines_for_people(file, CLASS_NAMES), [unknown, either])
    assert file.getvalue().decode().splitlines()[1:] == [
        "     50.0%  unknown     a.png  (perhaps coat; or bag 40%)",
        "     50.0%  coat        b.png  (one of coat, bag)",
    ]


# --- the command


def test_sets_have_a_column_where_they_were_asked_for(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    known = SelectivePrediction((Level(0.01, 0.999, 0.3),), (SetLevel(0.9, 0.0),))
    (folder.parent / "m.onnx").write_bytes(model_bytes(selective=known))
    write_image(folder / "1.png")
    options = ("--max-error", "1%", "--coverage", "90%")
    result = run("1.png", *options, "--csv", "rows.csv", "--parquet", "rows.parquet", "--json")
    (row,) = json.loads(result.stdout)
    assert row["unknown"] and set(row["set"]) == set(CLASS_NAMES)
    (written,) = csv.DictReader((folder / "rows.csv").read_text("utf-8").splitlines())
    assert written["set"] == " | ".join(row["set"]) and written["unknown"] == "True"
    assert parquet.read_table(folder / "rows.parquet")["set"].to_pylist() == [row["set"]]


@pytest.mark.parametrize("share", ["0.01", "0%", "one", "101%", "nan%"])
def test_a_share_that_is_none_is_refused(folder, share):
    write_image(folder / "1.png")
    result = run("1.png", "--max-error", share)
    assert isinstance(result.exception, RecipeError)
    assert str(result.exception) == f"--max-error {share}: expected a share such as 1%"


# --- the input checks


@pytest.fixture
def table(folder):
    """Return a folder with a photo of a thing on a white table, and a model that knows its kind."""
    known = model_bytes(ImageRule(28, 28, 1), input_checks=reference())
    (folder.parent / "m.onnx").write_bytes(known)
    Image.fromarray(photo(make_images(1, seed=9)[0])).save(folder / "photo.jpg", quality=85)
    return folder


def test_what_is_unlike_training_images_is_said_and_left(table):
    (row,) = json.loads(run("photo.jpg", "--json").stdout)
    (plain,) = Classifier.open("../m.onnx").predict("photo.jpg")
    assert row["top"] == plain.to_json()["top"]
    found = {each["kind"]: each["fixed"] for each in row["findings"]}
    assert found == {"inverted": False, "margins": False, "upscaled": False}
    line = run("photo.jpg").stdout.splitlines()[1]
    assert "looks like a negative of the training images" in line and "fixed" not in line


def test_a_photo_is_fixed_and_the_answer_says_so(table):
    (row,) = json.loads(run("photo.jpg", "--fix", "all", "--json").stdout)
    read = Classifier.open("../m.onnx").read("photo.jpg", "all")
    assert np.abs(read.image.astype(int) - make_images(1, seed=9)[0]).mean() < 25
    answers = linear_answers(read.image[None], ImageRule(28, 28, 1))[0]
    assert row["label"] == CLASS_NAMES[answers.argmax()]
    assert row["confidence"] == pytest.approx(answers.max(), abs=1e-5)
    assert all(each["fixed"] for each in row["findings"])
    line = run("photo.jpg", "--fix", "inverted").stdout.splitlines()[1]
    assert "fixed: looks like a negative" in line and "fixed: the thing in it" not in line


def test_what_was_fixed_stands_in_files(table):
    parquet = pytest.importorskip("pyarrow.parquet")
    run("photo.jpg", "--fix", "margins", "--csv", "rows.csv", "--parquet", "rows.parquet")
    (written,) = csv.DictReader((table / "rows.csv").read_text("utf-8").splitlines())
    assert written["findings"] == "inverted | margins: fixed | upscaled"
    (kept,) = parquet.read_table(table / "rows.parquet")["findings"].to_pylist()
    assert [(each["kind"], each["fixed"]) for each in kept] == [
        ("inverted", False),
        ("margins", True),
        ("upscaled", False),
    ]


def test_a_wrong_kind_is_refused_before_anything_is_written(table):
    result = run("photo.jpg", "--fix", "margin")
    assert isinstance(result.exception, RecipeError) and result.stdout == ""
    assert "there is no 'margin', did you mean margins?" in str(result.exception)


def test_a_model_that_cannot_judge_says_so_once(folder):
    write_image(folder / "1.png")
    result = run("1.png", "1.png", "--fix", "all")
    assert result.exit_code == 0
    assert result.stderr.count("does not know what its training images were like") == 1
    assert "training images" not in result.stdout
    assert run("1.png").stderr == ""


def test_the_command_answers_a_line_a_image(folder):
    pixels = np.stack([write_image(folder / f"{number}.png", number) for number in range(5)])
    best = linear_answers(pixels, RULE).argmax(axis=1)
    result = run(".")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "confidence  label       path"
    for number, line in enumerate(result.stdout.splitlines()[1:]):
        assert f"%  {CLASS_NAMES[best[number]]}" in line
        assert f"  {number}.png" in line


def test_a_broken_image_is_a_row_and_not_an_abort(folder):
    write_image(folder / "1.png")
    (folder / "2.png").write_bytes(b"")
    write_image(folder / "3.png")
    result = run(".", "none.png", "--json", "--top", "2")
    assert result.exit_code == 0
    read = json.loads(result.stdout)
    assert [row["error"] for row in read] == [None, "empty file", None, "no such file"]
    assert [len(row["top"]) for row in read] == [2, 0, 2, 0]
    assert list(read[0]) == [
        *("path", "label", "confidence", "top", "unknown", "ood_score", "error", "findings")
    ]


def test_no_answer_at_all_ends_with_4_and_still_gives_the_rows(folder):
    (folder / "1.png").write_bytes(b"not an image")
    result = run(".", "--json")
    assert result.exit_code == 4
    assert [row["path"] for row in json.loads(result.stdout)] == ["1.png"]


def test_no_image_found_is_a_data_error(folder):
    result = run("none.png")
    assert isinstance(result.exception, DataError)
    assert result.stdout == ""


def test_a_wrong_model_is_a_model_error_before_anything_is_written(folder):
    write_image(folder / "1.png")
    (folder.parent / "m.onnx").write_bytes(model_bytes()[:-9])
    result = run("1.png", "--json", "--csv", "rows.csv")
    assert isinstance(result.exception, ModelError)
    assert result.stdout == ""
    assert not (folder / "rows.csv").exists()


def test_rows_go_to_files_and_the_screen_says_where(folder):
    pytest.importorskip("pyarrow")
    write_image(folder / "1.png")
    (folder / "2.png").write_bytes(b"")
    result = run(".", "--csv", "out/rows.csv", "--parquet", "rows.parquet")
    assert result.exit_code == 0
    assert result.stdout == ("1 of 2 images answered, all rows in out/rows.csv and rows.parquet\n")
    assert len((folder / "out/rows.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert (folder / "rows.parquet").read_bytes()[-4:] == b"PAR1"


def test_json_and_files_go_together(folder):
    write_image(folder / "1.png")
    result = run("1.png", "--csv", "rows.csv", "--json")
    assert len(json.loads(result.stdout)) == 1
    assert (folder / "rows.csv").exists()


def test_the_command_and_python_give_the_same_answers(folder):
    for number in range(600):  # more than two batches
        write_image(folder / f"{number:03}.png", number % 7)
    read = json.loads(run(".", "--json").stdout)
    expected = Classifier.open("../m.onnx").predict([row["path"] for row in read], fix="")
    assert [row["path"] for row in read] == [f"{number:03}.png" for number in range(600)]
    for row, prediction in zip(read, expected, strict=True):
        assert row == prediction.to_json()


def test_weird_names_are_answered_and_shown_escaped(folder):
    for name in WEIRD:
        write_image(folder / name)
    result = run(".")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + len(WEIRD)
    assert all(printable(line) == line for line in lines)
    for shown in (r"new\nline.png", "[bold]red[/bold].png", r"\x1b[31mred.png", r"caf\udce9.png"):
        assert any(line.split("  (")[0].endswith(f"  {shown}") for line in lines)
    read = json.loads(run(".", "--json").stdout)
    assert sorted(row["path"] for row in read) == sorted(WEIRD)
    assert all(row["error"] is None for row in read)


# --- the command as a program


def program(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's command in which $predict stands for `tinylens predict ../m.onnx`."""
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.run(
        ["bash", "-c", f"{command}"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": source,
            "predict": f"{sys.executable} -W error -m tinylens predict ../m.onnx",
            **variables,
        },
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("flags", ["", "--json"])
def test_a_reader_that_leaves_ends_the_command_well(folder, flags):
    write_image(folder / "1.png")
    (folder / "list").write_text("1.png\n" * 6000)  # more rows than a pipe holds
    done = program(folder, f"$predict - {flags} < list | head -1; exit $PIPESTATUS")
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    assert done.returncode == 0


LOCALES = [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}]


@pytest.mark.parametrize("variables", LOCALES)
def test_names_come_through_in_any_locale(folder, variables):
    write_image(folder / "日本.png")
    write_image(folder / os.fsdecode(b"caf\xe9.png"))
    done = program(folder, "$predict . --json", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [row["path"] for row in json.loads(done.stdout)] == ["caf\udce9.png", "日本.png"]
    done = program(folder, "$predict $(printf 'caf\\xe9.png')", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"caf\udce9.png" in done.stdout


def test_an_error_is_one_sentence_and_its_code(folder):
    done = program(folder, "$predict none.png")
    assert done.returncode == 4
    assert done.stdout == b""
    assert done.stderr.startswith(b"error: no images found: none.png; expected ")
    (folder.parent / "m.onnx").write_bytes(b"PK")
    done = program(folder, "$predict none.png --json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["type"] == "ModelError"


# typer itself brings pydantic
HEAVY = {"keras", "tensorflow", "torch", "jax", "sklearn", "onnx", "pyarrow", "matplotlib", "rich"}
WATCHED = f"""
import sys
sys.argv = ["tinylens", "predict", "../m.onnx", "1.png"]
from tinylens.cli import main
try:
    main()
except SystemExit as end:
    print(end.code, {HEAVY} & set(sys.modules))
"""


def test_the_command_loads_no_large_library(folder):
    write_image(folder / "1.png")
    done = program(folder, f'{sys.executable} -W error -c "$watched"', watched=WATCHED)
    assert done.stderr == b""
    assert done.stdout.splitlines()[-1] == b"0 set()"
