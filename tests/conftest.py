"""Settings that must stand before a backend is imported."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Tiny networks gain nothing from threads, and lose a hundredfold where other processes keep the
# cores busy: every small operation waits for its slowest thread.
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The first call of an operation compiles it, which takes longer than Hypothesis's deadline.
hypothesis.settings.register_profile("tinylens", deadline=None)
hypothesis.settings.load_profile("tinylens")


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Type a command; returns its exit code, stdout and stderr."""

    def run(*words):
        from tinylens import cli

        monkeypatch.setattr("sys.argv", ["tinylens", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small run, trained once for all tests that only read it."""
    from builders_export import trained_run

    return trained_run(tmp_path_factory.mktemp("trained"))
