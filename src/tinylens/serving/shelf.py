"""The files of the models that are served, kept as they were when they were read.

Workers load these copies and never the file that was named, so all of them have the same bytes, and
one that has to be started again has them too, whatever happened to the file since.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from tinylens import files
from tinylens.errors import ModelError
from tinylens.inference.model_file import model_file, read_model, unseal


class Book(NamedTuple):
    """A copy of a model's file."""

    path: str
    sha256: str


class Shelf:
    """Copies of model files in a folder of their own.

    Args:
        models: name and path of each, or of its run.
        folder: that is this server's alone.

    Raises:
        ModelError: a file is missing, damaged or none of ours.
    """

    def __init__(self, models: tuple[tuple[str, str], ...], folder: Path) -> None:
        self._sources, self._folder = dict(models), folder
        self.models: dict[str, str] = {}
        for name in self._sources:
            self.models[name] = self._take(model_file(self._sources[name])).sha256

    def take(self, name: str) -> Book:
        """Copy a model's file as it is now, once it is seen to be whole.

        Raises:
            ModelError: it is missing, damaged or none of ours; no folder is named, as clients
                read it.
        """
        file = model_file(self._sources[name])
        try:
            return self._take(file)
        except ModelError as error:
            raise ModelError(str(error).replace(str(file), file.name)) from None

    def _take(self, file: Path) -> Book:
        content = read_model(file)
        unseal(content, str(file))
        sha256 = hashlib.sha256(content).hexdigest()
        copy = self._folder / f"{sha256}.onnx"
        if not copy.exists():
            try:
                files.write_bytes(copy, content)
            except OSError as error:
                raise ModelError(f"{file} cannot be copied: {error.strerror}") from None
        return Book(str(copy), sha256)

    def put(self, name: str, sha256: str) -> None:
        """Let a copy be the one that is served."""
        self.models = {**self.models, name: sha256}

    def drop(self, book: Book) -> None:
        """Forget a copy that is not served."""
        if book.sha256 not in self.models.values():
            Path(book.path).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Forget all copies that are not served."""
        for copy in self._folder.glob("*.onnx"):
            self.drop(Book(str(copy), copy.stem))

    def paths(self) -> dict[str, str]:
        """Return the copies' paths, by the name of the model."""
        return {name: str(self._folder / f"{sha}.onnx") for name, sha in self.models.items()}
