"""Metrics for Prometheus: requests and their times, texts, reviews, and the state of the engine."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SafetyCounters = Callable[[], dict[str, dict[tuple[str, ...], int]]]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of times."""


class ServerMetrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, stats: Callable[[], Any], safety: SafetyCounters | None = None):
        """
        Args:
            stats: returns the state of the engine, a dataclass of numbers, when metrics are read.
            safety: returns the counters of the safety page.
        """
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("dragoman_requests", "Requests answered.", ["operation", "status", "key"], **options)
        self.seconds = Histogram(
            "dragoman_request_seconds", "Time to the answer.", ["operation"], buckets=SECONDS, **options
        )
        self.first = Histogram(
            "dragoman_first_piece_seconds", "Time to first token (TTFT) of a stream.", buckets=SECONDS, **options
        )
        self.texts = Counter("dragoman_texts", "Texts translated or continued.", ["model"], **options)
        self.characters = Counter("dragoman_characters", "Characters of these texts.", ["model"], **options)
        self.reviews = Counter(
            "dragoman_reviews", "Translations with a warning or below the wanted confidence.", ["model"], **options
        )
        self.registry.register(_EngineCollector(stats))
        if safety is not None:
            self.registry.register(_SafetyCollector(safety))

    def answered(self, operation: str, status: int, seconds: float, notes: dict[str, Any]) -> None:
        """Count an answered request."""
        self.requests.labels(operation, str(status), notes.get("key", "")).inc()
        self.seconds.labels(operation).observe(seconds)
        if status < 400 and "texts" in notes:
            model = notes["model"]
            self.texts.labels(model).inc(notes["texts"])
            self.characters.labels(model).inc(notes["characters"])
            self.reviews.labels(model).inc(notes.get("reviews", 0))

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry)


class _SafetyCollector(Collector):
    """Reads the counters of the safety page when metrics are collected."""

    def __init__(self, counters: SafetyCounters):
        self.counters = counters

    def describe(self) -> Iterator[Metric]:
        """Name no metrics beforehand: the page says which there are."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield each counter with its labels."""
        from dragoman.serve.safety.page import LABELS

        for name, counted in self.counters().items():
            family = CounterMetricFamily(f"dragoman_{name}", name.replace("_", " "), labels=LABELS[name])
            for labels, number in counted.items():
                family.add_metric(labels, number)
            yield family


class _EngineCollector(Collector):
    """Reads the state of the engine when metrics are collected."""

    def __init__(self, stats: Callable[[], Any]):
        self.stats = stats

    def describe(self) -> Iterator[Metric]:
        """Name no metrics beforehand: the engine says which there are."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield each number of the engine's state; those that only grow are counters."""
        yield from _families("dragoman_service", self.stats())


def _families(prefix: str, stats: Any) -> Iterator[Metric]:
    for field in dataclasses.fields(stats):
        value, name = getattr(stats, field.name), f"{prefix}_{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _families(f"dragoman_{field.name}", value)
        elif isinstance(value, int | float | dict):
            kind = CounterMetricFamily if field.name in GROWING else GaugeMetricFamily
            labels = ("model",) if isinstance(value, dict) else ()
            family = kind(name, field.name.replace("_", " "), labels=labels)
            for own, number in _labelled(value):
                family.add_metric(own, number)
            yield family


def _labelled(value: float | dict[str, float]) -> list[tuple[list[str], float]]:
    """Return numbers with their labels: one for each model, or one without."""
    if isinstance(value, dict):
        return [([name], float(number)) for name, number in value.items()]
    return [([], float(value))]


GROWING = ("answered", "failed", "refused", "steps", "tokens", "prefix_hits")
"""Numbers of the service and its engine that only grow."""
