"""The JSON of /predict, written by hand.

A row has the same fields in the same order each time, so it is a template to be filled: 4 µs where
json.dumps of the dicts needs 16, of some 200 that a request takes. The test parses what comes out.
"""

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

from tinylens.occlusion import occlusion
from tinylens.prediction import Prediction
from tinylens.reading import Read
from tinylens.serving.hosted import Hosted
from tinylens.serving.question import Question
from tinylens.serving.tickets import Reply, Ticket

TOO_LARGE = "too large: "  # how the decoder begins to say so
LOOK_DIGITS = 4


def render(hosted: Hosted, ticket: Ticket, predictions: Sequence[Prediction]) -> Reply:
    """Return the answer to a request of /predict."""
    rows = [
        _row(hosted, ticket, part.name, found)
        for part, found in zip(ticket.parts, predictions, strict=True)
    ]
    return _reply(hosted, ticket, predictions, rows)


def render_slowly(question: Question) -> Any:
    """Return a `render` for questions that take longer: what the model saw, and where it looked."""

    def slowly(hosted: Hosted, ticket: Ticket, predictions: Sequence[Prediction]) -> Reply:
        pictures = ticket.pictures or []
        rows = [
            _row(
                hosted,
                ticket,
                part.name,
                found,
                seen=_seen(picture) if question.seen else "null",
                look=_look(hosted, picture, found) if question.look else "null",
            )
            for part, picture, found in zip(ticket.parts, pictures, predictions, strict=True)
        ]
        return _reply(hosted, ticket, predictions, rows)

    return slowly


def _reply(
    hosted: Hosted, ticket: Ticket, predictions: Sequence[Prediction], rows: list[str]
) -> Reply:
    status, error = _status(predictions)
    text = (
        f'{{"model":{{"name":"{hosted.name}","sha256":"{hosted.sha256}"}},'
        f'"request_id":"{ticket.request_id}","milliseconds":{ticket.milliseconds():.3f},{error}'
        f'"results":[{",".join(rows)}]}}'
    )
    return Reply(status, text.encode())


def _status(predictions: Sequence[Prediction]) -> tuple[int, str]:
    """Return 200 where any picture could be read; else 413 or 422, and the first one's error."""
    if any(found.error is None for found in predictions):
        return 200, ""
    errors = [found.error or "" for found in predictions]
    status = 413 if all(error.startswith(TOO_LARGE) for error in errors) else 422
    return status, f'"error":{json.dumps(f"no picture could be read: {errors[0]}")},'


def _row(
    hosted: Hosted,
    ticket: Ticket,
    name: str,
    found: Prediction,
    *,
    seen: str = "null",
    look: str = "null",
) -> str:
    named = json.dumps(name, ensure_ascii=False) if name else "null"
    if found.label is None or found.confidence is None:
        return (
            f'{{"name":{named},"label":null,"confidence":null,"top":[],"unknown":null,'
            f'"strangeness":null,"findings":[],"seen":null,"look":null,'
            f'"error":{json.dumps(found.error)}}}'
        )
    quoted = hosted.quoted
    top = ",".join(
        [
            f'{{"label":{quoted[label]},"probability":{_number(value)}}}'
            for label, value in found.top[: ticket.top]
        ]
    )
    unknown = "null" if found.reason is None else json.dumps(found.reason)
    return (
        f'{{"name":{named},"label":{quoted[found.label]},"confidence":{_number(found.confidence)},'
        f'"top":[{top}],"unknown":{unknown},"strangeness":{_number(found.strangeness)},'
        f'"findings":[],"seen":{seen},"look":{look},"error":null}}'
    )


def _number(value: float | None) -> str:
    return repr(value) if value is not None and math.isfinite(value) else "null"


def _seen(picture: Read) -> str:
    """Return the picture that the network saw, as a data URI in JSON."""
    if picture.image is None:
        return "null"
    file = io.BytesIO()
    image: NDArray[np.uint8] = picture.image
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return f'"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"'


def _look(hosted: Hosted, picture: Read, found: Prediction) -> str:
    """Return where the model saw its answer, in nats of log-odds."""
    if picture.image is None or found.label is None:
        return "null"
    label = np.array([hosted.classifier.class_names.index(found.label)])
    [values] = occlusion(hosted.classifier.probabilities, picture.image[None], label)
    rows = np.round(values.astype(np.float64), LOOK_DIGITS).tolist()
    return json.dumps({"height": values.shape[0], "width": values.shape[1], "values": rows})
