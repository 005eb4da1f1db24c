"""A watcher that says nothing: where nobody looks on, and the base of those that say something."""

from __future__ import annotations

from typing import Any


class Silent:
    """A watcher that says nothing."""

    def phase(self, name: str) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def loading(self, done: int, total: int) -> None:
        """Say nothing."""

    def step(self, progress: Any) -> None:
        """Say nothing."""

    def epoch(self, row: dict[str, float]) -> None:
        """Say nothing."""
