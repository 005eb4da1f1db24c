"""/metrics: the counts of all workers as Prometheus reads them, and what they say of drift."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from tinylens.inference import drift
from tinylens.serving.counters import BATCH, SECONDS, Counts
from tinylens.serving.hosted import CONFIDENCE_STEPS, Hosted

CONTENT_TYPE = b"text/plain; version=1.0.0; charset=utf-8"
LEAST_RECENT = 100  # images; an index of fewer says nothing

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily

_COUNTERS = {
    "requests": ("requests by path and status", ("path", "status")),
    "refused": ("requests refused before they were computed", ("reason",)),
    "images": ("images by what became of them", ("model", "outcome")),
    "model_seconds": ("seconds spent in the network", ("model",)),
    "decode_seconds": ("seconds spent on decoding small images", ()),
    "left": ("requests whose client did not wait for the answer", ()),
    "reloads": ("models that were to be replaced", ("model", "outcome")),
    "restarts": ("workers that ended and were started again", ()),
}
_GAUGES = {
    "waiting": "images whose answers are being made",
    "slow_waiting": "requests that wait for a map or for what the model saw",
    "workers": "processes that answer",
}
_HISTOGRAMS = {
    "seconds": ("from the last byte of a request to its answer, of /predict", SECONDS),
    "waited": ("that requests lay in the queue, in seconds", SECONDS),
    "batches": ("images in each call of the network", BATCH),
}


class _Families(Collector):
    def __init__(self, counts: Counts, models: Sequence[Hosted]) -> None:
        self._counts, self._models = counts, models

    def collect(self) -> Iterator[Family]:
        """Yield all families."""
        yield from _plain(self._counts)
        yield from _of_models(self._counts, self._models)
        yield from _of_drift(self._counts, self._models)


def expose(counts: Counts, models: Sequence[Hosted]) -> bytes:
    """Return the text of /metrics.

    Args:
        counts: of all workers.
        models: that are served.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(counts, models))
    return generate_latest(registry)


def _plain(counts: Counts) -> Iterator[Family]:
    for name, (text, labels) in _COUNTERS.items():
        counter = CounterMetricFamily(f"tinylens_{name}", text, labels=labels)
        for values, number in _of(counts, name):
            counter.add_metric(values, number)
        if not labels and not counter.samples:
            counter.add_metric((), 0)
        yield counter
    for name, text in _GAUGES.items():
        yield GaugeMetricFamily(f"tinylens_{name}", text, value=counts.get(name, 0))
    for name, (text, bounds) in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"tinylens_{name}", text)
        bins = [counts.get(f"{name}|{place}", 0) for place in range(len(bounds) + 1)]
        histogram.add_metric((), _cumulative(bins, bounds), counts.get(f"{name}|sum", 0))
        yield histogram


def _of_models(counts: Counts, models: Sequence[Hosted]) -> Iterator[Family]:
    info = InfoMetricFamily("tinylens_model", "models that are served", labels=("model",))
    text = "the probability of the likeliest class"
    confidence = HistogramMetricFamily("tinylens_confidence", text, labels=("model",))
    for model in models:
        info.add_metric((model.name,), {"sha256": model.sha256})
        keys = [f"confidence|{model.name}|{place}" for place in range(len(CONFIDENCE_STEPS) + 1)]
        bins = [counts.get(key, 0) for key in keys]
        total = counts.get(f"confidence|{model.name}|sum", 0)
        confidence.add_metric((model.name,), _cumulative(bins, CONFIDENCE_STEPS), total)
    yield info
    yield confidence


def _of_drift(counts: Counts, models: Sequence[Hosted]) -> Iterator[Family]:
    has = GaugeMetricFamily(
        "tinylens_drift_reference",
        "images that the model file's reference is made of; 0: it has none, and no drift is told",
        labels=("model",),
    )
    images = GaugeMetricFamily(
        "tinylens_drift_images", "recent images that are compared", labels=("model",)
    )
    index = GaugeMetricFamily(
        "tinylens_drift_psi",
        "population stability index of recent images against the reference (Siddiqi 2006)",
        labels=("model", "what"),
    )
    luck = GaugeMetricFamily(
        "tinylens_drift_psi_by_luck",
        "the index that images without drift exceed in one of 20 times (Yurdakul & Naranjo 2020)",
        labels=("model", "what"),
    )
    for model in models:
        known = model.watch.reference
        has.add_metric((model.name,), known.images if known else 0)
        if known is None:
            continue
        recent = {name: _recent(counts, model.name, name, known) for name in known.spreads}
        images.add_metric((model.name,), max(map(sum, recent.values()), default=0))
        for name, bins in recent.items():
            if sum(bins) >= LEAST_RECENT:
                psi = drift.stability_index(bins, known.spreads[name].shares)
                index.add_metric((model.name, name), psi)
                luck.add_metric((model.name, name), drift.by_luck(bins, known.images))
    yield from (has, images, index, luck)


def _recent(counts: Counts, model: str, name: str, known: drift.Reference) -> list[int]:
    places = range(len(known.spreads[name].shares))
    return [int(counts.get(f"recent|{model}|{name}|{place}", 0)) for place in places]


def _of(counts: Counts, name: str) -> Iterator[tuple[list[str], float]]:
    for key, number in sorted(counts.items()):
        first, *labels = key.split("|")
        if first == name:
            yield labels, number


def _cumulative(bins: Iterable[float], bounds: Sequence[float]) -> list[tuple[str, float]]:
    total, found = 0.0, []
    for number, bound in zip(bins, [*map(str, bounds), "+Inf"], strict=True):
        total += number
        found.append((bound, total))
    return found
