from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.api.http.problems import RequestRefused
from notifier.api.requests import Content, Submit
from notifier.api.rules import AddressKind, ChannelRules
from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NewNotification, Priority
from tests.unit.fakes_api import DEFAULT_RULES, make_rules, submit_body, validated

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALIDATOR = SubmitValidator(DEFAULT_RULES, now=lambda: NOW)


def validate(**changes: object) -> NewNotification:
    return validated(VALIDATOR, json.dumps(submit_body(**changes)).encode())


def nested(levels: int) -> object:
    value: object = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def data(value: object) -> dict[str, object]:
    return {"subject": "x", "data": value}


def after(span: timedelta) -> str:
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
    ({"content": {}}, "content.subject"),
    ({"content": {"body": "x"}}, "content.subject"),
    ({"content": {"subject": "", "html": "x"}}, "content.subject"),
    ({"content": {"data": {"a": 1}}}, "content.subject"),
    ({"channel": "push", "recipient": "t", "content": {"html": "x"}}, "content"),
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
    ({"content": {"subject": "x", "body": "x" * (256 * 1024)}}, "content"),
    ({"content": data([1])}, "content.data"),
    ({"content": data({"a": ["\0"]})}, "content.data.a.0"),
    ({"content": data({"a": {"k\0": 1}})}, "content.data.a"),
    ({"content": data({"k\ud800": 1})}, "content.data"),
    ({"content": data({"a": [float("nan")]})}, "content.data.a.0"),
    ({"content": data({"a": float("inf")})}, "content.data.a"),
    ({"content": data({"a": 10**400})}, "content.data.a"),
    ({"content": data({"a": -(10**309)})}, "content.data.a"),
    ({"content": data(nested(33))}, "content.data" + ".a" * 32),
    ({"ttl_s": 0}, "ttl_s"),
    ({"ttl_s": -1}, "ttl_s"),
    ({"ttl_s": True}, "ttl_s"),
    ({"ttl_s": "60"}, "ttl_s"),
    ({"ttl_s": 29 * 86_400 + 1}, "ttl_s"),
    ({"ttl_s": 10**400}, "ttl_s"),
    ({"ttl_s": 29 * 86_400, "send_at": after(timedelta(seconds=1))}, "ttl_s"),
    ({"ttl_s": 60, "expires_at": after(timedelta(hours=1))}, "expires_at"),
    ({"expires_at": after(timedelta(days=29, seconds=1))}, "expires_at"),
    ({"expires_at": "2030-01-31T08:00:00"}, "expires_at"),
    ({"expires_at": 60}, "expires_at"),
    (
        {"send_at": after(timedelta(hours=-2)), "expires_at": after(timedelta(hours=-2))},
        "expires_at",
    ),
    ({"send_at": "tomorrow"}, "send_at"),
    ({"send_at": "2026-03-02"}, "send_at"),
    ({"send_at": "2026-03-02T08:00:00"}, "send_at"),
    ({"send_at": 1_800_000_000}, "send_at"),
    ({"send_at": after(timedelta(days=22, seconds=1))}, "send_at"),
    ({"max_tries": 0}, "max_tries"),
    ({"max_tries": 101}, "max_tries"),
    ({"max_tries": 1.5}, "max_tries"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": "x" * (16 * 1024)}}, "metadata"),
    ({"metadata": {"a": "\0"}}, "metadata.a"),
    ({"metadata": nested(33)}, "metadata" + ".a" * 32),
]


@pytest.mark.parametrize(("changes", "field"), BAD)
def test_the_error_names_a_wrong_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        validate(**changes)
    assert (caught.value.field, caught.value.others) == (field, ())


def faults_of(**changes: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidNotification) as caught:
        validate(**changes)
    return [(fault.field, fault.expected) for fault in (caught.value, *caught.value.others)]


def test_all_wrong_fields_are_named_at_once() -> None:
    faults = faults_of(
        channel="fax",
        recipient="nobody",
        priority=7,
        content={"subject": 1, "body": 2, "colour": "red"},
        ttl_s="60",
        max_tries=1.5,
        metadata=[],
        shade="blue",
    )
    assert [field for field, _ in faults] == [
        "priority",
        "content.subject",
        "content.body",
        "content.colour",
        "ttl_s",
        "shade",
        "channel",
        "metadata",
        "max_tries",
    ]


def test_a_field_whose_rule_depends_on_a_wrong_one_is_not_judged() -> None:
    assert faults_of(channel="fax", recipient="nobody") == [("channel", "one of email, sms, push")]


def test_wrong_values_of_the_right_type_are_named_at_once() -> None:
    faults = faults_of(recipient="nobody", content={"body": "x"}, max_tries=2.5, ttl_s=1e9)
    assert [field for field, _ in faults] == ["recipient", "content.subject", "ttl_s", "max_tries"]


def test_at_most_twenty_wrong_fields_are_named() -> None:
    assert len(faults_of(**{f"field_{number}": 1 for number in range(1000)})) == 20


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("to", "recipient"),
        ("address", "recipient"),
        ("text", "content.body"),
        ("message", "content.body"),
        ("subject", "content.subject"),
        ("title", "content.subject"),
        ("html", "content.html"),
        ("payload", "content.data"),
        ("type", "channel"),
        ("ttl", "ttl_s"),
        ("expires_in", "ttl_s"),
        ("scheduled_at", "send_at"),
        ("sendAt", "send_at"),
        ("maxTries", "max_tries"),
        ("max-retries", "max_tries"),
        ("meta", "metadata"),
        ("recipent", "recipient"),
        ("Channel", "channel"),
    ],
)
def test_the_name_of_another_api_or_version_is_refused_with_the_right_one(
    name: str, meant: str
) -> None:
    assert faults_of(**{name: "x"}) == [(name, meant)]


@pytest.mark.parametrize("name", ["colour", "", "\0", "x" * 1000])
def test_a_name_that_is_like_none_is_refused_with_the_known_ones(name: str) -> None:
    known = (
        "channel, recipient, content, priority, ttl_s, expires_at, send_at, time_zone, "
        "collapse_key, max_tries, tag, topic, metadata, idempotency_key, tenant, "
        "template, variables, locale, fallback"
    )
    assert faults_of(**{name: 1}) == [(name, f"only {known} here")]


def test_a_wrong_name_in_the_content_is_refused_with_the_right_one() -> None:
    assert faults_of(content={"subject": "x", "text": "y", "metadata": {}}) == [
        ("content.text", "content.body"),
        ("content.metadata", "metadata"),
    ]


@pytest.mark.parametrize("key", ["", "x" * 65, "line\nbreak", "caf\u00e9", "\0"])
def test_what_is_no_collapse_key_is_refused(key: str) -> None:
    ((field, _),) = faults_of(collapse_key=key)
    assert field == "collapse_key"


def test_a_collapse_key_is_taken_as_it_is() -> None:
    assert validate(collapse_key="order 17 / state").collapse_key == "order 17 / state"
    assert validate().collapse_key is None


def text_fields(struct: type[msgspec.Struct]) -> list[str]:
    hints = get_type_hints(struct)
    return [
        name for name in struct.__struct_fields__ if str in (hints[name], *get_args(hints[name]))
    ]


@pytest.mark.parametrize("field", text_fields(Submit))
def test_every_text_field_of_a_submit_refuses_a_nul_character(field: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        validate(**{field: "a\0b"})
    assert caught.value.field == field


@pytest.mark.parametrize("part", text_fields(Content))
def test_every_text_field_of_the_content_refuses_a_nul_character(part: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        validate(content={"subject": "x", part: "a\0b"})
    assert caught.value.field == f"content.{part}"


@pytest.mark.parametrize("missing", ["channel", "recipient", "content"])
def test_the_error_names_a_missing_field(missing: str) -> None:
    body = {key: value for key, value in submit_body().items() if key != missing}
    with pytest.raises(InvalidNotification) as caught:
        VALIDATOR.validate(json.dumps(body).encode())
    assert caught.value.field == missing


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_the_error_names_the_field_that_nests_too_deeply(opening: bytes) -> None:
    head = b'{"channel":"email","recipient":"a@b.de","content":{"subject":"x","data":'
    with pytest.raises(InvalidNotification) as caught:
        VALIDATOR.validate(head + opening * 5000)
    assert caught.value.field == "content.data"


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5000])
def test_the_error_names_a_number_that_a_double_cannot_hold(number: bytes) -> None:
    body = b'{"channel":"email","recipient":"a@b.de","content":{"subject":"x","data":{"n":%s}}}'
    with pytest.raises(InvalidNotification) as caught:
        VALIDATOR.validate(body % number)
    assert caught.value.field == "content.data.n"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nul", b'{"channel":"email",}', b"\xff\xfe{\x00", b'{"channel":"\xff"}', b"'a'"],
)
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        VALIDATOR.validate(body)
    assert caught.value.problem.type == "urn:notifier:problem:malformed-json"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null"])
def test_json_that_is_not_an_object_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(InvalidNotification) as caught:
        VALIDATOR.validate(body)
    assert caught.value.field == "$"


def test_only_the_given_parts_of_the_content_are_kept() -> None:
    new = validate(content={"subject": "x", "body": "", "html": None, "data": None}, metadata=None)
    assert json.loads(new.content) == {"subject": "x", "body": ""}
    assert new.metadata == b"{}"


def test_data_and_metadata_are_kept_unchanged() -> None:
    body = (
        b'{"channel":"push","recipient":"t","content":{"data":{"n":%s,"f":1.10}},'
        b'"metadata":{"order":"7"}}'
    )
    new = VALIDATOR.validate(body % str(2**80).encode())
    assert new.content == b'{"data":{"n":%s,"f":1.10}}' % str(2**80).encode()
    assert new.metadata == b'{"order":"7"}'


def test_a_subject_keeps_every_other_character() -> None:
    subject = "Ünï \u00a0 \u200b 🎉"
    assert json.loads(validate(content={"subject": subject}).content) == {"subject": subject}


def test_the_size_is_checked_before_the_values() -> None:
    with pytest.raises(InvalidNotification) as caught:
        validate(content=data({"a": ["\0"] * 100_000}))
    assert caught.value.field == "content"


@pytest.mark.parametrize("part", ["metadata", "data"])
def test_every_depth_at_which_some_parser_gives_up_is_refused(part: str) -> None:
    head = json.dumps(submit_body())[:-1]
    for levels in range(850, 1050):
        value = '{"m":' + "[" * levels + "1" + "]" * levels + "}"
        document = value if part == "metadata" else f'{{"subject": "x", "data": {value}}}'
        field = "metadata" if part == "metadata" else "content"
        with pytest.raises(InvalidNotification) as refused:
            VALIDATOR.validate(f'{head},"{field}":{document}}}'.encode())
        assert refused.value.field.partition(".")[0] == field


@pytest.mark.parametrize("levels", [1, 31, 32])
def test_data_may_nest_thirty_two_levels(levels: int) -> None:
    assert validate(content=data(nested(levels))).content


def test_an_escaped_backslash_before_u0000_is_not_a_nul() -> None:
    new = validate(content={"subject": "\\u0000"})
    assert json.loads(new.content) == {"subject": "\\u0000"}


@pytest.mark.parametrize(
    ("priority", "hours"), [(Priority.HIGH, 1), (Priority.MEDIUM, 24), (Priority.LOW, 72)]
)
def test_each_priority_has_its_default_ttl(priority: Priority, hours: int) -> None:
    assert validate(priority=priority).ttl == timedelta(hours=hours)


def test_medium_is_the_default_priority() -> None:
    body = submit_body()
    del body["priority"]
    assert validated(VALIDATOR, json.dumps(body).encode()).queue.priority is Priority.MEDIUM


def test_the_default_ttl_starts_at_send_at() -> None:
    new = validate(send_at=after(timedelta(hours=5)))
    assert (new.delay, new.ttl) == (timedelta(hours=5), timedelta(hours=6))


def test_a_given_ttl_starts_at_send_at_too() -> None:
    new = validate(send_at=after(timedelta(hours=5)), ttl_s=60)
    assert (new.delay, new.ttl) == (timedelta(hours=5), timedelta(hours=5, minutes=1))
    new = validate(send_at=after(timedelta(hours=-5)), ttl_s=60)
    assert (new.delay, new.ttl) == (None, timedelta(minutes=1))


def test_an_expiry_may_be_an_instant() -> None:
    new = validate(send_at=after(timedelta(hours=5)), expires_at=after(timedelta(hours=7)))
    assert (new.delay, new.ttl) == (timedelta(hours=5), timedelta(hours=7))
    assert validate(expires_at=after(timedelta(days=29))).ttl == timedelta(days=29)


@pytest.mark.parametrize("instant", [after(timedelta(hours=-1)), "0001-01-01T00:00:00+14:00"])
def test_an_expiry_in_the_past_is_accepted_and_expires_at_once(instant: str) -> None:
    assert validate(expires_at=instant).ttl == timedelta(milliseconds=1)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Argentina/Ushuaia", "UTC", "Etc/GMT+5"])
def test_a_time_zone_is_stored_with_the_content(zone: str) -> None:
    assert json.loads(validate(time_zone=zone).content)["time_zone"] == zone
    assert "time_zone" not in json.loads(validate().content)


@pytest.mark.parametrize(
    "zone", ["Berlin", "europe/berlin", "+02:00", "CEST5", "", "../UTC", "x" * 65]
)
def test_what_is_no_iana_time_zone_is_refused(zone: str) -> None:
    ((field, _),) = faults_of(time_zone=zone)
    assert field == "time_zone"


@pytest.mark.parametrize("send_at", ["2026-03-01T13:00:00+01:00", "0001-01-01T00:00:00+14:00"])
def test_a_send_at_in_the_past_means_now(send_at: str) -> None:
    assert validate(send_at=send_at).delay is None


@pytest.mark.parametrize("max_tries", [8, 8.0, "8e0"])
def test_a_whole_number_may_be_written_with_a_fraction(max_tries: object) -> None:
    body = json.dumps(submit_body(max_tries=max_tries)).replace('"8e0"', "8e0")
    new = validated(VALIDATOR, body.encode())
    assert (new.max_tries, type(new.max_tries)) == (8, int)


def test_a_configured_channel_checks_its_address_kind() -> None:
    channels = {"chat": ChannelRules(address=AddressKind.TOKEN)}
    validator = SubmitValidator(make_rules(channels=channels), now=lambda: NOW)
    body = submit_body(channel="chat", recipient="room-7")
    assert str(validated(validator, json.dumps(body).encode()).queue) == "chat.high"


@given(st.binary(max_size=200))
def test_any_bytes_are_validated_or_refused(body: bytes) -> None:
    with pytest.raises((InvalidNotification, RequestRefused)):
        VALIDATOR.validate(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(st.characters()), JSON))
def test_accepted_data_can_be_stored_as_text_and_doubles(value: dict[str, object]) -> None:
    try:
        new = validate(content={"subject": "x", "data": value})
    except InvalidNotification:
        return
    assert b"\\u0000" not in new.content.replace(b"\\\\", b"")
    assert json.loads(new.content)["data"] == json.loads(json.dumps(value))
