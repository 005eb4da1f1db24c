"""A page that classifies in the browser: one file that holds network, runtime, style and script.

It works from a double click and from any file host alike, since it asks nothing of either: its
Content-Security-Policy leaves it no address to connect to.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from string import Template

from tinylens import files
from tinylens.data.images import MAX_PIXELS, MAX_SIDE
from tinylens.exporting.webpage import bundle
from tinylens.exporting.webpage.runtime import SCRIPT, VERSION, WASM
from tinylens.inference.classifier import Classifier
from tinylens.inference.selective_prediction import SHARES
from tinylens.system import tinylens_version

PAGE = "index.html"
LICENSE = "onnxruntime-web.LICENSE.txt"  # asks to be wherever the runtime is


@dataclass(frozen=True)
class Page:
    """A written page.

    Attributes:
        path: of the HTML file.
        size: of it, in bytes.
        sha256: of the model file that is in it.
    """

    path: Path
    size: int
    sha256: str


def write_page(model: Path, folder: Path, runtime: Mapping[str, bytes]) -> Page:
    """Write a folder with a page that answers as `model` does, which is checked first.

    Args:
        model: a model.onnx.
        folder: for the page; it appears whole or not at all, and replaces what had its name.
        runtime: the files of onnxruntime-web, as `runtime.runtime_files` gives them.

    Raises:
        ModelError: there is no such file, it was changed, or it does not give its own answers.
    """
    classifier = Classifier.open(model)
    content = model.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    page = _page(classifier, content, sha256, runtime).encode("utf-8")
    temporary = files.temporary_beside(folder)
    try:
        temporary.mkdir()
        (temporary / PAGE).write_bytes(page)
        license_text = resources.files("tinylens.exporting.webpage") / "static" / LICENSE
        (temporary / LICENSE).write_bytes(license_text.read_bytes())
        files.replace(temporary, folder)
    finally:
        files.remove(temporary)
    return Page(folder / PAGE, len(page), sha256)


def _page(classifier: Classifier, content: bytes, sha256: str, runtime: Mapping[str, bytes]) -> str:
    card = classifier.card
    # a set may be known by its path, which is nobody's business elsewhere
    name = f"{card.network} on {PurePath(card.dataset).name}"
    settings = {
        "name": name,
        "sha256": sha256,
        "tolerance": card.tolerance,
        "shares": SHARES,
        "most": {"pixels": MAX_PIXELS, "side": MAX_SIDE},
    }
    script, style = bundle.script(runtime[SCRIPT].decode("utf-8")), bundle.style()
    return Template(bundle.own("index.html")).substitute(
        title=html.escape(name),
        version=html.escape(tinylens_version()),
        runtime_version=VERSION,
        icon="data:image/svg+xml;base64," + _base64(bundle.shared("icon.svg").encode()),
        sections=bundle.sections(),
        # a name may hold "</script>"
        settings=json.dumps(settings).replace("<", "\\u003c"),
        script=script,
        script_hash=_hash(script),
        style=style,
        style_hash=_hash(style),
        model=_packed(content),
        wasm=_packed(runtime[WASM]),
    )


def _packed(content: bytes) -> str:
    """Return what a browser unpacks; the checksum in it tells damage on the way there."""
    return _base64(gzip.compress(content, 9, mtime=0))


def _hash(text: str) -> str:
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
