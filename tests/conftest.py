"""Settings that must stand before a backend is imported."""

from __future__ import annotations

import os

import hypothesis

# Tiny networks gain nothing from threads, and lose a hundredfold where other processes keep the
# cores busy: every small operation waits for its slowest thread.
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The first call of an operation compiles it, which takes longer than Hypothesis's deadline.
hypothesis.settings.register_profile("tinylens", deadline=None)
hypothesis.settings.load_profile("tinylens")
