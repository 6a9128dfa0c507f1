"""The client of the command line reads responses of newer APIs, which may have more fields."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from notifier.api.responses import (
    Accepted,
    DeletedPause,
    Explanation,
    Notification,
    NotificationPage,
    PausePage,
    ProviderPage,
    QueuePage,
)
from notifier.cli.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
AT = "2030-01-31T08:00:00Z"
SUMMARY: dict[str, object] = {
    "id": ID,
    "status": "sent",
    "tenant": "default",
    "mode": "live",
    "channel": "email",
    "priority": "high",
    "queue": "email.high",
    "recipient": "ada@example.com",
    "replaced_by": None,
    "tag": None,
    "topic": None,
    "provider": "smtp",
    "reference": "2.0.0 queued",
    "result": {
        "reason": None,
        "provider": "smtp",
        "code": "250",
        "detail": None,
        "at": AT,
        "new_field": 1,
    },
    "tries": 1,
    "max_tries": None,
    "last_error": None,
    "metadata": {},
    "created_at": AT,
    "updated_at": AT,
    "due_at": None,
    "expires_at": AT,
}
ATTEMPT: dict[str, object] = {
    "number": 1,
    "provider": "smtp",
    "outcome": "accepted",
    "code": "250",
    "http_status": None,
    "detail": None,
    "reference": None,
    "queue_wait_s": 0.1,
    "started_at": AT,
    "finished_at": AT,
    "next_at": None,
    "repeats": 0,
    "late": False,
    "new_field": 1,
}
QUEUE: dict[str, object] = {
    "queue": "email.high",
    "ready": 1,
    "due": 2,
    "due_is_exact": True,
    "consumers": 3,
    "busy": 1,
    "rate_per_s": 1.5,
    "oldest_wait_s": 0.1,
    "limited_by": None,
    "limited_by_detail": None,
    "paused": False,
    "configured": True,
    "foreign": 0,
}
PROVIDER: dict[str, object] = {
    "provider": "smtp",
    "channels": ["email"],
    "breaker": "closed",
    "reason": None,
    "code": None,
    "since_at": None,
    "probe_at": None,
    "paused": False,
    "calls": 1,
    "failures": 0,
    "hanging": [],
}
PAUSE: dict[str, object] = {
    "kind": "queue",
    "name": "email.high",
    "note": None,
    "paused_at": AT,
    "expires_at": None,
    "matches": True,
}
BLOCKER: dict[str, object] = {
    "kind": "tenant_turn",
    "name": None,
    "until_at": None,
    "detail": None,
    "new_field": 1,
}
EXPLANATION: dict[str, object] = {
    "id": ID,
    "status": "queued",
    "queue": "email.high",
    "as_of_at": AT,
    "expires_at": AT,
    "blockers": [BLOCKER],
    "ahead": {"count": 7, "is_exact": True, "new_field": 1},
    "expected": {"earliest_at": AT, "latest_at": None, "new_field": 1},
}
RESPONSES: Mapping[type[msgspec.Struct], dict[str, object]] = {
    Accepted: {"id": ID, "status": "queued", "queue": "email.high"},
    Notification: {**SUMMARY, "content": {}, "attempts": [ATTEMPT]},
    NotificationPage: {"items": [{**SUMMARY, "new_field": 1}], "next_cursor": None},
    QueuePage: {"items": [QUEUE | {"new_field": 1}], "next_cursor": None},
    ProviderPage: {"items": [PROVIDER | {"new_field": 1}], "next_cursor": None},
    PausePage: {"items": [PAUSE | {"new_field": 1}], "next_cursor": None},
    DeletedPause: {"was_paused": True},
    Explanation: EXPLANATION,
}


@dataclass(frozen=True)
class FakeResponse:
    content: bytes
    status: int = 200
    ok: bool = True

    async def read(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class FakeSession:
    content: bytes

    @asynccontextmanager
    async def request(
        self, _method: str, _url: str, **_options: object
    ) -> AsyncIterator[FakeResponse]:
        yield FakeResponse(self.content)


@pytest.mark.parametrize("struct", RESPONSES, ids=lambda struct: struct.__name__)
async def test_an_unknown_field_of_a_response_is_ignored(struct: type[msgspec.Struct]) -> None:
    document = {**RESPONSES[struct], "new_field": {"of": "a newer API"}}
    session = cast("aiohttp.ClientSession", FakeSession(msgspec.json.encode(document)))
    read = await Client("http://127.0.0.1:8000", session).get("/path", struct)
    assert isinstance(read, struct)
