"""A network as a model.keras: the whole file or none."""

from __future__ import annotations

from pathlib import Path

import keras

from tinylens import files


def save(network: keras.Model, path: Path) -> None:
    """Write a network; Keras itself writes in place, so a kill would leave half a file."""
    temporary = files.temporary_beside(path)
    try:
        network.save(temporary)
        files.fsync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    files.fsync_folder(path.parent)
