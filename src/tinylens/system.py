"""Processor cores, memory, versions and hardware, and signals that end a training."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from tinylens.backend import processor_count, processor_flags, processor_name


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


ROOT = Path("/")
RESIDENT = 0.5  # of what is available may be taken by images: networks and libraries want theirs


def available(root: Path = ROOT) -> int:
    """Return the bytes that can be had now without taking any from other work.

    The limits of containers (control groups of version 1 and 2) and of RLIMIT_AS (`ulimit -v`)
    count. What the system or a group keeps of files, only to save reading them again, is available.

    Args:
        root: where /proc and /sys are.
    """
    left = [max(maximum - used, 0) for maximum, used in _groups(root)]
    return min(_meminfo(root).get("MemAvailable", sys.maxsize), _addresses(root), *left)


def fits(size: int) -> bool:
    """Return whether images of so many bytes can be held in memory now."""
    return size <= RESIDENT * available()


def _meminfo(root: Path) -> dict[str, int]:
    """Return the lines of /proc/meminfo in bytes; none where there is no such file."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024
    return found


def _addresses(root: Path) -> int:
    """Return what RLIMIT_AS leaves; a huge number where there is none, as on Windows."""
    try:
        import resource
    except ImportError:
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    pages = 0
    with contextlib.suppress(OSError, ValueError):
        pages = int((root / "proc/self/statm").read_text("ascii").split()[0])
    return max(soft - pages * resource.getpagesize(), 0)


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use of every control group around this process that has a limit.

    A group's use is without the pages of files, which it gives back when memory is short.
    """
    for folder, names in _group_folders(root):
        with contextlib.suppress(OSError, ValueError):  # no limit: "max", or no such file
            maximum = int((folder / names[0]).read_text("ascii"))
            used = int((folder / names[1]).read_text("ascii"))
            stat = dict(
                line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines()
            )
            files = sum(int(stat.get(name, 0)) for name in names[2:])
            yield maximum, used - files


_VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
    "total_active_file",
)
_VERSION_2 = ("memory.max", "memory.current", "inactive_file", "active_file")


def _group_folders(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the folders of this process's control groups, up to the root, and the files there."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mounted = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        names = _VERSION_1 if controllers else _VERSION_2
        inner = mounted / path.lstrip("/")
        # in a container the path may be that of the host, and its own group the mounted root
        while inner != mounted:
            yield inner, names
            inner = inner.parent
        yield mounted, names


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


@contextlib.contextmanager
def stop_signals() -> Generator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; the second one acts at once.

    After the block a wish becomes what the signal means: KeyboardInterrupt, or exit code 143.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread may catch signals
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        requested.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield requested
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if came == [signal.SIGTERM]:
        sys.exit(128 + signal.SIGTERM)
