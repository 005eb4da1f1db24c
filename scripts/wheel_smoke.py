"""Installs the wheel as a user would, without Keras, and predicts with it; standard library only.

    python scripts/wheel_smoke.py

The Python that runs this has the build tools and trains the model that is predicted with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRAW = "from PIL import Image; Image.new('RGB', (40, 30), (200, 30, 30)).save('red.png')"
ABSENT = """
import importlib.util
present = [n for n in ("keras", "tensorflow", "jax", "torch") if importlib.util.find_spec(n)]
raise SystemExit(f"the runtime dependencies bring {', '.join(present)}" if present else 0)
"""


def main() -> None:
    """Build, install, run; any step that fails ends this with its own message."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = install_wheel(folder)
        tinylens = python.with_name("tinylens")
        run(python, "-c", ABSENT, cwd=folder)
        run(tinylens, "--help", cwd=folder)
        version = run(tinylens, "--version", cwd=folder).strip()
        model = train(folder)
        run(python, "-c", DRAW, cwd=folder)
        printed = run(tinylens, "predict", model, "red.png", "--json", cwd=folder)
        [row] = json.loads(printed)
        if row["error"] is not None or not 0 < row["confidence"] <= 1:
            sys.exit(f"error: predicting one image gave {row}")
        print(f"{version}: installed without Keras, it takes a red image for {row['label']}")


def install_wheel(folder: Path) -> Path:
    """Build the wheel, install it with the runtime dependencies alone; return that Python."""
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    offline = ("--no-index", "--no-deps")
    run(sys.executable, *pip, "wheel", *offline, "--no-build-isolation", "-w", folder, ROOT)
    [wheel] = folder.glob("tinylens-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    requirements = ROOT / "requirements" / "runtime.txt"
    run(python, *pip, "install", "--require-hashes", "--no-deps", "-r", requirements)
    run(python, *pip, "install", *offline, wheel)
    run(python, *pip, "check")
    return python


def train(folder: Path) -> Path:
    """Train for one epoch on drawn shapes with the full environment; return the shipped file."""
    tinylens = Path(sys.executable).with_name("tinylens")
    out = folder / "run"
    run(tinylens, "train", "shapes", "--set", "train.epochs=1", "--out", out, cwd=folder)
    return out / "model.onnx"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it wrote to stdout."""
    return subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
