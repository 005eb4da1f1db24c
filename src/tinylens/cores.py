"""How many processor cores there are to use."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def core_count() -> int:
    """Return how many processor cores this process may use; two threads of a core are one."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for processor in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii"))
        except OSError:  # not told in this container
            cores.add(str(processor))
    return min(len(cores), _quota())


def _quota() -> int:
    """Return the processors that a container's limit leaves, rounded up."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, -(-int(limit) // int(period)))
    except (OSError, ValueError):  # no limit
        return sys.maxsize
