"""What a figure was measured with: versions and hardware, for the record of a run."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from typing import Any

from tinylens.backend import processor_count, processor_flags, processor_name

RECORDED = (
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "onnxruntime",
    "pillow",
    "scikit-learn",
)


def now() -> str:
    """Return the time in UTC, such as "2026-05-04T03:02:01Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def tinylens_version() -> str:
    """Return the installed version of tinylens."""
    return metadata.version("tinylens")


def versions() -> dict[str, str]:
    """Return the versions that decide a run's figures, by package, of those installed."""
    found = {"tinylens": tinylens_version(), "python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return processor, usable cores, bfloat16 support, memory in bytes and system."""
    return {
        "processor": processor_name(),
        "cores": processor_count(),
        "bfloat16": sorted(processor_flags() & {"avx512_bf16", "amx_bf16"}),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _memory() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
