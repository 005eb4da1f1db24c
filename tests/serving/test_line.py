from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tinylens.serving.line import AT_ONCE, Line


@dataclass
class One:
    """Somebody who notes what became of him."""

    name: int
    said: list[tuple[str, int]] = field(default_factory=list)

    def proceed(self) -> None:
        self.said.append(("in", self.name))

    def turn_away(self) -> None:
        self.said.append(("away", self.name))


def wait(most: int, patience: float, number: int, then) -> list[tuple[str, int]]:
    """Let some wait, do something, and return what became of them."""
    said: list[tuple[str, int]] = []

    async def stand() -> None:
        line = Line(most, patience)
        for name in range(number):
            line.join(One(name, said))
        await then(line)

    asyncio.run(stand())
    return said


def test_the_first_comes_first_while_nobody_is_refused():
    async def call_all(line: Line) -> None:
        while line.call():
            pass

    assert wait(8, 9.0, 3, call_all) == [("in", 0), ("in", 1), ("in", 2)]


def test_who_waits_too_long_is_refused_and_then_the_last_comes_first():
    async def be_late(line: Line) -> None:
        await asyncio.sleep(0.05)
        assert len(line) == 0
        said: list[tuple[str, int]] = []
        for name in range(3):
            line.join(One(name, said))
        assert [line.call(), line.call(), line.call(), line.call()] == [True] * 3 + [False]
        assert said == [("in", 2), ("in", 1), ("in", 0)]

    assert wait(8, 0.02, 2, be_late) == [("away", 0), ("away", 1)]


def test_those_beyond_the_length_are_refused_in_a_turn_the_longest_waiting_first():
    async def one_turn(line: Line) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert wait(4, 9.0, 7, one_turn) == [("away", 0), ("away", 1), ("away", 2)]


def test_no_turn_refuses_more_than_a_few():
    async def one_turn(line: Line) -> None:
        line_was = len(line)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < line_was - len(line) <= 2 * AT_ONCE
        while len(line) > 4:
            await asyncio.sleep(0)

    said = wait(4, 9.0, 100, one_turn)
    assert said == [("away", name) for name in range(96)]


@pytest.mark.parametrize("number", [1, 40])
def test_all_are_refused_in_the_end(number):
    async def stand(line: Line) -> None:
        await asyncio.sleep(0.1)

    assert wait(64, 0.01, number, stand) == [("away", name) for name in range(number)]
