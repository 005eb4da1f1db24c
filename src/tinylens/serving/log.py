"""A line of JSON a request, on stderr: who asked is not in it, nor what."""

from __future__ import annotations

import json
import sys

from tinylens.system import now

LONGEST_PATH = 200


class RequestLog:
    """Writes a line a request: time, id, method, path, status and milliseconds.

    Neither query nor headers nor bodies are written, so no image and no token can be in it; JSON
    escapes what could forge a line.
    """

    def write(self, request_id: str, method: str, path: str, status: int, seconds: float) -> None:
        """Write a line, in one call, so that those of several workers do not mix."""
        line = {
            "time": now(),
            "id": request_id,
            "method": method,
            "path": path[:LONGEST_PATH],
            "status": status,
            "milliseconds": round(1e3 * seconds, 3),
        }
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()
