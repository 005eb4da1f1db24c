"""POST /predict: from a body to a ticket. Both ways into the server end here."""

from __future__ import annotations

from collections.abc import Callable

from tinylens.serving import answers, multipart, question
from tinylens.serving.multipart import Part
from tinylens.serving.service import Service
from tinylens.serving.tickets import Refused, Reply, Ticket


def ticket(
    service: Service,
    query: bytes,
    content_type: bytes,
    body: bytes,
    request_id: str,
    reply_to: Callable[[Reply], None],
) -> Ticket:
    """Return what is to be submitted for a request.

    Raises:
        Refused: 400, 404, 413, 415 or 422, with what is wrong.
    """
    try:
        requested = question.parse(query)
    except question.BadQuestion as error:
        raise Refused(422, str(error)) from None
    model = service.model(requested.model)
    parts = _parts(content_type, body, service.limits.images)
    if requested.look and len(parts) > 1:
        raise Refused(422, f"look=true with {len(parts)} images; expected one, as it takes long")
    slow = answers.render_slowly(requested) if requested.look or requested.seen else None
    made = Ticket(
        model.name,
        parts,
        requested.top,
        request_id,
        render=answers.render,
        slow=slow,
        reply_to=reply_to,
    )
    made.fix = requested.fix
    return made


def _parts(content_type: bytes, body: bytes, most: int) -> list[Part]:
    if not multipart.is_form(content_type):
        if content_type[:16].lower() == b"application/json":
            raise Refused(
                415, "JSON; expected an image's bytes, or a form with files; /v2 takes JSON"
            )
        if not body:
            raise Refused(422, "an empty body, expected an image or a form with images")
        return [Part("", body)]
    try:
        parts = multipart.parse(content_type, body, most)
    except multipart.BadForm as error:
        raise Refused(400, str(error)) from None
    except multipart.TooManyParts as error:
        raise Refused(422, str(error)) from None
    if not parts:
        raise Refused(422, "a form without parts, expected one or more images")
    return parts
