"""Taking a data set out of a Debian package, without being root and without installing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tinylens import files
from tinylens.errors import DataError

SECONDS = 300.0  # an update of package lists takes about ten


def can_fetch_packages() -> bool:
    """Return whether this machine has the programs for it."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def fetch_files(package: str, inner: Sequence[str], folder: Path) -> None:
    """Copy files out of a package into `folder`, each under its last name.

    Args:
        package: the name of a package in the machine's own package sources.
        inner: paths within the package, without the first slash.
        folder: made if it is missing.

    Raises:
        DataError: when the package cannot be had or lacks a file.
    """
    with tempfile.TemporaryDirectory(prefix="tinylens-") as temporary:
        workspace = Path(temporary)
        _download(package, workspace)
        packed = next(workspace.glob("*.deb"), None)
        if packed is None:
            raise DataError(f"the Debian package {package} did not arrive")
        _run(["dpkg-deb", "-x", str(packed), str(workspace / "content")], workspace)
        for path in inner:
            source = workspace / "content" / path
            if not source.is_file():
                raise DataError(f"the Debian package {package} has no {path}")
            files.write_bytes(folder / source.name, source.read_bytes())


def _download(package: str, workspace: Path) -> None:
    """Fetch the package by the machine's package lists, or by lists fetched for this alone."""
    try:
        _run(["apt-get", "download", package], workspace)
    except DataError:
        lists, cache = workspace / "lists", workspace / "cache"
        for place in (lists, cache):
            (place / "partial").mkdir(parents=True)
        own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        _run(["apt-get", *own, "update"], workspace)
        _run(["apt-get", *own, "download", package], workspace)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no reason given"]
        raise DataError(f"{command[0]} ended with code {done.returncode}: {last[0]}")
