"""What is taken for what: the confusion matrix of the report, whose cells open pictures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinylens.reporting.contents import Confusion, Contents, Mistake

MOST_NUMBERED = 25  # classes of which a confusion matrix has room for the counts
SHOWN_CONFUSIONS = 12


@dataclass(frozen=True)
class Kind:
    """A confusion, and the id of what opens to show its pictures, or "" where there are none."""

    confusion: Confusion
    target: str


@dataclass(frozen=True, eq=False)
class Opened:
    """What a cell opens: pictures of one confusion, the most confident first."""

    target: str
    confusion: Confusion
    mistakes: tuple[Mistake, ...]


def matrix(contents: Contents) -> list[dict[str, Any]]:
    """Return a row a class: its cells' counts, shares, what they open, and strength of colour.

    The strength is from 0 to 1. Mistakes are coloured on a scale of their own, by the root of their
    share of the largest one, since beside 95 % right a confusion of 3 % would not be seen.
    """
    counts = np.array(contents.test.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mistakes = shares * (1 - np.eye(len(counts)))
    strengths = np.sqrt(mistakes / max(mistakes.max(), 1e-12)) + np.diag(np.diag(shares))
    shown = {mistake.label: set[str]() for mistake in contents.confused}
    for mistake in contents.confused:
        shown[mistake.label].add(mistake.answer)
    return [
        {
            "name": name,
            "label": label,
            "cells": [
                {
                    "answer": answer,
                    "count": int(count),
                    "share": share,
                    "strength": strength,
                    "target": _target(label, answer) if other in shown.get(name, ()) else "",
                }
                for answer, (other, count, share, strength) in enumerate(
                    zip(
                        contents.class_names,
                        counts[label],
                        shares[label],
                        strengths[label].round(2),
                        strict=True,
                    )
                )
            ],
        }
        for label, name in enumerate(contents.class_names)
    ]


def frequent(contents: Contents) -> list[Kind]:
    """Return the most frequent confusions."""
    targets = {(each.confusion.label, each.confusion.answer): each for each in opened(contents)}
    kinds = []
    for confusion in contents.confusions[:SHOWN_CONFUSIONS]:
        shown = targets.get((confusion.label, confusion.answer))
        kinds.append(Kind(confusion, shown.target if shown else ""))
    return kinds


def opened(contents: Contents) -> list[Opened]:
    """Return the confusions of which there are pictures, the most frequent first."""
    number = {name: label for label, name in enumerate(contents.class_names)}
    mistakes = defaultdict[tuple[str, str], list[Mistake]](list)
    for mistake in contents.confused:
        mistakes[mistake.label, mistake.answer].append(mistake)
    return [
        Opened(
            _target(number[confusion.label], number[confusion.answer]),
            confusion,
            tuple(sorted(shown, key=lambda mistake: -mistake.confidence)),
        )
        for confusion in contents.confusions
        if (shown := mistakes.get((confusion.label, confusion.answer)))
    ]


def _target(label: int, answer: int) -> str:
    return f"taken-{label}-{answer}"
