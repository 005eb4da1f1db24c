"""`tinylens serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from tinylens.cli.frame import ModelArgument


def serve(
    model: ModelArgument,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8000,
) -> None:
    """Answer pictures over HTTP, and with a page."""
    import uvicorn

    from tinylens.serving.app import make_app

    uvicorn.run(make_app(model), host=host, port=port)
