"""`/v1/providers`: the state of every provider, and probes of those whose breaker is open."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of
from notifier.api.http.body import small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.notes import read_note
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import json_response
from notifier.api.responses import Provider, ProviderPage
from notifier.api.rules import ApiRules
from notifier.ports.controls import ProbeStore
from notifier.ports.queries import ProviderState, StatusReader

PROVIDERS: Final = "/v1/providers"


class ProviderRoutes:
    """Handlers of `/v1/providers`."""

    def __init__(self, *, status: StatusReader, probes: ProbeStore, rules: ApiRules) -> None:
        self._status = status
        self._probes = probes
        self._deadline_s = rules.request_deadline_s
        self._limit = small_body_limit(rules)

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        async with deadline(self._deadline_s):
            states = await self._status.providers()
        return page_response(request, ProviderPage([Provider.of(state) for state in states]))

    async def probe(self, request: Request[Any, Any, Any]) -> ASGIApp:
        note = await read_note(request, self._limit)
        name = str(request.path_params["provider"])
        async with deadline(self._deadline_s):
            await self._find(name)
            await self._probes.probe_now(name, note, author_of(request.scope))
            state = await self._find(name)
        return json_response(Provider.of(state))

    async def _find(self, name: str) -> ProviderState:
        """Returns the state of a provider. Raises RequestRefused if there is none of this name."""
        states = {state.provider: state for state in await self._status.providers()}
        if name in states:
            return states[name]
        names = ", ".join(states) or "none"
        detail = f"There is no provider of this name. There are: {names}."
        raise RequestRefused(
            ProblemType.NOT_FOUND.problem(detail, field="provider", expected=f"one of {names}")
        )
