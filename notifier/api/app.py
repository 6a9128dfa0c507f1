"""Builds the ASGI app from the route table and the ports behind it."""

from __future__ import annotations

from litestar import Litestar

from notifier.api.docs.openapi import openapi_document
from notifier.api.docs.reference import ReferenceRoutes
from notifier.api.http.problems import handle_exception
from notifier.api.http.public_address import PublicAddress
from notifier.api.routes.binding import bind_routes
from notifier.api.routes.failures import FailureRoutes
from notifier.api.routes.health import HealthRoutes
from notifier.api.routes.notifications import NotificationRoutes
from notifier.api.routes.pauses import PauseRoutes
from notifier.api.routes.providers import ProviderRoutes
from notifier.api.routes.queues import QueueRoutes
from notifier.api.routes.table import ROUTES
from notifier.api.routes.workers import WorkerRoutes
from notifier.api.rules import ApiRules
from notifier.ports.acceptor import Acceptor
from notifier.ports.controls import PauseStore
from notifier.ports.health import MetricsSource, ReadinessCheck
from notifier.ports.queries import Reader, StatusReader


def create_api(
    *,
    acceptor: Acceptor,
    reader: Reader,
    status: StatusReader,
    pauses: PauseStore,
    rules: ApiRules,
    readiness: ReadinessCheck,
    metrics: MetricsSource,
) -> Litestar:
    """Makes the ASGI app. Raises LookupError if the route table does not match the handlers."""
    address = PublicAddress(rules.public_url, rules.trusted_proxies)
    resources = (
        NotificationRoutes(acceptor=acceptor, reader=reader, rules=rules, address=address),
        FailureRoutes(reader=reader, rules=rules, address=address),
        QueueRoutes(status=status, rules=rules),
        ProviderRoutes(status=status, rules=rules),
        WorkerRoutes(reader=reader, rules=rules),
        PauseRoutes(status=status, store=pauses, rules=rules),
        HealthRoutes(readiness=readiness, metrics=metrics),
        ReferenceRoutes(openapi_document(ROUTES, rules), address),
    )
    return Litestar(
        route_handlers=bind_routes(ROUTES, resources),
        exception_handlers={Exception: handle_exception},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
