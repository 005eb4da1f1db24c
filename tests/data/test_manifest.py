from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders_data import plain
from tinylens.data.encoded import Options
from tinylens.data.readers.manifest import SUFFIXES, parse_manifest, read, read_parts, rows_of
from tinylens.data.splits import Columns
from tinylens.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def options(tmp_path):
    return Options(data_dir=tmp_path / "cache")


@pytest.fixture
def pets(tmp_path):
    """A folder with four images, of which the even ones are red."""
    (tmp_path / "pets" / "p").mkdir(parents=True)
    for number in range(4):
        content = plain((250 + number, 0, 0) if number % 2 == 0 else (0, 0, 250 + number))
        (tmp_path / "pets" / "p" / f"{number}.png").write_bytes(content)
    return tmp_path / "pets"


def written(root, text, name="list.csv"):
    content = text if isinstance(text, bytes) else text.encode()
    (root / name).write_bytes(content)
    return root / name


def label_of(data, name):
    (row,) = [row for row, path in enumerate(data.paths) if path.endswith(name)]
    return data.class_names[data.labels[row]]


ROWS = "p/0.png,red\np/1.png,blue\np/2.png,red\np/3.png,blue\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\n" + ROWS),
        ("list.csv", "\ufeffpath,label\r\n" + ROWS.replace("\n", "\r\n")),
        ("list.csv", "label;filename\n" + "".join(
            f"{line.split(',')[1]};{line.split(',')[0]}\n" for line in ROWS.splitlines())),
        ("list.csv", 'path, label, note\n' + "".join(
            f'{line},"a, b"\n' for line in ROWS.splitlines())),
        ("list.tsv", "File_Name\tClass\n" + ROWS.replace(",", "\t")),
        ("list.csv", "image,category\n\n" + ROWS.replace("p/", ".\\p\\")),
        ("list.jsonl", "".join(
            json.dumps({"file_name": line.split(",")[0], "label": line.split(",")[1]}) + "\n"
            for line in ROWS.splitlines())),
    ],
    ids=["plain", "bom-crlf", "semicolons", "quotes", "tabs", "backslashes", "json"],
)  # fmt: skip
def test_usual_columns_are_known_in_every_kind_of_list(pets, options, name, text):
    data = read(written(pets, text, name), options)
    assert data.class_names == ("blue", "red")
    assert [label_of(data, f"{n}.png") for n in range(4)] == ["red", "blue"] * 2


def test_labels_that_are_numbers_are_names_in_the_order_of_their_values(pets, options):
    text = "path,label\np/0.png,10\np/1.png,9\np/2.png,10\np/3.png,2\n"
    assert read(written(pets, text), options).class_names == ("2", "9", "10")


def test_a_column_says_the_parts(pets, options):
    text = "path,label,split\np/0.png,a,Train\np/1.png,b,training\np/2.png,a,dev\np/3.png,b,test\n"
    parts = read_parts(written(pets, text), options)
    assert [(name, len(part)) for name, part in parts.items()] == [
        ("train", 2), ("val", 1), ("test", 1)]  # fmt: skip


def test_other_columns_are_read_when_they_are_named(pets, options):
    path = written(pets, "where,what\n" + ROWS)
    with pytest.raises(DataError, match=r"found the columns where, what; .*--image-column"):
        read(path, options)
    named = replace(options, columns=Columns("where", "what"))
    assert read(path, named).class_names == ("blue", "red")
    with pytest.raises(DataError, match=r"expected wat, did you mean what\?.*--label-column"):
        read(path, replace(options, columns=Columns("where", "wat")))


def test_the_cache_tells_columns_apart(pets, options):
    path = written(pets, "path,label,kind\np/0.png,a,x\np/1.png,b,x\np/2.png,a,y\np/3.png,b,y\n")
    assert read(path, options).class_names == ("a", "b")
    kinds = replace(options, columns=Columns("", "kind"))
    assert read(path, kinds).class_names == ("x", "y")


def test_a_file_of_class_names_beside_it_gives_their_order(pets, options):
    written(pets, "red\nblue\n", "classes.txt")
    assert read(written(pets, "path,label\n" + ROWS), options).class_names == (
        "red", "blue")  # fmt: skip
    written(pets, "red\ngreen\n", "classes.txt")
    with pytest.raises(DataError, match="has classes that the file of class names lacks: blue"):
        read(pets / "list.csv", options)


def test_a_file_of_class_names_names_numbers(pets, options):
    written(pets, "red\nblue\n", "classnames.txt")
    text = "path,label\np/0.png,0\np/1.png,1\np/2.png,0\np/3.png,1\n"
    data = read(written(pets, text), options)
    assert data.class_names == ("red", "blue") and label_of(data, "1.png") == "blue"
    with pytest.raises(DataError, match="the file of class names lacks: 0, 1, 2"):
        read(written(pets, text + "p/4.png,2\n"), options)


def test_rows_without_a_label_and_files_that_are_missing_are_set_aside(pets, options):
    text = "path,label\n" + ROWS + "p/9.png,red\np/8.png,\n,red\n"
    data = read(written(pets, text), options)
    assert len(data) == 4
    reasons = sorted(each.reason for each in data.skipped)
    assert reasons == ["cannot be read: No such file or directory", "no label", "no path"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,label\n", r"list\.csv: 1 lines; expected one of names"),
        ("", "0 lines"),
        ("path,label,label\na,b,c\n", "a column twice"),
        ("path,label\np/0.png,a,b\n", r"line 2: 3 cells, expected 2 as in the first line"),
        ('path,label\n"p/0.png,a\n', "unexpected end of data; expected a CSV"),
        (b"path,label\np/0.png,caf\xe9\n", "line 2: is not UTF-8 text; .* save it so"),
        ("path,label\n".encode("utf-16"), "is not UTF-8 text|zero bytes"),
        ("path,label\np/0.png,a\np/0.png,b\n", r"p/0\.png is in rows 1 and 2; expected each"),
        ("path,label,split\np/0.png,a,fold1\n", "names no part .row 1: fold1"),
        ("path,label,split\np/0.png,a,train\np/1.png,b,\n", "row 2: nothing"),
        ("path,label,split\np/0.png,a,train\np/1.png,b,test\n", "that train lacks: b; exp"),
        ("path,label\np/0.png,café\np/1.png,cafe\u0301\n", "differ in Unicode form alone"),
        ("path,label\n../secret.png,a\n", r"'\.\./secret\.png' leads out of the folder"),
        ("path,label\n/etc/passwd,a\n", "'/etc/passwd' leads out of the folder"),
        ("path,label\nC:\\x.png,a\n", "leads out of the folder"),
        ("path,label\np/../../x.png,a\n", "row 1: .* leads out .* put the images beneath it"),
    ],
)
def test_lists_that_cannot_be_used_are_told_with_the_row(pets, options, text, reason):
    with pytest.raises(DataError, match=reason) as raised:
        read(written(pets, text), options)
    assert "list.csv" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1: .*; expected a JSON object a line"),
        ("[1]", "no object"),
        ("\n\n", "no lines"),
        ("[" * 99_999, "line 1"),
        ('{"path": "p/0.png"}', "found the columns path; expected one of label"),
    ],
)
def test_json_lines_that_cannot_be_used_are_named(pets, options, text, reason):
    with pytest.raises(DataError, match=reason):
        read(written(pets, text, "list.jsonl"), options)


def test_links_that_lead_out_of_the_folder_are_refused(pets, options, tmp_path):
    (tmp_path / "secret.png").write_bytes(plain())
    (pets / "p" / "5.png").symlink_to(tmp_path / "secret.png")
    (pets / "q").symlink_to(tmp_path)
    (pets / "inside").symlink_to(pets / "p")
    for name in ("p/5.png", "q/secret.png"):
        path = written(pets, f"path,label\n{ROWS}{name},red\n")
        with pytest.raises(DataError, match=f"{name} is a link that leads out of the folder"):
            read(path, options)
    path = written(pets, "path,label\n" + ROWS.replace("p/", "inside/"))
    assert len(read(path, options)) == 4


TEXT = st.text(st.sampled_from('path,label;\t\n\r"{}[]:1\u00e9\\'), max_size=60).map(str.encode)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60) | TEXT, st.sampled_from(SUFFIXES))
def test_whatever_stands_in_a_list_is_no_traceback(content, suffix):
    try:
        found = parse_manifest(f"list{suffix}", content)
        rows = rows_of(found, Columns(*list(found.columns)[:2]))
    except DataError as error:
        assert f"list{suffix}" in str(error)
    else:
        assert len(rows.names) == len(rows.labels)
