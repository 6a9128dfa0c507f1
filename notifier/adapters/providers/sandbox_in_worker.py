"""Type `sandbox`: a provider inside the worker that delivers nothing. Test keys send to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, assert_never

from notifier.adapters.providers.settings import SignedReceiptSettings
from notifier.domain.fates import Fate, ResponseKind, fate_of, response_kind
from notifier.domain.finding import Finding, ok
from notifier.domain.notification import SANDBOX
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.ports.provider import Envelope

DETAIL: Final = "the fate of the recipient"


class SandboxInWorkerSettings(
    SignedReceiptSettings, frozen=True, kw_only=True, tag_field="type", tag=SANDBOX
):
    """`[providers.<name>]` with `type = "sandbox"`. A call of the fate `hang` takes `timeout_s`."""


class SandboxInWorker:
    """Implements ports.provider.Provider: the outcome is the fate of the recipient."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name = name
        self._timeout_s = timeout_s

    async def send(self, envelope: Envelope) -> Outcome:
        """Send nothing. Each earlier claim of the notification counts as a call."""
        fate = fate_of(envelope.recipient)
        if fate is Fate.HANG:
            await asyncio.sleep(self._timeout_s)
        return _outcome(response_kind(fate, envelope.claim - 1), envelope)


def _outcome(kind: ResponseKind, envelope: Envelope) -> Outcome:
    match kind:
        case ResponseKind.ACCEPT:
            return Accepted(reference=f"test-{envelope.id}")
        case ResponseKind.REFUSE:
            return Refused(code=kind, detail=DETAIL)
        case ResponseKind.THROTTLE:
            return Throttled(code=kind, detail=DETAIL)
        case ResponseKind.UNAVAILABLE:
            return Unavailable(code=kind, detail=DETAIL)
        case ResponseKind.HANG:
            return Ambiguous(code="timeout", detail=DETAIL)
        case ResponseKind.CUT:
            return Ambiguous(code=kind, detail=DETAIL)
        case _:
            assert_never(kind)


@asynccontextmanager
async def open_sandbox_in_worker(
    name: str, settings: SandboxInWorkerSettings
) -> AsyncIterator[SandboxInWorker]:
    """Yield the provider."""
    yield SandboxInWorker(name, settings.timeout_s)


async def check_sandbox_in_worker(name: str, _: SandboxInWorkerSettings) -> Finding:
    """Return the finding of a provider that needs nothing."""
    return ok(f"provider {name}", "in the worker: it delivers nothing")
