from __future__ import annotations

from dataclasses import replace

import pytest

from tinylens.errors import MissingExtra, RecipeError
from tinylens.exporting.export import EXPORTERS
from tinylens.exporting.formats import FORMATS, check_installed, requested
from tinylens.exporting.runtimes import OPENERS


def test_formats_come_once_and_in_the_tables_order():
    found = requested(["keras", "onnx-int8", "keras"])
    assert [each.name for each in found] == ["onnx-int8", "keras"]
    assert requested(["all"]) == list(FORMATS.values())


def test_an_unknown_format_is_refused_with_the_near_one():
    with pytest.raises(RecipeError, match=r"--format onx: no such format, did you mean onnx\?"):
        requested(["onnx", "onx"])


def test_every_format_has_an_exporter_an_opener_and_a_file_of_its_own():
    assert set(EXPORTERS) == set(FORMATS)
    assert {name.removesuffix("-int8") for name in FORMATS} == set(OPENERS)
    assert len({each.file for each in FORMATS.values()}) == len(FORMATS)


def test_all_that_is_missing_is_said_at_once_with_what_to_type():
    absent = [
        replace(FORMATS["openvino"], runs_with=("no_such_runtime",)),
        replace(FORMATS["litert"], writes_with=("no_such_writer",), runs_with=()),
    ]
    with pytest.raises(MissingExtra) as caught:
        check_installed(absent, writing=True)
    assert str(caught.value) == (
        "openvino needs no_such_runtime; litert needs no_such_writer; "
        "type: pip install 'tinylens[openvino,train,litert]'"
    )
    check_installed(absent[1:], writing=False)
