"""Requests a second and their times: tinylens serve, a plain FastAPI endpoint, and LitServe.

    python benchmarks/serve.py [--quick] [--run RUN]      pip install litserve, before
    python benchmarks/serve.py --overload | --soak | --swaps

Uploads of PNG files of one image as forms, from a second process on the same machine over
loopback, by `traffic.py`. All serve the same model.onnx, that of the `classic` recipe, trained on
`shapes` for one epoch, unless --run names a run. What an answer costs at least is decoding and bare
onnxruntime in a loop of one thread.

--overload asks ten times what the server can carry for a minute, and then looks at how soon it is
itself again. There the server has half of the cores, and those who ask have the others, or the
flood would take from the server what it measures. --soak asks half of what it can carry for ten
minutes, and looks at its memory. --swaps replaces the model a hundred times under load.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import machine
import traffic

CONNECTIONS = 16
FLOODERS = 2  # processes: one alone sends some 25,000 a second
FLOOD_CONNECTIONS = 450  # of each
PROBES_PER_SECOND = 200.0
WARM_UP_SECONDS = 1.0
START_SECONDS = 60
BOUNDARY = "xYzZY"

PLAIN = """
import io, sys
import numpy, onnxruntime, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
_, height, width, channels = session.get_inputs()[0].shape
app = FastAPI()


@app.get("/v2/health/ready")
async def ready():
    return {}


@app.post("/predict")
async def predict(file: UploadFile):
    image = Image.open(io.BytesIO(await file.read())).convert("L" if channels == 1 else "RGB")
    pixels = numpy.asarray(image.resize((width, height)))
    [answer] = session.run(None, {"image": pixels.reshape(1, height, width, channels)})[0]
    top = answer.argsort()[::-1][:5]
    return {"top": [{"label": int(at), "probability": float(answer[at])} for at in top]}


uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="warning")
"""
LITSERVE = """
import io, os, sys
import litserve, numpy, onnxruntime
from PIL import Image


class Classify(litserve.LitAPI):
    def setup(self, device):
        self.session = onnxruntime.InferenceSession(sys.argv[1])
        _, self.height, self.width, self.channels = self.session.get_inputs()[0].shape

    def decode_request(self, request):
        image = Image.open(io.BytesIO(request["file"].file.read()))
        image = image.convert("L" if self.channels == 1 else "RGB")
        return numpy.asarray(image.resize((self.width, self.height)))

    def predict(self, pixels):
        shape = (1, self.height, self.width, self.channels)
        return self.session.run(None, {"image": pixels.reshape(shape)})[0][0]

    def encode_response(self, answer):
        top = answer.argsort()[::-1][:5]
        return {"top": [{"label": int(at), "probability": float(answer[at])} for at in top]}


if __name__ == "__main__":
    workers = len(os.sched_getaffinity(0))
    server = litserve.LitServer(Classify(), accelerator="cpu", workers_per_device=workers)
    port = int(sys.argv[2])
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)
"""


# --- servers


def tinylens_command(model: Path, port: int, workers: int) -> list[str]:
    options = ("--port", str(port), "--workers", str(workers))
    return [sys.executable, "-m", "tinylens", "serve", f"bench={model}", *options]


def commands(model: Path, folder: Path, cores: int) -> dict[str, Callable[[int], list[str]]]:
    """Return, by the contender's name, what starts it on a port."""
    scripts = {"plain": PLAIN, "LitServe": LITSERVE}
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)
    return {
        "plain": lambda port: [sys.executable, str(folder / "plain.py"), str(model), str(port)],
        "LitServe": lambda port: [
            *(sys.executable, str(folder / "LitServe.py"), str(model), str(port))
        ],
        "tinylens, 1 worker": lambda port: tinylens_command(model, port, 1),
        f"tinylens, {cores} workers": lambda port: tinylens_command(model, port, cores),
    }


@contextlib.contextmanager
def serving(command: Callable[[int], list[str]]) -> Generator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server, and yield its port once it answers images."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(port), start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        _until_ready(port, process)
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers outlive it
        process.wait()


def _until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(port, "/predict", REQUESTS[0].partition(b"\r\n\r\n")[2]) == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"a server does not answer; exit code {process.poll()}")


def ask(port: int, path: str, body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def load(port: int, requests: Path, seconds: float, *more: object) -> dict[str, Any]:
    """Return what `traffic.py` counted."""
    program = str(Path(traffic.__file__))
    words = [program, str(port), str(requests), str(seconds), *map(str, more)]
    ended = subprocess.run([sys.executable, *words], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return MB in memory of a server and the processes that it started."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if int(status.parent.name) == process.pid or int(lines["PPid"]) == process.pid:
                total += int(lines.get("VmRSS", "0 kB").split()[0])
    return total / 1e3


# --- what is asked

REQUESTS: list[bytes] = []


def make_requests(model: Path, path: Path) -> list[bytes]:
    """Keep requests with the model's own sample images, as PNG files, and return the files."""
    from PIL import Image

    from tinylens.inference.classifier import Classifier

    golden = Classifier.open(model, threads=1).card.golden
    images = []
    for pixels in golden.images if golden is not None else []:
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
        images.append(file.getvalue())
        head = 'Content-Disposition: form-data; name="file"; filename="a.png"'
        kind = "Content-Type: image/png"
        body = f"--{BOUNDARY}\r\n{head}\r\n{kind}\r\n\r\n".encode() + images[-1]
        body += f"\r\n--{BOUNDARY}--\r\n".encode()
        REQUESTS.append(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
            b"Content-Type: multipart/form-data; boundary=%b\r\nContent-Length: %d\r\n\r\n%b"
            % (BOUNDARY.encode(), len(body), body)
        )
    traffic.write_requests(path, REQUESTS)
    return images


def bare_loop(model: Path, images: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Return µs an image for decoding and for bare onnxruntime, one after the other."""
    import onnxruntime
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    shape = (1, *session.get_inputs()[0].shape[1:])

    def decode(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(content))).reshape(shape)

    arrays = [decode(content) for content in images]
    decoding = _microseconds(lambda at: decode(images[at]), len(images), seconds)
    running = _microseconds(
        lambda at: session.run(None, {"image": arrays[at]}), len(images), seconds
    )
    return {
        "decode_us": decoding,
        "onnxruntime_us": running,
        "per_second": 1e6 / (decoding + running),
    }


def _microseconds(do: Callable[[int], object], count: int, seconds: float) -> float:
    calls, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        do(calls % count)
        calls += 1
    return 1e6 * (time.perf_counter() - begun) / calls


# --- the modes


def compare(model: Path, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Load all contenders in turn; return their rows, ratios, and the bare loop's figures."""
    cores = len(os.sched_getaffinity(0))
    file = folder / "requests"
    images = make_requests(model, file)
    started = commands(model, folder, cores)

    def run(contender: machine.Contender) -> dict[str, Any]:
        with serving(started[contender.name]) as (port, _):
            load(port, file, WARM_UP_SECONDS, CONNECTIONS)
            found = load(port, file, seconds, CONNECTIONS)
        if set(found) != {"200"}:
            raise RuntimeError(f"{contender.name} answered otherwise: {found}")
        return dict(found["200"])

    rows = machine.take_turns([machine.Contender(name, ()) for name in started], rounds, run)
    bare = bare_loop(model, images, seconds / 4)
    return {"rows": rows, "bare_loop": bare, "ratios": _ratios(rows, bare, cores)}


def _ratios(
    rows: dict[str, list[dict[str, Any]]], bare: dict[str, float], cores: int
) -> dict[str, machine.Ratio]:
    def of(name: str, key: str) -> list[float]:
        return [row[key] for row in rows[name]]

    one, many = "tinylens, 1 worker", f"tinylens, {cores} workers"
    rate, late = "per_second", "p99_ms"
    loop = [bare["per_second"]] * len(rows[many])
    return {
        "requests a second, all workers / plain": machine.ratio(of(many, rate), of("plain", rate)),
        "requests a second, 1 worker / plain": machine.ratio(of(one, rate), of("plain", rate)),
        "requests a second, all workers / LitServe": machine.ratio(
            of(many, rate), of("LitServe", rate)
        ),
        "p99, all workers / plain": machine.ratio(of(many, late), of("plain", late)),
        "p99, all workers / LitServe": machine.ratio(of(many, late), of("LitServe", late)),
        "requests a second, 1 worker / bare loop of one thread": machine.ratio(of(one, rate), loop),
        "requests a second, all workers / bare loop of one thread": machine.ratio(
            of(many, rate), loop
        ),
    }


@contextlib.contextmanager
def flood(
    port: int, requests: Path, seconds: float, rate: float
) -> Generator[list[subprocess.Popen[bytes]]]:
    """Ask from several processes at once, without waiting for answers."""
    words = [traffic.__file__, port, requests, seconds, FLOOD_CONNECTIONS, rate / FLOODERS]
    command = ["nice", "-n", "15", sys.executable, *map(str, words)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(FLOODERS)]
    try:
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def overload(model: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Ask ten times too much, and look at who is refused, who is answered, and the time after.

    The flood comes from processes that are at their own limits, so what they wait is partly their
    own doing. Times are those of a few more clients, in a process that has nothing else to do.
    """
    file, cores = folder / "requests", sorted(os.sched_getaffinity(0))
    make_requests(model, file)
    half = len(cores) // 2
    ours, theirs = cores[:half], cores[half:]
    os.sched_setaffinity(0, theirs)
    pinned = ["taskset", "-c", ",".join(map(str, ours))]
    with serving(lambda port: pinned + tinylens_command(model, port, half)) as (port, process):
        load(port, file, WARM_UP_SECONDS, CONNECTIONS)
        normal = load(port, file, 5, CONNECTIONS)["200"]
        before = memory(process)
        requested = 10 * normal["per_second"]
        with flood(port, file, seconds + 3, requested) as flooding:
            time.sleep(2)  # until all its connections are there
            probed = load(port, file, seconds, CONNECTIONS, PROBES_PER_SECOND)
            flooded = [json.loads(one.communicate()[0]) for one in flooding]
        after = memory(process)
        ended, well = time.perf_counter(), None
        while well is None and time.perf_counter() - ended < 30:
            again = load(port, file, 0.5, CONNECTIONS)
            if set(again) == {"200"} and again["200"]["p99_ms"] < 2 * normal["p99_ms"]:
                well = time.perf_counter() - ended
    return {
        "normal": normal,
        "asked_per_second": requested,
        "sent_per_second": sum(row["per_second"] for one in flooded for row in one.values()),
        "flood": flooded,
        "probes": probed,
        "seconds_to_normal": well,
        "memory_mb": {"before": before, "after": after},
    }


def soak(model: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Ask half of what can be carried, and look at the memory, every five seconds."""
    file, cores = folder / "requests", len(os.sched_getaffinity(0))
    make_requests(model, file)
    with serving(lambda port: tinylens_command(model, port, cores)) as (port, process):
        normal = load(port, file, 3, CONNECTIONS)["200"]
        program = [sys.executable, traffic.__file__, str(port), str(file), str(seconds)]
        half = normal["per_second"] / 2
        with subprocess.Popen([*program, "64", str(half)], stdout=subprocess.PIPE) as asking:
            begun, samples = time.perf_counter(), []
            while asking.poll() is None:
                samples.append((time.perf_counter() - begun, memory(process)))
                time.sleep(min(5, seconds / 10))
            found = json.loads(asking.stdout.read()) if asking.stdout else {}
    later = np.array([one for one in samples if one[0] > 0.1 * seconds])
    slope = float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0])
    return {"asked": found, "mb_a_minute": slope, "memory_mb": samples}


def swaps(model: Path, folder: Path, count: int) -> dict[str, Any]:
    """Replace the model under load, again and again, and count what fails."""
    from dataclasses import replace

    import onnx

    from tinylens.inference.model_file import seal, unseal

    file, cores, path = folder / "requests", len(os.sched_getaffinity(0)), folder / "bench.onnx"
    content = model.read_bytes()
    make_requests(model, file)
    proto = onnx.load_from_string(content)
    del proto.metadata_props[:]
    card = replace(unseal(content, model.name), dataset="the same, under another name")
    other = seal(card, proto.SerializeToString())
    path.write_bytes(content)
    with serving(lambda port: tinylens_command(path, port, cores)) as (port, _):
        seconds = 2.0 + 0.4 * count
        program = [sys.executable, traffic.__file__, str(port), str(file), str(seconds)]
        with subprocess.Popen([*program, str(CONNECTIONS)], stdout=subprocess.PIPE) as asking:
            done, times = 0, []
            while done < count and asking.poll() is None:
                path.write_bytes(other if done % 2 == 0 else content)
                begun = time.perf_counter()
                if ask(port, "/models/bench/reload", b"") != 200:
                    raise RuntimeError(f"swap {done} was refused")
                times.append(time.perf_counter() - begun)
                done += 1
            said = asking.communicate()[0]
    return {"swaps": done, "median_swap_seconds": float(np.median(times)), **json.loads(said)}


# --- the model


@contextlib.contextmanager
def a_model(given: Path | None) -> Generator[tuple[Path, Path]]:
    """Yield a model file and a folder to work in."""
    with tempfile.TemporaryDirectory(prefix="tinylens-serve-") as name:
        folder = Path(name)
        if given is None:
            given = folder / "run"
            train = ("-m", "tinylens", "train", "shapes", "--epochs", "1", "--out", str(given))
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([sys.executable, *train], check=True, **quiet)  # type: ignore[call-overload]
        yield given / "model.onnx" if given.is_dir() else given, folder


def show(results: dict[str, Any]) -> None:
    rows = [
        (name, *(f"{np.median([row[key] for row in mine]):,.1f}" for key in ROW))
        for name, mine in results["rows"].items()
    ]
    machine.print_table(("16 connections", "requests/s", "p50 ms", "p99 ms"), rows)
    bare = results["bare_loop"]
    print(
        f"\nbare loop: {bare['decode_us']:.0f} µs decoding, {bare['onnxruntime_us']:.0f} µs network"
    )
    machine.print_table(("ratio", ""), [(k, str(v)) for k, v in results["ratios"].items()])


ROW = ("per_second", "p50_ms", "p99_ms")


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("--run", type=Path, help="a run's folder, or a model.onnx")
    mode = parser.add_mutually_exclusive_group()
    for name in ("overload", "soak", "swaps"):
        mode.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    described = machine.describe()
    with a_model(given.run) as (model, folder):
        if given.overload:
            name, results = "serve_overload", overload(model, folder, 5 if given.quick else 60)
        elif given.soak:
            name, results = "serve_soak", soak(model, folder, 20 if given.quick else 600)
        elif given.swaps:
            name, results = "serve_swaps", swaps(model, folder, 5 if given.quick else 100)
        else:
            rounds, seconds = (1, 3.0) if given.quick else (5, 10.0)
            name, results = "serve", compare(model, folder, rounds, seconds)
    show(results) if name == "serve" else print(json.dumps(results, indent=1))
    path = machine.write_results(name, {"machine": described, **results})
    print(path.relative_to(machine.ROOT))


if __name__ == "__main__":
    main()
