"""`tinylens serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import JsonFlag
from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.serving.options import Options
    from tinylens.serving.supervisor import Started

TOKEN_VARIABLE = "TINYLENS_TOKEN"
MIB = 2**20


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="model.onnx files or run folders, as PATH or NAME=PATH; the first is the default."
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on (0 = any free port).")
    ] = 8000,
    workers: Annotated[
        int, typer.Option(min=0, help="Number of inference processes (0 = one per core).")
    ] = 0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token that requests must send (or set TINYLENS_TOKEN)."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Additional host name to accept in requests (repeatable)."),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Maximum number of queued requests.")] = 256,
    images: Annotated[int, typer.Option(min=1, help="Maximum number of images per request.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Maximum batch size.")] = 32,
    body: Annotated[float, typer.Option(min=0.001, help="Maximum request body in MiB.")] = 10.0,
    deadline: Annotated[
        float, typer.Option(min=0.01, help="Time limit for a response, in seconds.")
    ] = 10.0,
    read_timeout: Annotated[
        float, typer.Option(min=0.1, help="Time limit for receiving a request, in seconds.")
    ] = 10.0,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log every request to stderr.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Serve models over HTTP, with a web page. SIGTERM stops, SIGHUP reloads the models."""
    from tinylens.serving.options import Limits, Options, name_models
    from tinylens.serving.serve import serve as run_server
    from tinylens.system import core_count

    limits = Limits(
        queue=queue,
        images=images,
        batch=batch,
        body=int(body * MIB),
        deadline=deadline,
        read_seconds=read_timeout,
    )
    options = Options(
        models=name_models(models),
        host=host,
        port=port,
        workers=workers or core_count(),
        token=_token(token_file),
        allowed_hosts=tuple(allow_host or ()),
        log_requests=log_requests,
        limits=limits,
    )
    code = run_server(
        options, lambda started: _say_started(options, started, as_json=as_json), _say
    )
    raise typer.Exit(code)


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not plain text"
        raise RecipeError(f"--token-file {file} cannot be read: {reason}") from None


def _say_started(options: Options, started: Started, *, as_json: bool) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{started.port}/"
    if as_json:
        models = [{"name": name, "sha256": sha} for name, sha in started.models.items()]
        frame.print_json({"url": url, "models": models, "workers": started.workers})
        sys.stdout.flush()
        return
    names = ", ".join(started.models)
    workers = f"{len(started.workers)} worker{'s' * (len(started.workers) > 1)}"
    typer.echo(f"serving {names} at {url} with {workers}; Ctrl-C ends it")


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)
