"""The JSON of /predict."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinylens.inference.classifier import Prediction, Read
from tinylens.inference.occlusion import occlusion
from tinylens.serving.hosted import Hosted
from tinylens.serving.question import Question
from tinylens.serving.tickets import Render, Reply, Ticket

TOO_LARGE = "too large: "  # how the decoder begins to say so
LOOK_DIGITS = 4


def render(hosted: Hosted, ticket: Ticket, predictions: Sequence[Prediction]) -> Reply:
    """Return the answer to a request of /predict."""
    rows = [
        _row(ticket, part.name, found)
        for part, found in zip(ticket.parts, predictions, strict=True)
    ]
    return _reply(hosted, ticket, rows)


def render_slowly(question: Question) -> Render:
    """Return a `render` for questions that take longer: what the model saw, and where it looked."""

    def slowly(hosted: Hosted, ticket: Ticket, predictions: Sequence[Prediction]) -> Reply:
        rows = []
        images = ticket.images or []
        for part, image, found in zip(ticket.parts, images, predictions, strict=True):
            row = _row(ticket, part.name, found)
            row["seen"] = _seen(image) if question.seen else None
            row["look"] = _look(hosted, image, found) if question.look else None
            rows.append(row)
        return _reply(hosted, ticket, rows)

    return slowly


def _reply(hosted: Hosted, ticket: Ticket, rows: list[dict[str, Any]]) -> Reply:
    """Return 200 where any image could be read; else 413 or 422, and the first one's error."""
    tree: dict[str, Any] = {
        "model": {"name": hosted.name, "sha256": hosted.sha256},
        "request_id": ticket.request_id,
        "milliseconds": round(ticket.milliseconds(), 3),
        "results": rows,
    }
    status = 200
    errors = [row["error"] for row in rows]
    if None not in errors:
        status = 413 if all(error.startswith(TOO_LARGE) for error in errors) else 422
        tree["error"] = f"no image could be read: {errors[0]}"
    # 10 of some 250 µs a request; a compiled writer would take 1, and be one more dependency
    return Reply(status, json.dumps(tree).encode())


def _row(ticket: Ticket, name: str, found: Prediction) -> dict[str, Any]:
    top = [{"label": label, "probability": value} for label, value in found.top[: ticket.top]]
    return {
        "name": name or None,
        "label": found.label,
        "confidence": found.confidence,
        "top": top,
        "unknown": found.reason,
        "ood_score": finite(found.ood_score),
        "findings": [finding.to_json() for finding in found.findings or ()],
        "seen": None,
        "look": None,
        "error": found.error,
    }


def finite(value: float | None) -> float | None:
    """Return a number that JSON has, or None; OOD score is none where logits are infinite."""
    return value if value is not None and math.isfinite(value) else None


def _seen(sample: Read) -> str | None:
    """Return the image that the network saw, as a data URI."""
    if sample.image is None:
        return None
    file = io.BytesIO()
    image: NDArray[np.uint8] = sample.image
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _look(hosted: Hosted, image: Read, found: Prediction) -> dict[str, Any] | None:
    """Return where the model saw its answer, in nats of log-odds."""
    if image.image is None or found.label is None:
        return None
    label = np.array([hosted.classifier.class_names.index(found.label)])
    [values] = occlusion(hosted.classifier.probabilities, image.image[None], label)
    rows = np.round(values.astype(np.float64), LOOK_DIGITS).tolist()
    height, width = values.shape
    aspect = hosted.classifier.rule.aspect
    return {"height": height, "width": width, "aspect": aspect, "values": rows}
