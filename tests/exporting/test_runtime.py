"""onnxruntime-web's files: right ones only, from wherever they come, or words on what to type."""

from __future__ import annotations

import os
import shutil
import tarfile

import pytest

from tinylens.errors import DataError, MissingExtra
from tinylens.exporting.webpage import runtime

BRING = (
    "on a machine with npm type `npm pack onnxruntime-web@1.30.0 && tar xzf "
    "onnxruntime-web-1.30.0.tgz`, bring the folder package here, and add --onnxruntime-web package"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))


def npm_that(monkeypatch, tmp_path, script):
    """Put a program of the name npm before all others."""
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def nothing(_):
    raise AssertionError("nothing was to be said")


@pytest.mark.slow  # asks npm's registry
def test_npm_fetches_the_files_once(tmp_path, monkeypatch):
    if shutil.which("npm") is None:
        pytest.skip("no npm to fetch with")
    said = []
    try:
        found = runtime.runtime_files(None, said.append)
    except MissingExtra as error:
        pytest.skip(str(error))
    assert said == ["fetching onnxruntime-web 1.30.0, 33 MB, by npm; once"]
    assert {name: len(content) for name, content in found.items()} == {
        runtime.SCRIPT: 73_054,
        runtime.WASM: 14_239_897,
    }
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.runtime_files(None, nothing) == found  # from the cache

    cached = tmp_path / "cache" / "onnxruntime-web-1.30.0"
    package = tmp_path / "package"
    shutil.copytree(cached, package / "dist")
    assert runtime.runtime_files(package, nothing) == found
    (cached / runtime.SCRIPT).write_bytes(b"damaged")
    with pytest.raises(MissingExtra, match="npm, which fetches it, is not on this machine"):
        runtime.runtime_files(None, said.append)
    (package / "dist" / runtime.SCRIPT).write_bytes(b"another version")
    with pytest.raises(DataError, match=r"min.mjs has SHA-256 \w{12}…, expected 11e64bd8ffe1…"):
        runtime.runtime_files(package, nothing)


def test_without_npm_it_is_said_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra) as raised:
        runtime.runtime_files(None, lambda _: None)
    assert str(raised.value) == (
        "a page needs onnxruntime-web 1.30.0, and npm, which fetches it, is not on this machine; "
        + BRING
    )


def test_what_npm_says_is_passed_on(tmp_path, monkeypatch):
    npm_that(monkeypatch, tmp_path, "echo no such host >&2; exit 1")
    with pytest.raises(MissingExtra, match="npm could not fetch it: no such host; on a machine"):
        runtime.runtime_files(None, lambda _: None)


def test_another_package_is_not_taken(tmp_path, monkeypatch):
    package = tmp_path / "other.tgz"
    for name in runtime.SHA256:
        (tmp_path / name).write_bytes(b"something else")
    with tarfile.open(package, "w:gz") as archive:
        for name in runtime.SHA256:
            archive.add(tmp_path / name, f"package/dist/{name}")
    npm_that(monkeypatch, tmp_path, f"cp {package} onnxruntime-web-1.30.0.tgz")
    with pytest.raises(MissingExtra, match="what npm fetched is something else: ort"):
        runtime.runtime_files(None, lambda _: None)
    npm_that_cuts = tmp_path / "bin" / "npm"
    npm_that_cuts.write_text("#!/bin/sh\necho > onnxruntime-web-1.30.0.tgz\n")
    with pytest.raises(MissingExtra, match="cannot be unpacked"):
        runtime.runtime_files(None, lambda _: None)
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(DataError) as raised:
        runtime.runtime_files(tmp_path, nothing)
    assert str(raised.value) == (
        f"--onnxruntime-web {tmp_path}: ort.wasm.bundle.min.mjs is not there; "
        f"ort-wasm-simd-threaded.wasm is not there; expected the files of version 1.30.0: {BRING}"
    )
