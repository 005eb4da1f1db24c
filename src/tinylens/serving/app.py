"""The routes, as FastAPI documents them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from tinylens.serving import documents, exposition, inference, predict, shapes
from tinylens.serving.counters import Counts
from tinylens.serving.service import Service
from tinylens.serving.tickets import Refused, Reply, Ticket
from tinylens.system import tinylens_version

STATIC = Path(__file__).parent / "static"
DESCRIPTION = (
    "Images in, labels with calibrated probabilities out. A request is an image, or a form with "
    "several; /v2 is the Open Inference Protocol."
)
NOT_READY = Refused(503, "the server is about to end", ((b"retry-after", b"1"),))

Name = Annotated[
    str,
    fastapi.Path(description="of a model", pattern="^[A-Za-z0-9._-]{1,64}$", max_length=64),
]
Reload = Callable[[str], Awaitable[dict[str, Any]]]
Collect = Callable[[], Awaitable[Counts]]


def make_app(service: Service, reload: Reload, collect: Collect) -> FastAPI:
    """Return the application.

    Args:
        service: that answers.
        reload: reads a model again in all workers; returns "sha256", "previous" and "error".
        collect: returns the counts of all workers.
    """
    app = FastAPI(
        title="tinylens serve",
        version=tinylens_version(),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        responses=_errors(400, 401, 403, 408, 413, 415, 431, 500),
    )
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(fastapi.exceptions.RequestValidationError, _invalid)
    _add_prediction(app, service)
    _add_models(app, service, reload)
    _add_protocol(app, service)
    _add_inference(app, service)
    _add_pages(app, service, collect)
    return app


def _add_prediction(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        response_model=shapes.Answer,
        responses={
            413: {"model": shapes.NoAnswer},
            422: {"model": shapes.NoAnswer},
            **_errors(404, 503, 504),
        },
        openapi_extra={"parameters": shapes.PARAMETERS, "requestBody": shapes.IMAGES},
    )
    async def predict_images(request: Request) -> Response:
        """Say what is in images; one that cannot be read says why, the others are answered."""
        body = await request.body()
        query: bytes = request.scope["query_string"]
        kind = request.headers.get("content-type", "").encode("latin-1")
        made = predict.ticket(service, query, kind, body, request.state.request_id, _nobody)
        return await _ask(service, made)


def _add_models(app: FastAPI, service: Service, reload: Reload) -> None:
    @app.get("/models", response_model=shapes.Models)
    async def models() -> Any:
        """Name the models, their classes and the size that they want images in."""
        return {"models": [_served(model) for model in service.models]}

    @app.post(
        "/models/{name}/reload",
        response_model=shapes.Reloaded,
        responses=_errors(404, 409, 422, 503),
    )
    async def reload_model(name: Name) -> Any:
        """Read a model's file again.

        The new one is opened, checked by its golden samples and run once in every worker before it
        answers anything; where it fails, the old one goes on.
        """
        model = service.model(name)
        found = await reload(model.name)
        if "error" in found:
            raise Refused(found.get("status", 409), found["error"])
        return {"name": name, **found}


def _served(model: Any) -> dict[str, Any]:
    rule = model.classifier.rule
    return {
        "name": model.name,
        "sha256": model.sha256,
        "classes": list(model.classifier.class_names),
        "image": {
            "height": rule.height,
            "width": rule.width,
            "channels": rule.channels,
            "aspect": rule.aspect,
        },
    }


def _add_protocol(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live", response_model=shapes.Live)
    async def live() -> Any:
        """Say that the server lives; no model is asked."""
        return {"live": True}

    @app.get("/v2/health/ready", response_model=shapes.Ready, responses=_errors(503))
    async def ready() -> Any:
        """Say whether the server answers: its models are loaded, and it is not about to end."""
        if service.draining:
            raise NOT_READY.anew()
        return {"ready": True}

    @app.get("/v2", response_model=shapes.Server)
    async def server() -> Any:
        """Say what this server is."""
        return {"name": "tinylens", "version": tinylens_version(), "extensions": []}

    @app.get("/v2/models/{name}", response_model=shapes.Metadata, responses=_errors(404, 422))
    async def metadata(name: Name) -> Any:
        """Describe a model's tensors."""
        return inference.describe(service.model(name))

    @app.get(
        "/v2/models/{name}/ready",
        response_model=shapes.ModelReady,
        responses=_errors(404, 422, 503),
    )
    async def model_ready(name: Name) -> Any:
        """Say whether a model answers."""
        if service.draining:
            raise NOT_READY.anew()
        return {"name": service.model(name).name, "ready": True}


def _add_inference(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v2/models/{name}/infer",
        response_model=shapes.Inferred,
        responses=_errors(404, 422, 503, 504),
        openapi_extra={"requestBody": shapes.TENSORS},
    )
    async def infer(name: Name, request: Request) -> Response:
        """Answer tensors: images of the network's own size, uint8, NHWC."""
        model = service.model(name)
        body = await request.body()
        if service.is_full:
            raise Refused(503, "too many images are waiting", ((b"retry-after", b"1"),))
        # 10 MiB of numbers take a tenth of a second, in which other requests are to be answered
        requested = await asyncio.to_thread(inference.Inference, body, model, service.limits.images)
        ticket = Ticket(
            model.name,
            (),
            len(model.classifier.class_names),
            request.state.request_id,
            render=requested.render,
            reply_to=_nobody,
            images=requested.reads(),
        )
        return await _ask(service, ticket)


def _add_pages(app: FastAPI, service: Service, collect: Collect) -> None:
    @app.get("/metrics", response_class=Response, responses=_text("text/plain"))
    async def metrics() -> Response:
        """Count everything, for Prometheus; with the drift of confidence and images."""
        text = exposition.expose(await collect(), service.models)
        return Response(text, media_type=exposition.CONTENT_TYPE.decode())

    @app.get("/docs", response_class=Response, responses=_text("text/html"))
    async def docs() -> Response:
        """Show this document as a page that loads nothing from elsewhere."""
        return Response(documents.page(app.openapi()), media_type="text/html; charset=utf-8")

    # not mounted: a mount takes all that has another method than its route, as PUT /predict
    app.router.default = StaticFiles(directory=STATIC, html=True)


async def _ask(service: Service, ticket: Ticket) -> Response:
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    ticket.reply_to = lambda reply: None if answer.done() else answer.set_result(reply)
    service.submit(ticket)
    try:
        return _response(await answer)
    finally:
        ticket.over = True


def _nobody(reply: Reply) -> None:
    raise RuntimeError(f"an answer with the status {reply.status} that nobody asked for")


def _response(reply: Reply) -> Response:
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, reply.status, headers, reply.content_type.decode())


# --- errors, all of one shape


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    return _response(error.reply(request.state.request_id))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = tuple((k.encode(), v.encode()) for k, v in (error.headers or {}).items())
    sentence = {
        404: "there is nothing here; see /docs",
        405: "another method is expected; see /docs",
    }
    words = sentence.get(error.status_code, str(error.detail))
    return _response(Refused(error.status_code, words, headers).reply(request.state.request_id))


async def _invalid(request: Request, error: Exception) -> Response:
    return _response(
        Refused(422, "the name of a model has up to 64 letters, digits, dots, _ and -").reply(
            request.state.request_id
        )
    )


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": shapes.Error} for status in statuses}


def _text(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": {"type": "string"}}}}}
