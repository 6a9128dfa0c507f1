from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.api.http.problems import Refusal
from notifier.api.settings import AddressKind, ApiSettings, ChannelRules
from notifier.api.submission.validation import Submits
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NewNotification, Priority
from tests.unit.fakes_api import a_submit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUBMITS = Submits(ApiSettings(), now=lambda: NOW)


def read(**changes: object) -> NewNotification:
    return SUBMITS.read(json.dumps(a_submit(**changes)).encode())


def nested(levels: int) -> object:
    value: object = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def data(value: object) -> dict[str, object]:
    return {"subject": "x", "data": value}


def at(span: timedelta) -> str:
    return (NOW + span).isoformat()


BAD = [
    ({"channel": "fax"}, "channel"),
    ({"channel": "e\0mail"}, "channel"),
    ({"channel": None}, "channel"),
    ({"priority": "urgent"}, "priority"),
    ({"priority": 1}, "priority"),
    ({"recipient": ""}, "recipient"),
    ({"recipient": None}, "recipient"),
    ({"recipient": ["ada@example.com"]}, "recipient"),
    ({"recipient": "ada"}, "recipient"),
    ({"recipient": "ada\0@example.com"}, "recipient"),
    ({"recipient": "ada\ud800@example.com"}, "recipient"),
    ({"channel": "sms", "recipient": "5551234"}, "recipient"),
    ({"channel": "push", "recipient": "a b"}, "recipient"),
    ({"colour": "red"}, "colour"),
    ({"content": {"subject": "x", "colour": "red"}}, "content.colour"),
    ({"content": None}, "content"),
    ({"content": {}}, "content"),
    ({"content": {"data": {"a": 1}}}, "content"),
    ({"channel": "sms", "recipient": "+15005550006", "content": {"subject": "x"}}, "content.body"),
    ({"content": {"subject": 7}}, "content.subject"),
    ({"content": {"subject": "x" * 999}}, "content.subject"),
    ({"content": {"subject": "a\nb"}}, "content.subject"),
    ({"content": {"subject": "a\rb"}}, "content.subject"),
    *(
        ({"content": {"subject": f"a{chr(code)}b"}}, "content.subject")
        for code in (0, 1, 9, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F, 0x80, 0x85, 0x9F, 0x2028, 0x2029)
    ),
    ({"content": {"body": "a\ud800"}}, "content.body"),
    ({"content": {"body": "a\udc00b"}}, "content.body"),
    ({"content": {"body": "x" * (256 * 1024)}}, "content"),
    ({"content": data([1])}, "content.data"),
    ({"content": data({"a": ["\0"]})}, "content.data.a.0"),
    ({"content": data({"a": {"k\0": 1}})}, "content.data.a"),
    ({"content": data({"k\ud800": 1})}, "content.data"),
    ({"content": data({"a": [float("nan")]})}, "content.data.a.0"),
    ({"content": data({"a": float("inf")})}, "content.data.a"),
    ({"content": data({"a": 10**400})}, "content.data.a"),
    ({"content": data({"a": -(10**309)})}, "content.data.a"),
    ({"content": data(nested(33))}, "content.data" + ".a" * 32),
    ({"ttl": 0}, "ttl"),
    ({"ttl": -1}, "ttl"),
    ({"ttl": True}, "ttl"),
    ({"ttl": "60"}, "ttl"),
    ({"ttl": 29 * 86_400 + 1}, "ttl"),
    ({"ttl": 10**400}, "ttl"),
    ({"ttl": 60, "send_at": at(timedelta(seconds=61))}, "ttl"),
    ({"send_at": "tomorrow"}, "send_at"),
    ({"send_at": "2026-03-02"}, "send_at"),
    ({"send_at": "2026-03-02T08:00:00"}, "send_at"),
    ({"send_at": 1_800_000_000}, "send_at"),
    ({"send_at": at(timedelta(days=22, seconds=1))}, "send_at"),
    ({"max_tries": 0}, "max_tries"),
    ({"max_tries": 101}, "max_tries"),
    ({"max_tries": 1.5}, "max_tries"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": "x" * (16 * 1024)}}, "metadata"),
    ({"metadata": {"a": "\0"}}, "metadata.a"),
    ({"metadata": nested(33)}, "metadata" + ".a" * 32),
]


@pytest.mark.parametrize(("changes", "field"), BAD)
def test_a_wrong_field_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        read(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize("missing", ["channel", "recipient", "content"])
def test_a_missing_field_is_named(missing: str) -> None:
    body = {key: value for key, value in a_submit().items() if key != missing}
    with pytest.raises(InvalidNotification) as caught:
        SUBMITS.read(json.dumps(body).encode())
    assert caught.value.field == missing


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_endless_nesting_is_named(opening: bytes) -> None:
    head = b'{"channel":"email","recipient":"a@b.de","content":{"subject":"x","data":'
    with pytest.raises(InvalidNotification) as caught:
        SUBMITS.read(head + opening * 5000)
    assert caught.value.field == "content.data"


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5000])
def test_a_number_beyond_double_is_named(number: bytes) -> None:
    body = b'{"channel":"email","recipient":"a@b.de","content":{"subject":"x","data":{"n":%s}}}'
    with pytest.raises(InvalidNotification) as caught:
        SUBMITS.read(body % number)
    assert caught.value.field == "content.data.n"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nul", b'{"channel":"email",}', b"\xff\xfe{\x00", b'{"channel":"\xff"}', b"'a'"],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        SUBMITS.read(body)
    assert caught.value.problem.type == "urn:notifier:problem:malformed-json"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null"])
def test_json_that_is_no_object_is_refused_whole(body: bytes) -> None:
    with pytest.raises(InvalidNotification) as caught:
        SUBMITS.read(body)
    assert caught.value.field == "$"


def test_only_the_given_parts_of_the_content_are_kept() -> None:
    new = read(content={"subject": "x", "body": "", "html": None, "data": None}, metadata=None)
    assert json.loads(new.content) == {"subject": "x", "body": ""}
    assert new.metadata == b"{}"


def test_data_and_metadata_are_kept_as_they_came() -> None:
    body = (
        b'{"channel":"push","recipient":"t","content":{"data":{"n":%s,"f":1.10}},'
        b'"metadata":{"order":"7"}}'
    )
    new = SUBMITS.read(body % str(2**80).encode())
    assert new.content == b'{"data":{"n":%s,"f":1.10}}' % str(2**80).encode()
    assert new.metadata == b'{"order":"7"}'


def test_a_subject_keeps_every_other_character() -> None:
    subject = "Ünï \u00a0 \u200b 🎉"
    assert json.loads(read(content={"subject": subject}).content) == {"subject": subject}


def test_what_is_too_large_is_refused_before_anything_looks_into_it() -> None:
    with pytest.raises(InvalidNotification) as caught:
        read(content=data({"a": ["\0"] * 100_000}))
    assert caught.value.field == "content"


@pytest.mark.parametrize("levels", [1, 31, 32])
def test_data_may_nest_thirty_two_levels(levels: int) -> None:
    assert read(content=data(nested(levels))).content


def test_backslashes_before_a_harmless_u0000_are_no_nul() -> None:
    new = read(content={"subject": "\\u0000"})
    assert json.loads(new.content) == {"subject": "\\u0000"}


@pytest.mark.parametrize(
    ("priority", "hours"), [(Priority.HIGH, 1), (Priority.MEDIUM, 24), (Priority.LOW, 72)]
)
def test_the_default_ttl_is_the_priority_s(priority: Priority, hours: int) -> None:
    assert read(priority=priority).ttl == timedelta(hours=hours)


def test_medium_is_the_default_priority() -> None:
    body = a_submit()
    del body["priority"]
    assert SUBMITS.read(json.dumps(body).encode()).queue.priority is Priority.MEDIUM


def test_the_default_ttl_begins_when_it_is_sent() -> None:
    new = read(send_at=at(timedelta(hours=5)))
    assert (new.delay, new.ttl) == (timedelta(hours=5), timedelta(hours=6))


def test_a_given_ttl_begins_when_it_is_accepted() -> None:
    new = read(send_at=at(timedelta(hours=5)), ttl=6 * 3600)
    assert (new.delay, new.ttl) == (timedelta(hours=5), timedelta(hours=6))


@pytest.mark.parametrize("send_at", ["2026-03-01T13:00:00+01:00", "0001-01-01T00:00:00+14:00"])
def test_an_instant_that_has_passed_means_now(send_at: str) -> None:
    assert read(send_at=send_at).delay is None


def test_a_channel_of_one_s_own_keeps_its_address_kind() -> None:
    rules = {"chat": ChannelRules(address=AddressKind.TOKEN)}
    submits = Submits(ApiSettings(channels=rules), now=lambda: NOW)
    body = a_submit(channel="chat", recipient="room-7")
    assert str(submits.read(json.dumps(body).encode()).queue) == "chat.high"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises((InvalidNotification, Refusal)):
        SUBMITS.read(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(st.characters()), JSON))
def test_what_is_taken_can_be_stored_as_text_and_doubles(value: dict[str, object]) -> None:
    try:
        new = read(content={"subject": "x", "data": value})
    except InvalidNotification:
        return
    assert b"\\u0000" not in new.content.replace(b"\\\\", b"")
    assert json.loads(new.content)["data"] == json.loads(json.dumps(value))
