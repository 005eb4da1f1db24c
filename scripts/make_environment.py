"""Makes the virtual environment that the Makefile runs in; standard library only.

    python3 scripts/make_environment.py dev          # requirements/dev.txt and tinylens itself
    python3 scripts/make_environment.py dev jax      # and what JAX needs, added to it

The environment says what it holds in `tinylens.json`, a file that is removed before anything is
changed and written last. Without that file, or when it names other requirements than those of this
checkout, the environment is made anew: an install that was cut off never counts as ready. A lock
lets a second `make` wait for the first.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
LAYERS = ("runtime", "train", "dev", "jax", "torch")


def main() -> None:
    """Bring the environment to the state that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("layers", nargs="+", choices=LAYERS)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    arguments = parser.parse_args()
    check_python()
    venv = arguments.venv.absolute()
    try:
        with lock(venv.with_name(f"{venv.name}.lock")):
            prepare(venv, arguments.layers)
    except subprocess.CalledProcessError as error:
        command = " ".join(str(part) for part in error.cmd[:4])
        sys.exit(f"error: `{command} …` failed, see above; the same make command tries again")
    except KeyboardInterrupt:
        sys.exit(f"interrupted: {venv.name} is not ready, and the next make command makes it anew")


def check_python() -> None:
    """Stop with a sentence where this Python cannot be used."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            f"error: tinylens needs Python 3.{OLDEST[1]} to 3.{NEWEST[1]}, and `{sys.executable}` "
            f"is {platform.python_version()}; name another one: make PYTHON=python3.12 …"
        )


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time change the environment; the lock goes when its holders end."""
    with path.open("w") as file:
        os.set_inheritable(file.fileno(), True)  # a pip that outlives this process holds it on
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that works on {path.stem} …", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(venv: Path, layers: list[str]) -> None:
    """Install what is missing, or everything where the environment cannot be trusted."""
    stamp = venv / "tinylens.json"
    held = read_stamp(stamp, venv)
    present = held.get("layers", {})
    missing = [layer for layer in layers if layer not in present]
    project = digest("pyproject.toml")
    if held and not missing and held["project"] == project:
        return
    started = time.monotonic()
    if held:
        stamp.unlink()
    else:
        create(venv)
    for layer in missing:
        install(venv, layer)
    install_project(venv)
    run(venv, "-m", "pip", "check", stdout=subprocess.DEVNULL)
    content = {
        "venv": str(venv),
        "python": platform.python_version(),
        "build": digest("requirements/build.txt"),
        "layers": present | {layer: digest(f"requirements/{layer}.txt") for layer in layers},
        "project": project,
    }
    write_whole(stamp, json.dumps(content, indent=1) + "\n")
    print(f"{venv.name} is ready after {time.monotonic() - started:.0f} s", flush=True)


def read_stamp(stamp: Path, venv: Path) -> dict[str, Any]:
    """Return what the environment holds, or nothing where it has to be made anew."""
    try:
        held: dict[str, Any] = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    now = {
        "venv": str(venv),
        "python": platform.python_version(),
        "build": digest("requirements/build.txt"),
        "layers": {layer: digest(f"requirements/{layer}.txt") for layer in held["layers"]},
    }
    return held if held == now | {"project": held["project"]} else {}


def digest(name: str) -> str:
    """Return the SHA-256 of a file of this checkout."""
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def create(venv: Path) -> None:
    """Make an empty environment, in the place of one that we made earlier."""
    ours = venv / "made-by-tinylens"
    if venv.exists() and not ours.exists() and any(venv.iterdir()):
        sys.exit(
            f"error: {venv} was not made by make, and is left alone; "
            "remove it, or name another place: make VENV=.venv-make …"
        )
    if Path(sys.prefix) == venv:
        sys.exit(f"error: {venv} has to be made anew, and is active: type `deactivate` first")
    ensure_pip_is_available()
    print(f"making {venv.name} with Python {platform.python_version()}", flush=True)
    venv.mkdir(parents=True, exist_ok=True)
    ours.touch()
    for item in venv.iterdir():  # cut off here, what is left still counts as ours
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        elif item != ours:
            item.unlink()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, close_fds=False)


def ensure_pip_is_available() -> None:
    """Install what Debian splits off `venv`, where we may; else say the line to type."""
    if importlib.util.find_spec("ensurepip") is not None:
        return
    apt_get = shutil.which("apt-get")
    if apt_get and os.geteuid() == 0:
        print("installing python3-venv, which Debian keeps apart from python3", flush=True)
        subprocess.run([apt_get, "update", "-qq"], check=True)
        subprocess.run([apt_get, "install", "-qq", "--yes", "python3-venv"], check=True)
        importlib.invalidate_caches()
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("error: this Python cannot make environments; type: apt-get install python3-venv")


def install(venv: Path, layer: str) -> None:
    """Install one layer; of PyTorch the build without CUDA, where pip can find that."""
    if layer == "torch":
        with contextlib.suppress(subprocess.CalledProcessError):
            install_file(venv, "torch-cpu", stderr=subprocess.DEVNULL)
    install_file(venv, layer)
    if layer == "torch" and needs_cuda_libraries(venv):
        print("pip finds no PyTorch without CUDA; its libraries are 2 GB to fetch", flush=True)
        install_file(venv, "torch-cuda")


def install_file(venv: Path, name: str, stderr: int | None = None) -> None:
    """Install one requirements file; it is complete, so pip need not look for dependencies."""
    path = ROOT / "requirements" / f"{name}.txt"
    print(f"installing requirements/{path.name}", flush=True)
    pip_install(venv, "--require-hashes", "--no-deps", "--requirement", path, stderr=stderr)


def needs_cuda_libraries(venv: Path) -> bool:
    """Return whether pip found PyTorch's CUDA build, the one on PyPI for Linux."""
    question = "from importlib import metadata; print(metadata.version('torch'))"
    version = subprocess.check_output([venv / "bin" / "python", "-c", question], text=True).strip()
    return sys.platform == "linux" and not version.endswith("+cpu")


def install_project(venv: Path) -> None:
    """Install tinylens itself, editable, with the build tools that are pinned."""
    install_file(venv, "build")
    pip_install(venv, "--no-index", "--no-deps", "--no-build-isolation", "--editable", ROOT)


def pip_install(venv: Path, *arguments: str | Path, stderr: int | None = None) -> None:
    """Run pip, which compiles to bytecode as it installs: TensorFlow then starts 4 times faster."""
    options = ("--quiet", "--disable-pip-version-check", "--no-input")
    run(venv, "-m", "pip", "install", *options, *arguments, stderr=stderr)


def run(
    venv: Path, *arguments: str | Path, stdout: int | None = None, stderr: int | None = None
) -> None:
    """Run the environment's Python."""
    command = [venv / "bin" / "python", *arguments]
    subprocess.run(command, check=True, close_fds=False, stdout=stdout, stderr=stderr)


if __name__ == "__main__":
    main()
