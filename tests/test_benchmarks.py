"""What the benchmarks share: turns, ratios, and what a result file may tell."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[1] / "benchmarks" / "machine.py"


@pytest.fixture(scope="module")
def machine():
    spec = importlib.util.spec_from_file_location("machine", _FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["machine"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["machine"]


def test_contenders_take_turns_forwards_and_backwards(machine):
    order = []
    contenders = [machine.Contender(name, ()) for name in "ab"]
    rows = machine.take_turns(contenders, 3, lambda each: order.append(each.name) or {})
    assert "".join(order) == "abbaab"
    assert rows == {"a": [{}, {}, {}], "b": [{}, {}, {}]}


def test_ratios_are_taken_round_by_round(machine):
    found = machine.ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0])
    assert (found.median, found.low, found.high, found.pairs) == (3.0, 2.0, 4.0, 3)
    assert str(found) == "3.00× (2.00 to 4.00, 3 pairs)"


def test_a_contender_gives_the_last_line_that_it_printed(machine):
    program = "import os; print('hello'); print('{\"x\": ' + os.environ['FIGURE'] + '}')"
    contender = machine.Contender("one", (sys.executable, "-c", program), {"FIGURE": "7"})
    row = machine.run_contender(contender)
    assert row["x"] == 7 and row["wall_seconds"] > 0


def test_a_contender_that_fails_says_why(machine):
    contender = machine.Contender("one", (sys.executable, "-c", "raise SystemExit('no disk')"))
    with pytest.raises(RuntimeError, match=r"one gave no result \(exit code 1\): no disk"):
        machine.run_contender(contender)


def test_a_look_does_not_take_the_place_of_a_result(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x.py", "--quick"])
    assert machine.write_results("x", {}).name == "x-quick.json"


def test_results_name_no_host_and_no_path(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x.py", "--data", str(tmp_path / "toys")])
    path = machine.write_results("x", {"machine": machine.describe()})
    text = path.read_text()
    assert json.loads(text)["command"] == "python benchmarks/x.py --data toys"
    assert str(tmp_path) not in text and str(machine.ROOT) not in text
    assert f'"{platform.node()}"' not in text
