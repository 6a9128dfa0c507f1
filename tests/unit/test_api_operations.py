"""Requests to cancel and retry notifications, over stores in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from notifier.domain.errors import FeatureUnavailable
from notifier.domain.lookups import LookupRules
from notifier.domain.notification import NotificationId, Status
from notifier.domain.operations import OperationKind
from notifier.ports.queries import ALL_LIVE
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client, submit_body
from tests.unit.fakes_operations import MemoryOperations

NOTIFICATIONS, OPERATIONS = "/v1/notifications", "/v1/operations"
RULES = make_rules(
    lookups=LookupRules(recipient=True, tag=True, reference=True, metadata_keys=("order_id",))
)
WAITING = ("queued", "retrying", "scheduled")


@dataclass(frozen=True, kw_only=True)
class Api:
    client: aiohttp.ClientSession
    store: MemoryStore
    operations: MemoryOperations

    async def post(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        async with self.client.post(path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def submitted(self, status: Status = Status.QUEUED) -> str:
        _, accepted = await self.post(NOTIFICATIONS, submit_body())
        id_ = NotificationId(UUID(accepted["id"]))
        self.store.views[id_] = replace(self.store.views[id_], status=status)
        return str(id_)

    async def change(self, verb: str, id_: str, body: object = None) -> tuple[int, Any]:
        return await self.post(f"{NOTIFICATIONS}/{id_}/{verb}", {} if body is None else body)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    operations = MemoryOperations(store)
    async with open_client(make_api(store, RULES, operations=operations)) as client:
        yield Api(client=client, store=store, operations=operations)


def erasure(**changes: object) -> dict[str, object]:
    asked_for = {"recipient": "Ada <Ada@example.com>", "channel": "email"}
    return {"kind": "erase", "filter": asked_for, "note": "by letter", **changes}


def asked(**changes: object) -> dict[str, object]:
    return {"kind": "cancel", "filter": {"tag": "sale"}, "note": "wrong price", **changes}


def errors_of(problem: Any) -> set[str]:
    return {error["field"] for error in problem["errors"]}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SCHEDULED, Status.RETRYING])
async def test_what_waits_is_cancelled_and_a_repeat_is_answered_alike(
    api: Api, status: Status
) -> None:
    id_ = await api.submitted(status)
    for _ in range(2):
        code, document = await api.change("cancel", id_, {"note": "wrong price"})
        assert (code, document["id"], document["status"]) == (200, id_, "cancelled")


@pytest.mark.parametrize("status", [Status.SENDING, Status.SENT, Status.FAILED, Status.EXPIRED])
async def test_what_does_not_wait_is_not_cancelled(api: Api, status: Status) -> None:
    code, problem = await api.change("cancel", await api.submitted(status))
    assert (code, problem["type"]) == (409, "urn:notifier:problem:wrong-status")
    assert problem["current_status"] == status


@pytest.mark.parametrize(
    "status", [Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.SUPPRESSED]
)
async def test_what_has_ended_is_retried(api: Api, status: Status) -> None:
    code, document = await api.change("retry", await api.submitted(status))
    assert (code, document["status"]) == (200, "queued")


@pytest.mark.parametrize("status", [Status.SENT, Status.QUEUED, Status.SENDING])
async def test_what_is_sent_or_waits_is_not_retried(api: Api, status: Status) -> None:
    code, problem = await api.change("retry", await api.submitted(status))
    assert (code, problem["current_status"]) == (409, status)
    assert ("submit it again" in problem["detail"]) is (status is Status.SENT)


async def test_a_retry_to_a_suppressed_recipient_is_refused(api: Api) -> None:
    api.operations.suppresses = True
    code, problem = await api.change("retry", await api.submitted(Status.FAILED))
    assert (code, problem["type"]) == (409, "urn:notifier:problem:recipient-suppressed")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("id_", ["0192f0c1-0000-7000-8000-000000000000", "x", "%00"])
async def test_an_unknown_id_is_not_found(api: Api, verb: str, id_: str) -> None:
    code, problem = await api.change(verb, id_)
    assert (code, problem["type"]) == (404, "urn:notifier:problem:not-found")


@pytest.mark.parametrize("note", ["a\nb", "a\x00b", "x" * 301, 7])
async def test_a_note_is_one_line(api: Api, note: object) -> None:
    code, problem = await api.change("cancel", await api.submitted(), {"note": note})
    assert (code, errors_of(problem)) == (400, {"note"})


async def test_an_operation_is_stored_with_its_filter(api: Api) -> None:
    filter_ = {
        "tag": ["a,b", "c"],
        "metadata.order_id": "17",
        "recipient": "Ada <ada@example.com>",
        "priority": ["high", "low"],
        "channel": "email",
        "created_from": "2026-01-31T08:00:00+01:00",
    }
    code, document = await api.post(OPERATIONS, asked(filter=filter_))
    assert (code, document["status"], document["filter"]) == (202, "running", filter_)
    (new,) = api.operations.asked
    selection = new.selection
    assert selection.tag == ("a,b", "c")
    assert selection.metadata == (("order_id", ("17",)),)
    assert selection.recipient == ("ada@example.com",)
    assert (selection.priority, selection.channel) == (("high", "low"), ("email",))
    assert (selection.status, selection.view) == (WAITING, ALL_LIVE)
    assert (document["rate_per_s"], document["dry_run"], document["actor"]) == (
        None,
        False,
        "anonymous",
    )
    async with api.client.get(f"{OPERATIONS}/{document['id']}") as response:
        assert await response.json() == document
    async with api.client.get(OPERATIONS) as response:
        assert await response.json() == {"items": [document], "next_cursor": None}


async def test_a_retry_concerns_what_failed_and_has_a_rate(api: Api) -> None:
    _, document = await api.post(OPERATIONS, asked(kind="retry"))
    (new,) = api.operations.asked
    assert (new.kind, new.selection.status, new.rate_per_s) == (
        OperationKind.RETRY,
        ("failed",),
        10.0,
    )
    assert document["rate_per_s"] == 10.0


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"filter": {}}, {"filter"}),
        ({"filter": {"tag": []}}, {"filter.tag"}),
        ({"filter": {"tag": {"x": 1}}}, {"filter"}),
        ({"filter": []}, {"filter"}),
        ({"filter": {"tags": "sale"}}, {"filter.tags"}),
        ({"filter": {"q": "ada@example.com"}}, {"filter.q"}),
        ({"filter": {"limit": "1"}}, {"filter.limit"}),
        ({"filter": {"metadata.colour": "red"}}, {"filter.metadata.colour"}),
        ({"filter": {"status": "sent"}}, {"filter.status"}),
        ({"filter": {"status": ["queued", "failed"]}}, {"filter.status"}),
        ({"kind": "retry", "filter": {"status": "queued"}}, {"filter.status"}),
        ({"filter": {"tag": "sale", "code": "550"}}, {"filter.status"}),
        ({"filter": {"tag": "a", "tenant": "No", "mode": "x"}}, {"filter.tenant", "filter.mode"}),
        ({"filter": {"mode": "live"}}, {"filter"}),
        ({"filter": {"created_from": "yesterday"}}, {"filter.created_from"}),
        ({"filter": {"ids": ["x"]}}, {"filter.ids"}),
        ({"filter": {"ids": [str(uuid4())], "tag": "sale"}}, {"filter.ids"}),
        ({"filter": {"ids": [str(uuid4()) for _ in range(1001)]}}, {"filter.ids"}),
        ({"kind": "move"}, {"kind"}),
        ({"note": ""}, {"note"}),
        ({"note": "a\nb"}, {"note"}),
        ({"rate_per_s": 0}, {"rate_per_s"}),
        ({"rate_per_s": 1e9}, {"rate_per_s"}),
        ({"colour": "red"}, {"colour"}),
    ],
)
async def test_a_wrong_operation_is_refused_with_its_fields(
    api: Api, changes: dict[str, object], fields: set[str]
) -> None:
    code, problem = await api.post(OPERATIONS, asked(**changes))
    assert (code, errors_of(problem)) == (400, fields)
    assert not api.operations.stored


async def test_a_dry_run_counts_and_stores_nothing(api: Api) -> None:
    ids = {await api.submitted() for _ in range(3)}
    body = asked(filter={"status": "queued"}, dry_run=True)
    code, document = await api.post(OPERATIONS, body)
    assert (code, document["id"], document["status"]) == (200, None, "finished")
    assert (document["matched"], document["matched_is_exact"]) == (3, True)
    assert set(document["sample"]) == ids
    assert not api.operations.stored


async def test_a_repeat_with_the_key_is_answered_with_the_first_operation(api: Api) -> None:
    key = {"Idempotency-Key": "k1"}
    _, first = await api.post(OPERATIONS, asked(), key)
    async with api.client.post(OPERATIONS, json=asked(), headers=key) as response:
        assert (response.status, response.headers["Idempotent-Replayed"]) == (202, "true")
        assert await response.json() == first
    code, problem = await api.post(OPERATIONS, asked(note="another"), key)
    assert (code, problem["type"]) == (422, "urn:notifier:problem:idempotency-mismatch")


async def test_too_many_operations_are_refused(api: Api) -> None:
    api.operations.max_running = 0
    code, problem = await api.post(OPERATIONS, asked())
    assert (code, problem["type"]) == (409, "urn:notifier:problem:in-use")


async def test_an_operation_is_stopped_once(api: Api) -> None:
    _, made = await api.post(OPERATIONS, asked())
    for _ in range(2):
        code, document = await api.post(f"{OPERATIONS}/{made['id']}/stop", {"note": "wrong tag"})
        assert (code, document["status"]) == (200, "stopped")
    async with api.client.get(f"{OPERATIONS}?status=stopped&kind=cancel") as response:
        assert len((await response.json())["items"]) == 1
    async with api.client.get(f"{OPERATIONS}?status=running") as response:
        assert (await response.json())["items"] == []


async def test_the_pages_of_operations_are_read_by_a_cursor(api: Api) -> None:
    made = [(await api.post(OPERATIONS, asked()))[1]["id"] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        async with api.client.get(OPERATIONS, params=query) as response:
            page = await response.json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]


@pytest.mark.parametrize("path", ["/x", "/0192f0c1-0000-7000-8000-000000000000"])
async def test_an_unknown_operation_is_not_found(api: Api, path: str) -> None:
    async with api.client.get(OPERATIONS + path) as response:
        assert response.status == 404
    code, problem = await api.post(f"{OPERATIONS}{path}/stop", {})
    assert (code, problem["type"]) == (404, "urn:notifier:problem:not-found")


async def test_an_erasure_takes_the_recipient_and_shows_it_nowhere(api: Api) -> None:
    code, document = await api.post(OPERATIONS, erasure())
    assert (code, document["kind"]) == (202, "erase")
    assert document["filter"] == {"recipient": None, "channel": "email"}
    (new,) = api.operations.asked
    assert (new.selection.recipient, new.selection.channel) == (("ada@example.com",), ("email",))
    code, counted = await api.post(OPERATIONS, erasure(dry_run=True))
    assert (code, counted["filter"]["recipient"]) == (200, None)


async def test_an_erasure_needs_no_lookups_of_recipients() -> None:
    store = MemoryStore()
    operations = MemoryOperations(store)
    rules = make_rules(lookups=LookupRules())
    async with open_client(make_api(store, rules, operations=operations)) as client:
        api = Api(client=client, store=store, operations=operations)
        assert (await api.post(OPERATIONS, erasure()))[0] == 202


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"filter": {"channel": "email"}}, {"filter.recipient"}),
        ({"filter": {}}, {"filter.recipient"}),
        ({"filter": {"recipient": ["a@example.com", "b@example.com"]}}, {"filter.recipient"}),
        ({"filter": {"recipient": "a@example.com", "status": "sent"}}, {"filter.status"}),
        ({"filter": {"recipient": "a@example.com", "tag": "sale"}}, {"filter.tag"}),
        ({"filter": {"recipient": "a@example.com", "ids": [str(uuid4())]}}, {"filter.ids"}),
        ({"filter": {"recipient": "a@example.com", "channel": "fax"}}, {"filter.channel"}),
        ({"note": "for ADA@example.com"}, {"note"}),
        ({"note": ""}, {"note"}),
        ({"rate_per_s": 5}, {"rate_per_s"}),
    ],
)
async def test_a_wrong_erasure_is_refused_with_its_fields(
    api: Api, changes: dict[str, object], fields: set[str]
) -> None:
    code, problem = await api.post(OPERATIONS, erasure(**changes))
    assert (code, errors_of(problem)) == (400, fields)
    assert not api.operations.stored


async def test_an_erasure_is_refused_while_a_worker_would_keep_answers_of_what_was_erased(
    api: Api,
) -> None:
    api.store.lacking = FeatureUnavailable("erasure", "a worker does not understand it")
    code, problem = await api.post(OPERATIONS, erasure())
    assert (code, problem["type"]) == (503, "urn:notifier:problem:feature-unavailable")
    assert (await api.post(OPERATIONS, asked()))[0] == 202


async def test_what_was_erased_has_no_recipient_and_no_content(api: Api) -> None:
    id_ = await api.submitted(Status.FAILED)
    key = NotificationId(UUID(id_))
    view = replace(api.store.views[key], recipient="", content=b"")
    api.store.views[key] = view
    api.operations.content_is_gone = True
    async with api.client.get(f"{NOTIFICATIONS}/{id_}?include=content") as response:
        document = await response.json()
    assert (document["recipient"], document["content"]) == (None, None)
    code, problem = await api.change("retry", id_)
    assert (code, problem["type"]) == (409, "urn:notifier:problem:content-gone")
