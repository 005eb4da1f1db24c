from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from builders_input_checks import reference
from shipped import RULE, card, linear_graph, model_bytes
from tinylens.data.images import ImageRule
from tinylens.errors import DataError, ModelError
from tinylens.inference.model_file import ModelCard, seal, unseal

WHOLE = model_bytes()


def refused(content: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        unseal(content, "m.onnx")
    return str(caught.value)


def edited(**changes: object) -> bytes:
    """Return a sealed file whose card has other JSON values."""

    class Edited(ModelCard):
        def to_json(self) -> dict[str, object]:
            return {**super().to_json(), **changes}

    plain = card()
    fields = {name: getattr(plain, name) for name in ModelCard.__dataclass_fields__}
    return seal(Edited(**fields), linear_graph(RULE).SerializeToString())


def test_the_card_comes_back_as_it_was_written():
    read, written = unseal(WHOLE, "m.onnx"), card()
    assert read.golden is not None and written.golden is not None
    assert read.golden.images.dtype == np.uint8
    assert read.golden.probabilities.dtype == np.float32
    np.testing.assert_array_equal(read.golden.images, written.golden.images)
    np.testing.assert_array_equal(read.golden.probabilities, written.golden.probabilities)
    assert read.to_json() == written.to_json()


names = st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True).map(tuple)
rules = st.builds(
    ImageRule,
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    channels=st.sampled_from([1, 3]),
    background=st.tuples(*[st.integers(0, 255)] * 3),
    aspect=st.sampled_from(["stretch", "pad", "crop"]),
)


@given(names=names, rule=rules, text=st.text(), temperature=st.floats(0.01, 100))
def test_any_card_survives_a_round_trip(names, rule, text, temperature):
    written = card(class_names=names, rule=rule, golden=None, dataset=text, temperature=temperature)
    assert unseal(seal(written, b""), "m.onnx") == written


def test_what_training_images_are_like_survives():
    written = card(golden=None, input_checks=reference())
    assert unseal(seal(written, b""), "m.onnx").input_checks == reference()


def test_an_older_schema_is_refused_with_what_to_do():
    """Its keys have other names, so that it would answer where it should not."""
    tree = card(golden=None).to_json() | {"schema": 1, "tinylens": "0.0.9"}
    with pytest.raises(
        ModelError, match=r"schema 1, expected 2: tinylens 0\.0\.9 .* export it again"
    ):
        ModelCard.from_json(tree)


def test_a_reference_of_a_newer_version_checks_nothing():
    tree = card(golden=None).to_json()
    assert ModelCard.from_json({**tree, "input_checks": {"version": 99}}).input_checks is None
    with pytest.raises(ModelError, match="incomplete"):
        ModelCard.from_json({**tree, "input_checks": {"version": 1}})


def test_a_class_name_that_is_not_utf8_survives():
    written = card(class_names=("caf\udce9", "bag"), golden=None)
    assert unseal(seal(written, b""), "m.onnx").class_names == ("caf\udce9", "bag")


def test_the_whole_file_is_an_ordinary_onnx_file_to_others(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == ["tinylens", "tinylens.sha256"]
    session = onnxruntime.InferenceSession(WHOLE, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["tinylens"])["class_names"] == list(card().class_names)
    assert len(metadata["tinylens.sha256"]) == 64


@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(place, bit):
    changed = bytearray(WHOLE)
    changed[place] ^= 1 << bit
    assert "m.onnx" in refused(bytes(changed))


@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_at_any_place_is_noticed(length):
    assert "m.onnx" in refused(WHOLE[:length])


@given(added=st.binary(min_size=1, max_size=200))
def test_anything_added_at_the_end_is_noticed(added):
    assert "m.onnx" in refused(WHOLE + added)


def test_a_changed_file_is_called_changed():
    changed = WHOLE.replace(b"ankle boot", b"ankle bone")
    assert refused(changed).startswith(
        "m.onnx was changed after it was written: its content has SHA-256 "
    )


def test_a_cut_file_is_called_cut():
    assert refused(WHOLE[:-1]).startswith("m.onnx is cut short or was added to: its ")


def test_a_file_saved_again_by_another_program_is_called_changed(tmp_path):
    onnx.save(onnx.load_from_string(WHOLE), tmp_path / "again.onnx")
    assert "was changed" in refused((tmp_path / "again.onnx").read_bytes())


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n" + bytes(90), b"PK\x03\x04" * 50]
)
def test_what_is_no_onnx_file_is_called_so(content):
    assert refused(content).startswith(f"m.onnx is not a model file: {len(content)} bytes")


def test_a_foreign_onnx_file_is_called_so():
    assert refused(linear_graph(RULE).SerializeToString()).startswith(
        "m.onnx is an ONNX file, but not one that tinylens wrote"
    )


def test_a_newer_schema_names_the_version_to_install():
    message = refused(edited(schema=3, tinylens="3.1.4"))
    assert "needs tinylens ≥ 3.1.4" in message
    assert "pip install -U 'tinylens>=3.1.4'" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ["cat", "dog", "cat", "owl"]}, "class names given twice: cat"),
        ({"class_names": ["cat"]}, "expected two or more"),
        ({"class_names": ["cat", ""]}, "none empty"),
        ({"class_names": None}, "incomplete"),
        ({"image": {"height": 8}}, "image rule"),
        ({"image": None}, "image rule"),
        ({"schema": "one"}, "incomplete"),
        ({"calibration": {}}, "incomplete: KeyError('temperature')"),
        ({"golden": {"images": {"shape": [9], "data": "AA=="}}}, "incomplete"),
        ({"golden": {"images": {"shape": [1], "data": "?"}}}, "incomplete"),
    ],
)
def test_a_card_that_says_nonsense_is_refused(changes, words):
    assert words in refused(edited(**changes))


def test_class_names_given_twice_are_refused_before_anything_is_written():
    with pytest.raises(DataError, match="class names given twice: bag; rename one"):
        card(class_names=("bag", "coat", "bag"))


def external_tensor() -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")
    return tensor


def in_an_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external_tensor())


def in_a_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external_tensor()))


def in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [external_tensor()])
    model.graph.node.append(
        helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    )


def in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(external_tensor())


def in_a_function(model: onnx.ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external_tensor())
    model.functions.append(helper.make_function("own", "f", [], ["c"], [constant], []))


@pytest.mark.parametrize(
    "hide", [in_an_initializer, in_a_constant, in_a_branch, in_a_sparse_tensor, in_a_function]
)
def test_weights_in_other_files_are_refused_wherever_they_hide(hide):
    model = linear_graph(RULE)
    hide(model)
    message = refused(seal(card(), model.SerializeToString()))
    assert message == ("m.onnx: keeps weights in other files; expected all weights in this one")


def test_a_second_graph_cannot_hide_weights_in_other_files():
    second = linear_graph(RULE)
    in_an_initializer(second)
    body = linear_graph(RULE).SerializeToString() + second.SerializeToString()
    assert "keeps weights in other files" in refused(seal(card(), body))


def test_graphs_nested_without_end_are_refused():
    graph = b""
    for _ in range(30):  # graph.node[0].attribute[0].g
        graph = field(1, field(5, field(6, graph)))
    assert "graphs in graphs without end" in refused(seal(card(), field(7, graph)))


def field(number: int, content: bytes) -> bytes:
    """Return a field of Protocol Buffers; its length is in as many digits as it needs."""
    digits, length = [], len(content)
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + content


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_model_error(content):
    assert "m.onnx" in refused(content)


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_as_the_body_end_in_a_card_or_a_model_error(body):
    try:
        unseal(seal(card(golden=None), body), "m.onnx")
    except ModelError as error:
        assert "m.onnx" in str(error)
