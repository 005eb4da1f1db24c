"""The first form of the server: the contract's routes, one process."""

from __future__ import annotations

import base64
import hashlib
import io
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.staticfiles import StaticFiles

from tinylens.classifier import Classifier
from tinylens.occlusion import occlusion

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def make_app(path: Path) -> FastAPI:
    """Return the application for one model file."""
    app = FastAPI(title="tinylens", docs_url=None, redoc_url=None)
    classifier = Classifier.open(path)
    name = path.stem
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    @app.middleware("http")
    async def policy(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        return response

    @app.get("/models")
    def models() -> dict[str, Any]:
        rule = classifier.rule
        size = {"height": rule.height, "width": rule.width, "channels": rule.channels}
        classes = list(classifier.class_names)
        return {
            "models": [{"name": name, "sha256": sha256, "classes": classes, "image": size}]
        }

    @app.post("/predict")
    async def predict(
        request: Request, top: int = 5, look: bool = False, seen: bool = False, fix: str = ""
    ) -> Any:
        begun = time.perf_counter()
        identity = request.headers.get("x-request-id") or uuid.uuid4().hex
        pictures: list[tuple[str | None, bytes]] = []
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            form = await request.form()
            for _, part in form.multi_items():
                if isinstance(part, UploadFile):
                    pictures.append((part.filename, await part.read()))
        else:
            pictures.append((None, await request.body()))
        if not pictures:
            return JSONResponse({"error": "no picture", "request_id": identity}, 422)
        rows = await run_in_threadpool(_answer, classifier, pictures, top, look, seen)
        answer = {
            "model": {"name": name, "sha256": sha256},
            "request_id": identity,
            "milliseconds": 1000 * (time.perf_counter() - begun),
            "results": rows,
        }
        return JSONResponse(answer, headers={"x-request-id": identity})

    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def _answer(
    classifier: Classifier,
    pictures: list[tuple[str | None, bytes]],
    top: int,
    look: bool,
    seen: bool,
) -> list[dict[str, Any]]:
    rows = []
    for name, content in pictures:
        [found] = classifier.predict([content], top=top)
        image = classifier.read(content).image
        row = found.to_json()
        rows.append(
            {
                "name": name,
                "label": row["label"],
                "confidence": row["confidence"],
                "top": row["top"],
                "unknown": found.reason,
                "strangeness": row["strangeness"],
                "findings": [],
                "seen": _seen(image) if seen and image is not None else None,
                "look": _look(classifier, image, found.label) if look else None,
                "error": row["error"],
            }
        )
    return rows


def _seen(image: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _look(classifier: Classifier, image: Any, label: str | None) -> dict[str, Any] | None:
    if image is None or label is None:
        return None
    labels = np.array([classifier.class_names.index(label)])
    [values] = occlusion(classifier.probabilities, image[None], labels)
    return {
        "height": values.shape[0],
        "width": values.shape[1],
        "values": [[round(float(value), 4) for value in row] for row in values],
    }
