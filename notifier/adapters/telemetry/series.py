"""The label sets of one metric, bounded: a process has a fixed number of series."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from itertools import accumulate
from typing import Final, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from notifier.adapters.telemetry.label_values import OTHER, LabelValues
from notifier.domain.notification import QueueKey

SUM: Final = sum
MAX: Final = max
"""How the values of several queues make that of the gauge that they share."""

Combine = Callable[[Iterable[float]], float]

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")


class Children(dict[K, M], Generic[K, M]):
    """The series of a metric by key, where `labels()` of the library would format and lock.

    All known keys get their series at the start. Every other key shares the series `other`.
    """

    def __init__(
        self, child: Callable[..., M], label_count: int, series: Iterable[tuple[K, M]]
    ) -> None:
        super().__init__(series)
        self._child, self._label_count = child, label_count

    def __missing__(self, _: K) -> M:
        return self._child(*[OTHER] * self._label_count)


class FirstSeen(dict[tuple[str, str], M], Generic[M]):
    """Series by (owner, value) for values that others choose, such as a provider's codes.

    The first `limit` values of each owner get their own series. Later values share the owner's
    series `other`, and all unknown owners share one.
    """

    def __init__(self, child: Callable[[str, str], M], owners: Iterable[str], limit: int) -> None:
        super().__init__()
        self._child = child
        self._left = dict.fromkeys(owners, limit)

    def __missing__(self, key: tuple[str, str]) -> M:
        owner, _ = key
        if not self._left.get(owner):
            return self._child(owner if owner in self._left else OTHER, OTHER)
        self._left[owner] -= 1
        series = self[key] = self._child(*key)
        return series


class Count:
    """The number of one series of a counter."""

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count `amount` more."""
        self.value += amount


class Settable(Protocol):
    """The value of one key in a gauge."""

    def set(self, value: float) -> None:
        """Replace the value."""
        ...


class SharedGauge:
    """One series of a gauge for several keys, of each of which the last value is kept."""

    def __init__(self, gauge: Gauge, combine: Combine) -> None:
        self._gauge, self._combine = gauge, combine
        self._values: list[float] = []

    def part(self) -> GaugePart:
        """Return what sets the value of one more key."""
        self._values.append(0.0)
        return GaugePart(self, len(self._values) - 1)

    def set(self, index: int, value: float) -> None:
        """Replace the value of one key."""
        if self._values[index] != value:
            self._values[index] = value
            self._gauge.set(self._combine(self._values))


class GaugePart:
    """The value of one key in a shared gauge."""

    def __init__(self, shared: SharedGauge, index: int) -> None:
        self._shared, self._index = shared, index

    def set(self, value: float) -> None:
        """Replace the value."""
        self._shared.set(self._index, value)


class Counts(Collector):
    """A counter that builds its samples when it is scraped.

    The library's counter checks and locks at every increment. An attempt counts four times.
    """

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self._name, self._help_text = name, help_text
        self.label_names = labels
        self._series: dict[tuple[str, ...], Count] = {}

    def labels(self, *values: str) -> Count:
        """Return the series with these labels."""
        return self._series.setdefault(values, Count())

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Return the family without samples; the registry refuses a second one of its name."""
        yield CounterMetricFamily(self._name, self._help_text, labels=self.label_names)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the family with its samples."""
        (family,) = self.describe()
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family


class Distribution:
    """The observations of one series: a count per bucket, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """Return how many observations are up to each bound; the last number is the total."""
        return list(accumulate(self._counts))


class Distributions(Collector):
    """A histogram that builds its samples when it is scraped.

    The library's histogram locks and loops at every observation, which took an eighth of the time
    that our own code spends on an attempt.
    """

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name, self._help_text, self._labels = name, help_text, labels
        self._bounds = tuple(bounds)
        self._bucket_names = [*map(floatToGoString, bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Distribution] = {}

    def labels(self, *values: str) -> Distribution:
        """Return the series with these labels."""
        return self._series.setdefault(values, Distribution(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Return the family without samples; the registry refuses a second one of its name."""
        yield HistogramMetricFamily(self._name, self._help_text, labels=self._labels)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the family with its samples."""
        (family,) = self.describe()
        for values, series in self._series.items():
            buckets = list(zip(self._bucket_names, series.cumulative(), strict=True))
            family.add_metric(values, buckets, series.sum)
        yield family


class SeriesFactory:
    """Registers metrics named `notifier_*` and makes their series."""

    def __init__(self, registry: CollectorRegistry, queues: Collection[QueueKey] = ()) -> None:
        self.registry = registry
        self._values = LabelValues(queues)

    def counter(
        self, name: str, help_text: str, labels: Sequence[str], keys: Iterable[K]
    ) -> Children[K, Count]:
        """Return a counter's series, one per key."""
        metric = self.open_counter(name, help_text, labels)
        series = ((key, metric.labels(*self._values.of(labels, key))) for key in keys)
        return Children(metric.labels, len(labels), series)

    def open_counter(self, name: str, help_text: str, labels: Sequence[str]) -> Counts:
        """Return a counter whose series are made when they are first asked for."""
        metric = Counts(f"notifier_{name}", help_text, labels)
        self.registry.register(metric)
        return metric

    def gauge(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        keys: Iterable[K],
        combine: Combine = MAX,
    ) -> Children[K, Settable]:
        """Return a gauge's series, one per key; `combine` makes the value of shared ones."""
        metric = Gauge(f"notifier_{name}", help_text, labels, registry=self.registry)
        shared = dict[tuple[str, ...], SharedGauge]()
        series = list[tuple[K, Settable]]()
        for key in keys:
            values = self._values.of(labels, key)
            child: Settable = metric.labels(*values)
            if self._values.is_shared(labels, key):
                gauge = shared.setdefault(values, SharedGauge(metric.labels(*values), combine))
                child = gauge.part()
            series.append((key, child))
        return Children(metric.labels, len(labels), series)

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        keys: Iterable[K],
        buckets: Sequence[float],
    ) -> Children[K, Distribution]:
        """Return a histogram's series, one per key."""
        metric = Distributions(f"notifier_{name}", help_text, labels, buckets)
        self.registry.register(metric)
        series = ((key, metric.labels(*self._values.of(labels, key))) for key in keys)
        return Children(metric.labels, len(labels), series)
