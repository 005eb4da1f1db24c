"""How much memory there is, as containers and limits tell it."""

from __future__ import annotations

import resource

import pytest

from tinylens import system

GIB = 2**30
MEMINFO = "MemTotal:       16777216 kB\nMemFree: 1024 kB\nMemAvailable:    8388608 kB\n"


def machine(tmp_path, cgroup, groups):
    """Write /proc and /sys of a machine with 16 GiB, 8 of them available."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for folder, files in groups.items():
        (tmp_path / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "sys/fs/cgroup" / folder / name).write_text(str(text))
    return tmp_path


def version_2(maximum, used, cached=0):
    return {
        "memory.max": maximum,
        "memory.current": used,
        "memory.stat": f"anon 5\nactive_file {cached // 4}\ninactive_file {cached - cached // 4}\n",
    }


def version_1(maximum, used, cached=0):
    return {
        "memory.limit_in_bytes": maximum,
        "memory.usage_in_bytes": used,
        "memory.stat": f"cache 7\ntotal_active_file 0\ntotal_inactive_file {cached}\n",
    }


def test_without_limits_it_is_the_machines(tmp_path):
    root = machine(tmp_path, "0::/\n", {})
    assert system.available(root) == 8 * GIB


@pytest.mark.parametrize(
    ("cgroup", "groups"),
    [
        ("0::/jobs/mine\n", {"jobs/mine": version_2(4 * GIB, 3 * GIB, 2 * GIB)}),
        ("0::/jobs/mine\n", {"jobs": version_2(4 * GIB, 3 * GIB, 2 * GIB), "jobs/mine": {}}),
        ("0::/elsewhere\n", {"": version_2(4 * GIB, 3 * GIB, 2 * GIB)}),
        (
            "4:memory:/jobs\n3:cpu:/jobs\n0::/\n",
            {"memory/jobs": version_1(4 * GIB, 3 * GIB, 2 * GIB), "memory": version_1(2**63, 0)},
        ),
    ],
    ids=["version 2", "around it", "in a container", "version 1"],
)
def test_a_control_group_limits_and_what_it_keeps_of_files_counts_as_free(tmp_path, cgroup, groups):
    root = machine(tmp_path, cgroup, groups)
    assert system.available(root) == 3 * GIB


def test_a_group_without_a_limit_is_none(tmp_path):
    root = machine(tmp_path, "0::/mine\n", {"mine": version_2("max", GIB)})
    assert system.available(root) == 8 * GIB


def test_a_machine_that_tells_nothing_has_no_limit(tmp_path):
    assert system.available(tmp_path) > 2**60


def test_a_limit_of_addresses_counts(tmp_path, monkeypatch):
    root = machine(tmp_path, "0::/\n", {})
    (root / "proc/self/statm").write_text("1000 200 3 4 0 5 0\n")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (GIB, GIB))
    assert system.available(root) == GIB - 1000 * resource.getpagesize()


def test_images_may_take_half_of_what_is_available(monkeypatch):
    monkeypatch.setattr(system, "available", lambda: 100)
    assert system.fits(50)
    assert not system.fits(51)
