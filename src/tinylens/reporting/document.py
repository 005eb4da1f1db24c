"""One HTML file that holds all it shows, style, script and images, and needs no network."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinylens.reporting.wording import share_text, span_text
from tinylens.results import percent

PACKAGE = "tinylens.reporting"
IMAGE_SIDE = 128  # pixels; larger images are shown smaller


def document(
    template: str,
    scripts: Sequence[str] = ("report.js",),
    styles: Sequence[str] = ("report.css",),
    **values: Any,
) -> str:
    """Return a page as HTML. Whatever comes from a run is escaped.

    Args:
        template: a file of templates/ that extends base.html.jinja.
        scripts: files of templates/ that run in it.
        styles: files of templates/ that say how it looks, the later ones over the earlier.
        values: what it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "data_uri": data_uri,
        "share": share_text,
        "span": span_text,
    }
    script = "\n".join(_source(name) for name in scripts)
    style = "\n".join(_source(name) for name in styles)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=style, script=script, script_hash=f"sha256-{digest}", **values
    )


def _source(name: str) -> str:
    """Return a file of our own that goes into the page as it is."""
    return (resources.files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image, uint8, shape (height, width, channels), as a PNG inside an address."""
    sample = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if max(sample.size) > IMAGE_SIDE:
        sample.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    buffer = io.BytesIO()
    sample.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
