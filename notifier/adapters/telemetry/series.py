"""The series of one metric by key, bounded: whatever comes, a process has only so many."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

OTHER: Final = "other"

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")


class Children(dict[K, M], Generic[K, M]):
    """A plain lookup, where `labels()` formats and locks. All known keys are made at the start.

    A key not known at the start shares the series `other`.
    """

    def __init__(self, child: Callable[..., M], labels: int, keys: Iterable[K]) -> None:
        super().__init__((key, child(*_labels(key))) for key in keys)
        self._child, self._width = child, labels

    def __missing__(self, _: K) -> M:
        return self._child(*[OTHER] * self._width)


class FirstSeen(dict[tuple[str, str], M], Generic[M]):
    """Series by (owner, word), where words are the world's: the first `most` of each owner.

    The words that come later share its series `other`, as do all owners that are not known.
    """

    def __init__(self, child: Callable[[str, str], M], owners: Iterable[str], most: int) -> None:
        super().__init__()
        self._child = child
        self._left = dict.fromkeys(owners, most)

    def __missing__(self, key: tuple[str, str]) -> M:
        owner, _ = key
        if not self._left.get(owner):
            return self._child(owner if owner in self._left else OTHER, OTHER)
        self._left[owner] -= 1
        made = self[key] = self._child(*key)
        return made


class Distribution:
    """The observations of one series: how many up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """How many up to each bound, and in all."""
        return list(accumulate(self._counts))


class Distributions(Collector):
    """A histogram whose samples are made when it is scraped.

    The library's own takes locks and loops for every observation, an eighth of what an attempt
    costs in our own code.
    """

    def __init__(
        self, name: str, says: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name, self._says, self._labels = name, says, labels
        self._bounds = tuple(bounds)
        self._words = [*map(floatToGoString, bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Distribution] = {}

    def labels(self, *values: str) -> Distribution:
        """The series with these labels."""
        return self._series.setdefault(values, Distribution(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Its names, so that none is registered twice."""
        yield HistogramMetricFamily(self._name, self._says, labels=self._labels)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        (family,) = self.describe()
        for values, series in self._series.items():
            buckets = list(zip(self._words, series.cumulative(), strict=True))
            family.add_metric(values, buckets, series.sum)
        yield family


def _labels(key: object) -> tuple[str, ...]:
    return tuple(str(part) for part in key) if isinstance(key, tuple) else (str(key),)
