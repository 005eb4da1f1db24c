"""The page /docs: the OpenAPI document as plain HTML.

FastAPI's own pages load their script from a CDN. This one loads nothing at all, so it is there on a
machine without a network, and tells nobody that it was opened.
"""

from __future__ import annotations

import html
import json
from typing import Any


def page(document: dict[str, Any]) -> str:
    """Return the operations of an OpenAPI document as a page."""
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    title = html.escape(info["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body><main>'
        f"<h1>{title}</h1><p>{html.escape(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p>'
        f"{''.join(operations)}</main></body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{html.escape(each['name'])}</code> ({each['in']}): "
        f"{html.escape(each.get('description', ''))}</li>"
        for each in operation.get("parameters", [])
    )
    bodies = ", ".join(operation.get("requestBody", {}).get("content", {}))
    answers = "".join(
        f"<li><code>{status}</code> {html.escape(answer.get('description', ''))}</li>"
        for status, answer in operation["responses"].items()
    )
    example = operation.get("x-example")
    return (
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation.get('description', operation.get('summary', '')))}</p>"
        + (f"<h3>Asks</h3><ul>{parameters}</ul>" if parameters else "")
        + (f"<p>Body: <code>{html.escape(bodies)}</code></p>" if bodies else "")
        + (f"<pre>{html.escape(json.dumps(example, indent=1))}</pre>" if example else "")
        + f"<h3>Answers</h3><ul>{answers}</ul></section>"
    )
