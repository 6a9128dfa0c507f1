"""`/health`, `/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

import msgspec
from litestar.types import ASGIApp

from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.responses import Health
from notifier.ports.health import MetricsSource, ReadinessCheck


class HealthRoutes:
    """Handlers of the health checks and of the metrics."""

    def __init__(self, *, readiness: ReadinessCheck, metrics: MetricsSource) -> None:
        self._readiness = readiness
        self._metrics = metrics

    async def live(self) -> ASGIApp:
        return json_response(Health("live"))

    async def ready(self) -> ASGIApp:
        reasons = self._readiness.why_not_ready()
        if reasons:
            problem = ProblemType.NOT_READY.problem("; ".join(reasons))
            raise RequestRefused(
                msgspec.structs.replace(problem, reasons=reasons), {"Retry-After": "1"}
            )
        return json_response(Health("ready"))

    async def metrics(self) -> ASGIApp:
        text, media_type = self._metrics.render()
        return RawResponse(200, text, [(b"content-type", media_type.encode())])
