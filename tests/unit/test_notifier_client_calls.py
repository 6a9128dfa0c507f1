"""What the client asks for, and how it reads the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from notifier import __version__ as version_of_the_product
from notifier.api import requests, responses
from notifier.api.routes.notifications import LOOKUP_FILTERS, NOTIFICATION_FILTERS
from notifier.domain.notification import FINAL
from notifier_client import (
    FINAL_STATUSES,
    Accepted,
    Blob,
    Explanation,
    FieldError,
    InvalidRequest,
    NotFound,
    Notification,
    NotifierError,
    Unavailable,
    WrongStatus,
)
from notifier_client.decoding import Undecodable, decode
from notifier_client.documents import Attempt, FallbackState, Receipt, Result
from notifier_client.exchange import Answer
from notifier_client.filters import Filters, query_of
from notifier_client.instants import parse_instant
from notifier_client.submits import Fallback, SubmitFields, batches, submit_document
from notifier_client.version import __version__
from tests.client_steps import Player, accepted, answer, problem, refusal, row

MAIL = {"channel": "email", "recipient": "ada@example.com"}
BERLIN = timezone(timedelta(hours=1))


def members(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def test_the_client_is_released_with_the_product() -> None:
    assert __version__ == version_of_the_product


def test_the_client_has_every_field_of_a_submit() -> None:
    content = {name if name != "from" else "from_" for name in members(requests.Content)}
    submit = members(requests.Submit) - {"content", "channel", "recipient"}
    assert set(SubmitFields.__annotations__) == submit | content
    assert set(Fallback.__annotations__) == (members(requests.Fallback) - {"content"}) | content


def test_the_client_has_every_filter_and_final_status() -> None:
    assert set(Filters.__annotations__) == {*NOTIFICATION_FILTERS, *LOOKUP_FILTERS}
    assert {*FINAL} == FINAL_STATUSES


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Accepted, responses.Accepted),
        (Notification, responses.Notification),
        (Attempt, responses.Attempt),
        (Blob, responses.Blob),
        (Receipt, responses.Receipt),
        (Result, responses.Result),
        (FallbackState, responses.FallbackState),
        (Explanation, responses.Explanation),
        (FieldError, responses.FieldError),
    ],
)
def test_the_client_has_every_field_of_an_answer(ours: Any, theirs: type[msgspec.Struct]) -> None:
    own = {"is_replay", "idempotency_key"} if ours is Accepted else set()
    assert set(ours.__dataclass_fields__) - own == members(theirs)


def test_what_the_recipient_sees_goes_into_content() -> None:
    document = submit_document(
        {
            **MAIL,
            "priority": "high",
            "subject": "Hi",
            "from_": "Shop <shop@example.com>",
            "html": None,
            "send_at": datetime(2027, 1, 31, 9, tzinfo=BERLIN),
            "attachments": [{"filename": "a.pdf", "content_type": "a/b", "data": b"\0\xff"}],
            "fallback": {"after_s": 60, "channel": "sms", "recipient": "+1", "body": "Hi"},
        },
        "k",
    )
    assert document == {
        **MAIL,
        "priority": "high",
        "send_at": "2027-01-31T09:00:00+01:00",
        "fallback": {
            "after_s": 60,
            "channel": "sms",
            "recipient": "+1",
            "content": {"body": "Hi"},
        },
        "idempotency_key": "k",
        "content": {
            "subject": "Hi",
            "from": "Shop <shop@example.com>",
            "attachments": [{"filename": "a.pdf", "content_type": "a/b", "data": "AP8="}],
        },
    }


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"titel": "x"}, TypeError),
        ({"fallback": {"titel": "x"}}, TypeError),
        ({"metadata": {"a": object()}}, TypeError),
        ({"metadata": {"a": float("nan")}}, ValueError),
        ({"send_at": datetime(2027, 1, 31)}, ValueError),  # noqa: DTZ001 the case
    ],
)
def test_a_wrong_argument_is_an_error_of_python_and_nothing_is_sent(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    player = Player(answer(202, accepted()))
    with pytest.raises(error):
        player.run(player.calls.send({**MAIL, **fields}))
    with pytest.raises(error):
        player.run(player.calls.send_many([*[MAIL] * 3, {**MAIL, **fields}], None, 1))
    assert player.requests == []


def test_a_batch_keeps_the_order_and_has_an_error_for_what_is_refused() -> None:
    wrong = problem("invalid-field", 400, errors=[{"field": "recipient", "expected": "an address"}])
    player = Player(
        answer(202, {"results": [accepted("a"), {"problem": wrong}]}, request_id="r1"),
        answer(400, {**problem("nothing-accepted", 400), "results": [{"problem": wrong}]}),
    )
    first, second, third = player.run(
        player.calls.send_many([MAIL, MAIL, {**MAIL, "idempotency_key": "own"}], "K", 2)
    )
    assert isinstance(first, Accepted)
    assert (first.id, first.idempotency_key) == ("a", "K#0")
    assert isinstance(second, InvalidRequest)
    assert second.errors == (FieldError("recipient", "an address", ""),)
    assert (second.idempotency_key, second.request_id) == ("K#1", "r1")
    assert isinstance(third, InvalidRequest)
    assert third.idempotency_key == "own"
    keys = [[item["idempotency_key"] for item in body["notifications"]] for body in player.bodies]
    assert keys == [["K#0", "K#1"], ["own"]]


def test_the_keys_of_a_batch_do_not_depend_on_its_size() -> None:
    def keys(size: int) -> list[str]:
        player = Player(answer(500))
        with pytest.raises(Unavailable):
            player.run(player.calls.send_many([MAIL] * 5, "K", size))
        return [item["idempotency_key"] for item in player.bodies[0]["notifications"]]

    assert keys(2) == keys(5)[:2]


def test_the_error_of_a_batch_has_the_results_before_it_and_the_key_to_repeat_all() -> None:
    player = Player(answer(202, {"results": [accepted("a")]}), refusal("key-invalid", 401))
    with pytest.raises(NotifierError) as caught:
        player.run(player.calls.send_many([MAIL] * 3, "K", 1))
    (only,) = caught.value.results
    assert isinstance(only, Accepted)
    assert caught.value.idempotency_key == "K"
    assert len(player.requests) == 2


def test_many_are_sent_in_batches_of_a_thousand_and_eight_mebibytes() -> None:
    assert [length for length, _ in batches([b"{}"] * 2_001)] == [1000, 1000, 1]
    large = b"x" * (3 * 1024 * 1024)
    bodies = list(batches([large] * 5))
    assert [length for length, _ in bodies] == [2, 2, 1]
    assert max(len(body) for _, body in bodies) <= 8 * 1024 * 1024
    half = b"x" * (4 * 1024 * 1024)
    assert [length for length, _ in batches([half, half])] == [1, 1]
    assert [length for length, _ in batches([b"x" * 9_000_000])] == [1]
    assert list(batches([])) == []


@pytest.mark.parametrize("results", [[], [accepted()] * 2, ["?"], None])
def test_a_batch_with_other_results_is_an_error(results: object) -> None:
    player = Player(answer(202, {"results": results}))
    with pytest.raises(NotifierError):
        player.run(player.calls.send_many([MAIL], None, 10))


def test_pages_are_followed_past_an_empty_one() -> None:
    player = Player(
        answer(200, {"items": [row(id_="a")], "next_cursor": "x/+"}),
        answer(200, {"items": [], "next_cursor": "y"}),
        answer(200, {"items": [row(id_="b", status="of_a_later_version")], "next_cursor": None}),
    )
    query: dict[str, str] | None = query_of({"status": ["failed", "expired"], "tag": "a,b"})
    ids = []
    while query is not None:
        page, query = player.run(player.calls.page(query))
        ids += [item.id for item in page.items]
    assert ids == ["a", "b"]
    asked = [parse_qs(urlsplit(request.path).query) for request in player.requests]
    filters = {"limit": ["200"], "status": ["failed,expired"], "tag": [r"a\,b"]}
    assert asked == [filters, {**filters, "cursor": ["x/+"]}, {**filters, "cursor": ["y"]}]


def test_filters_become_parameters() -> None:
    query = query_of(
        {
            "metadata": {"order_id": "1,2", "b": ["x", "y\\"]},
            "recipient": ["a", "b"],
            "code": "550 5.1.1",
            "created_from": datetime(2027, 1, 1, tzinfo=UTC),
            "q": None,
        }
    )
    assert query == {
        "metadata.order_id": r"1\,2",
        "metadata.b": r"x,y\\",
        "recipient": "a,b",
        "code": "550 5.1.1",
        "created_from": "2027-01-01T00:00:00+00:00",
    }
    with pytest.raises(TypeError, match="status"):
        query_of({"state": "failed"})


def test_an_empty_list_of_values_is_sent_and_does_not_find_everything() -> None:
    assert query_of({"status": []}) == {"status": ""}


def test_an_id_stays_within_its_segment_of_the_path() -> None:
    player = Player(answer(200, row()))
    player.run(player.calls.get("../keys?x", ("content", "receipts")))
    assert player.paths == ["GET /notifications/..%2Fkeys%3Fx?include=content%2Creceipts"]
    with pytest.raises(ValueError, match="id"):
        player.run(player.calls.get(""))


def test_a_wait_ends_with_a_final_status() -> None:
    player = Player(answer(200, row()), answer(200, row("sending")), answer(200, row("sent")))
    assert player.run(player.calls.wait("n1", 60)).status == "sent"
    assert player.pauses == pytest.approx([0.1, 0.15])


def test_a_wait_ends_at_its_time_and_looks_once_more() -> None:
    player = Player(answer(200, row("of_a_later_version")))
    with pytest.raises(TimeoutError, match="of_a_later_version"):
        player.run(player.calls.wait("n1", 10))
    assert player.now == pytest.approx(1010.0)


def test_an_error_says_what_is_known() -> None:
    document = problem(
        "invalid-field",
        400,
        errors=[{"field": "recipient", "expected": "an address", "detail": "expected an address"}],
        instance="urn:notifier:request:a%20b",
        new=1,
    )
    player = Player(answer(400, document))
    with pytest.raises(InvalidRequest) as caught:
        player.run(player.calls.send(MAIL))
    error = caught.value
    assert (error.type, error.status, error.title) == ("invalid-field", 400, "A title")
    assert (error.detail, error.request_id) == ("Why.", "a b")
    assert error.errors == (FieldError("recipient", "an address", "expected an address"),)
    assert error.problem.document["new"] == 1
    assert str(error) == "A title: recipient: expected an address (request a b)"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal("not-found", 404), NotFound),
        (refusal("key-invalid", 401), NotifierError),
        (refusal("internal-error", 500), Unavailable),
        (Answer(502, {}, b"\xff\xfe<html>"), Unavailable),
        (Answer(301, {"location": "/"}), NotifierError),
        (Answer(404, {}, b"nginx"), NotifierError),
        (answer(400, ["a"]), NotifierError),
        (answer(400, {"type": 1, "errors": {}, "status": "x"}), NotifierError),
        (answer(400, {**problem("new", 400), "errors": [1, {}], "instance": []}), NotifierError),
    ],
)
def test_every_answer_that_is_no_success_is_an_error(
    reply: Answer, kind: type[NotifierError]
) -> None:
    player = Player(reply)
    with pytest.raises(NotifierError) as caught:
        player.run(player.calls.get("n1"))
    assert type(caught.value) is kind
    assert caught.value.status == reply.status
    assert str(caught.value)


def test_a_wrong_status_says_which_it_is() -> None:
    player = Player(answer(409, problem("wrong-status", 409, current_status="sent")))
    with pytest.raises(WrongStatus) as caught:
        player.run(player.calls.cancel("n1", "too late"))
    assert caught.value.current_status == "sent"
    assert player.bodies == [{"note": "too late"}]


@pytest.mark.parametrize(
    "reply",
    [
        Answer(204),
        Answer(200, {}, b"<html>sign in</html>"),
        Answer(200, {}, b"[" * 100_000),
        answer(200, []),
        answer(200, {}),
        answer(200, row(created_at="yesterday")),
        answer(200, row(created_at=17)),
        answer(200, row(attempts=[17])),
        answer(200, row(tries="2")),
        answer(200, row(metadata=[])),
    ],
)
def test_a_success_that_cannot_be_read_is_an_error(reply: Answer) -> None:
    player = Player(reply)
    with pytest.raises(NotifierError) as caught:
        player.run(player.calls.get("n1"))
    assert type(caught.value) is NotifierError
    assert caught.value.status == reply.status


def test_a_notification_has_its_values() -> None:
    attempt = {
        "number": 1,
        "provider": "relay",
        "outcome": "of_a_later_version",
        "code": None,
        "queue_wait_s": 1,
        "started_at": "2026-11-28T18:40:46Z",
        "finished_at": "2026-11-28T18:40:47.5Z",
    }
    found = decode(
        Notification,
        row("sent", attempts=[attempt], metadata={"a": [1]}, result={"at": attempt["started_at"]}),
    )
    assert found.is_final
    assert found.created_at == datetime(2026, 11, 28, 18, 40, 46, 820768, tzinfo=UTC)
    assert found.metadata == {"a": [1]}
    assert found.result == Result(at=datetime(2026, 11, 28, 18, 40, 46, tzinfo=UTC))
    (only,) = found.attempts
    assert (only.queue_wait_s, only.outcome) == (1.0, "of_a_later_version")
    assert (only.finished_at - only.started_at).total_seconds() == 1.5


def test_a_missing_member_is_named() -> None:
    with pytest.raises(Undecodable, match=r"\$\.queue is missing"):
        decode(Accepted, {"id": "a", "status": "queued"})


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2027-01-31T09:00:00Z", datetime(2027, 1, 31, 9, tzinfo=UTC)),
        ("2027-01-31t09:00:00.1z", datetime(2027, 1, 31, 9, 0, 0, 100_000, tzinfo=UTC)),
        ("2027-01-31T09:00:00.123456789+01:00", datetime(2027, 1, 31, 8, 0, 0, 123456, tzinfo=UTC)),
        ("2027-01-31T09:00:00-00:30", datetime(2027, 1, 31, 9, 30, tzinfo=UTC)),
    ],
)
def test_instants_of_rfc_3339_are_read(text: str, instant: datetime) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize("text", ["", "2027-01-31", "2027-01-31T09:00:00", "2027-13-31T09:00:00Z"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_instant(text)
