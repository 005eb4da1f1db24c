"""How a battery of checks is run, and what a check says when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Case = TypeVar("Case")


class CheckFailed(AssertionError):
    """Something does not conform; the message names it, the check and what was found."""


def run_checks(subject: str, case: Case, checks: Iterable[Callable[[Case], None]]) -> None:
    """Run every check on `case`, and raise once with all that failed.

    Raises:
        CheckFailed: some did; each is named with its reason.
    """
    failures: list[tuple[str, Exception]] = []
    for check in checks:
        try:
            check(case)
        except Exception as error:  # a check may trip over anything in code it has never seen
            failures.append((getattr(check, "__name__", repr(check)), error))
    if failures:
        reasons = "".join(f"\n  {name}: {_told(error)}" for name, error in failures)
        raise CheckFailed(f"{subject} does not conform:{reasons}") from failures[0][1]


def require(met: bool, message: str) -> None:
    """Raise a CheckFailed with `message` where a condition is not met."""
    if not met:
        raise CheckFailed(message)


def _told(error: Exception) -> str:
    if isinstance(error, CheckFailed):
        return str(error)
    return f"raised {type(error).__name__}: {error}"
