"""onnxruntime-web: two files of one version, known by their hashes, wherever they come from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from tinylens import files
from tinylens.data.cache import cache_root
from tinylens.errors import DataError, MissingExtra

NAME, VERSION = "onnxruntime-web", "1.30.0"
SCRIPT = "ort.wasm.bundle.min.mjs"  # with the loader of the WebAssembly in it
WASM = "ort-wasm-simd-threaded.wasm"
SHA256 = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SECONDS = 600  # for npm to fetch 33 MB

_SUBFOLDERS = ("", "dist", "package/dist", f"node_modules/{NAME}/dist")


def runtime_files(folder: Path | None, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return the content of SCRIPT and WASM by name, with the right hashes.

    Args:
        folder: that holds them, or the unpacked package; None takes them from the cache, and has
            npm fetch them where they are not there.
        say: is given a sentence before what takes long.

    Raises:
        DataError: `folder` does not hold them.
        MissingExtra: they are not in the cache, and npm is not there or cannot fetch them.
    """
    if folder is not None:
        return _from_folder(folder)
    cached = cache_root() / f"{NAME}-{VERSION}"
    found = _read(cached)
    if _wrong(found):  # not there, or damaged
        files.remove(cached)
        say(f"fetching {NAME} {VERSION}, 33 MB, by npm; once")
        with tempfile.TemporaryDirectory() as scratch:
            found = _unpacked(_fetched(Path(scratch)))
        with files.new_folder(cached) as new:
            for name, content in found.items():
                (new / name).write_bytes(content)
    return found


def _from_folder(folder: Path) -> dict[str, bytes]:
    place = next((folder / sub for sub in _SUBFOLDERS if (folder / sub / WASM).is_file()), folder)
    found = _read(place)
    if wrong := _wrong(found):
        raise DataError(
            f"--{NAME} {folder}: {'; '.join(wrong)}; expected the files of version {VERSION}: "
            f"{_ADVICE}"
        )
    return found


def _read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SHA256 if (folder / name).is_file()}


def _wrong(found: dict[str, bytes]) -> list[str]:
    """Return what is wrong with files, in words; nothing where they are what they should be."""
    described = []
    for name, expected in SHA256.items():
        if name not in found:
            described.append(f"{name} is not there")
        elif (actual := hashlib.sha256(found[name]).hexdigest()) != expected:
            described.append(f"{name} has SHA-256 {actual[:12]}…, expected {expected[:12]}…")
    return described


def _fetched(scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise _unavailable("npm, which fetches it, is not on this machine")
    command = [npm, "pack", f"{NAME}@{VERSION}", "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unavailable(f"npm did not fetch it within {SECONDS} s") from None
    package = scratch / f"{NAME}-{VERSION}.tgz"
    if done.returncode or not package.is_file():
        words = " ".join((done.stderr or done.stdout).split())[-200:]
        raise _unavailable(f"npm could not fetch it: {words or f'exit code {done.returncode}'}")
    return package


def _unpacked(package: Path) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(package) as archive:
            for name in SHA256:
                member = archive.extractfile(f"package/dist/{name}")
                found[name] = member.read() if member else b""
    except (tarfile.TarError, KeyError, OSError) as error:
        raise _unavailable(f"what npm fetched cannot be unpacked: {error}") from None
    if wrong := _wrong(found):
        raise _unavailable(f"what npm fetched is something else: {'; '.join(wrong)}")
    return found


def _unavailable(why: str) -> MissingExtra:
    return MissingExtra(f"a page needs {NAME} {VERSION}, and {why}; {_ADVICE}")


_ADVICE = (
    f"on a machine with npm type `npm pack {NAME}@{VERSION} && tar xzf {NAME}-{VERSION}.tgz`, "
    f"bring the folder package here, and add --{NAME} package"
)
