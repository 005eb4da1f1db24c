"""What a worker has counted; all of it adds up over workers.

A count is kept under its name and the values of its labels, joined by "|": plain text that goes
through JSON to the supervisor as it is. Everything is counted in the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128)

Counts = dict[str, float]


class Histogram:
    """Counts of values up to each of some bounds, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def into(self, counts: Counts, name: str) -> None:
        """Add the counts, each under its bin's number, and the sum."""
        for place, number in enumerate(self.counts):
            counts[f"{name}|{place}"] = number
        counts[f"{name}|sum"] = self.total


class Counters:
    """What one worker has counted since it began.

    Attributes:
        counts: by name and label values.
        seconds: from a request's last byte to its answer, of /predict.
        batches: images in each call of the network.
        waited: seconds that images lay in the queue.
    """

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.seconds = Histogram(SECONDS)
        self.waited = Histogram(SECONDS)
        self.batches = Histogram(BATCH)

    def add(self, key: str, number: float = 1) -> None:
        """Count something, such as "requests|/predict|200"."""
        self.counts[key] = self.counts.get(key, 0) + number

    def snapshot(self) -> Counts:
        """Return all counts."""
        found = dict(self.counts)
        self.seconds.into(found, "seconds")
        self.waited.into(found, "waited")
        self.batches.into(found, "batches")
        return found


def merge(into: Counts, more: Mapping[str, float]) -> None:
    """Add counts to others."""
    for key, number in more.items():
        into[key] = into.get(key, 0) + number
