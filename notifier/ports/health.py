"""What a health endpoint reads: the readiness of the process and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ReadinessCheck(Protocol):
    """Knows whether the process can do its work."""

    def why_not_ready(self) -> Sequence[str]:
        """Return the reasons why the process is not ready, none if it is ready."""
        ...


class MetricsSource(Protocol):
    """Holds the metrics of the process."""

    def render(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus's text format, and their content type."""
        ...
