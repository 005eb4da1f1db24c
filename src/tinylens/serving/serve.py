"""Models behind HTTP: a supervisor that hands out connections, and workers that answer them.

No part of it needs Keras. `serve` is the way in; `tinylens serve` is a few lines around it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

from tinylens.errors import MissingExtra
from tinylens.serving.options import Options
from tinylens.serving.shelf import Shelf
from tinylens.serving.supervisor import Started, Supervisor

NEEDED = ("fastapi", "httptools", "prometheus_client", "uvicorn", "uvloop")


def serve(options: Options, started: Callable[[Started], None], say: Callable[[str], None]) -> int:
    """Serve models until SIGTERM or SIGINT; return the exit code: 0 where all was answered.

    Args:
        options: models, address and limits.
        started: called once, when all workers answer.
        say: is given a sentence whenever something happens that an owner should know.

    Raises:
        MissingExtra: a library is not installed.
        ModelError: a model cannot be served.
        RecipeError: the address cannot be listened on.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"serving needs {', '.join(missing)}; type: pip install 'tinylens[serve]'"
        )
    with tempfile.TemporaryDirectory(prefix="tinylens-serve-") as folder:
        shelf = Shelf(options.models, Path(folder))
        return asyncio.run(_run(options, shelf, started, say))


async def _run(
    options: Options, shelf: Shelf, started: Callable[[Started], None], say: Callable[[str], None]
) -> int:
    return await Supervisor(options, shelf, say).run(started)
