"""Which mistakes a run keeps images of."""

from __future__ import annotations

import numpy as np

from tinylens.evaluation import evaluate
from tinylens.evaluation.evaluate import IMAGES_A_CONFUSION, PIXEL_BYTES, confused


def answered(pairs, confidence):
    """Probabilities and labels of images that are answered as the pairs (label, answer) say."""
    labels, answers = np.array(pairs).T
    rest = (1 - confidence)[:, None] / 2
    probabilities = np.where(answers[:, None] == np.arange(3), confidence[:, None], rest)
    return probabilities.astype(np.float32), labels


def test_every_confusion_is_there_and_the_surest_of_it_come_first():
    pairs = [(0, 1)] * 9 + [(2, 0)] + [(1, 1)] * 3
    confidence = np.linspace(0.5, 0.98, len(pairs))
    rows = confused(*answered(pairs, confidence), (28, 28, 1))
    assert [row for row in rows if row < 9] == [8, 7, 6, 5, 4, 3]
    assert 9 in rows and len(rows) == IMAGES_A_CONFUSION + 1


def test_a_budget_is_shared_out_by_how_often_a_confusion_occurs(monkeypatch):
    monkeypatch.setattr(evaluate, "PIXEL_BYTES", 4 * 28 * 28)
    pairs = [(0, 1)] * 6 + [(1, 2)] * 2 + [(2, 0)]
    rows = confused(*answered(pairs, np.full(len(pairs), 0.6)), (28, 28, 1))
    assert rows.tolist() == [0, 1, 2, 6]  # quotients 6, 3, 2 against 2, 1 and 1


def test_large_images_count_as_they_are_shown():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(100), 20_000).astype(np.float32)
    labels = random.integers(0, 100, 20_000)
    assert len(confused(probabilities, labels, (96, 96, 3))) == PIXEL_BYTES // (96 * 96 * 3)
    assert len(confused(probabilities, labels, (500, 500, 3))) == PIXEL_BYTES // (128 * 128 * 3)


def test_a_network_without_mistakes_has_none():
    assert len(confused(np.eye(3, dtype=np.float32), np.arange(3), (8, 8, 3))) == 0
