"""Compute heatmaps on the backend that KERAS_BACKEND names, and save them.

Run by test_parity.py, a process a backend: `python parity_explain.py IN.npz OUT.npz`. IN holds
"images", "labels" and the content of each model.keras by its name.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from tinylens.explaining.gradcam import GradCam
from tinylens.models.embedding import open_network


def main(given: str, out: str) -> None:
    arrays = dict(np.load(given))
    images, labels = arrays.pop("images"), arrays.pop("labels")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        maps = {}
        for name, content in arrays.items():
            path.write_bytes(content.tobytes())
            maps[name] = GradCam(open_network(path))(images, labels)
    np.savez(out, backend=keras.backend.backend(), **maps)


if __name__ == "__main__":
    main(*sys.argv[1:])
