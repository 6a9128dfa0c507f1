"""Whatever a request to the API holds is a value or a documented error; see test_parsers.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.templating import child
from notifier.adapters.templating.messages import Compile, Render
from notifier.api.auth.sessions import COOKIE, CookiePlace
from notifier.api.http.cursors import cursor_after, position_in
from notifier.api.http.problems import RequestRefused
from notifier.api.requests import Content, Fallback, Submit
from notifier.api.routes.table import ROUTES
from notifier.api.schedules.documents import ScheduleRequest
from notifier.api.submission.batch_split import BatchSplitter
from notifier.api.submission.idempotency import canonical_json
from notifier.api.submission.validation import SubmitValidator
from notifier.api.suppressions.csv_rows import read_rows
from notifier.api.suppressions.documents import SuppressionRequest
from notifier.api.templating.checking import checked_template, fault_as_field
from notifier.api.templating.filling import Unfilled
from notifier.delivery.unsubscribe_links import UnsubscribeLinks
from notifier.domain.credentials import NO_CREDENTIAL, Mode, parse_credential
from notifier.domain.cron import Cron
from notifier.domain.errors import InvalidNotification
from notifier.domain.keys import KeyScope
from notifier.domain.lookups import LookupRules, metadata_lookups
from notifier.domain.notification import NotificationId, Priority
from notifier.domain.quiet_hours import quiet_hours
from notifier.domain.signing import Purpose, Signer
from notifier.domain.suppressions import SuppressionScope
from notifier.domain.templates import MAX_VARIABLES_BYTES, TemplateRef
from notifier.domain.unsubscribing import Unsubscribe
from notifier.ports.queries import Filter
from notifier.ports.suppressions import Recipient
from tests.memory_access import MemoryAccess, memory_auth
from tests.memory_schedules import MemorySchedules
from tests.memory_suppressions import MemorySuppressions
from tests.property.asgi import Response, response_to
from tests.property.inputs import CONTENT_FIELDS, JSON, MAILS, corrupted, documents
from tests.unit.fakes_api import DEFAULT_RULES, MemoryStore, make_api, make_rules, submit_body

VALIDATOR: Final = SubmitValidator(DEFAULT_RULES)
SPLITTER: Final = BatchSplitter(DEFAULT_RULES)
RULES: Final = make_rules(
    providers=["smtp"],
    public_url="https://notify.example.com/n",
    trusted_proxies=["127.0.0.0/8"],
    lookups=LookupRules(recipient=True, tag=True, reference=True, metadata_keys=("order",)),
)
SUBMIT_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "channel": st.sampled_from(["email", "sms", "push"]) | JSON,
    "priority": st.sampled_from(list(Priority)) | JSON,
    "recipient": st.sampled_from(["ada@example.com", "+15005550006", "tok"]) | st.text() | JSON,
    "content": st.fixed_dictionaries({}, optional=CONTENT_FIELDS) | JSON,
    "ttl_s": st.integers() | JSON,
    "template": st.sampled_from(["order", "order@3", "order@"]) | st.text() | JSON,
    "variables": st.dictionaries(st.text(), JSON) | JSON,
    "locale": st.sampled_from(["en", "de-AT", "e"]) | JSON,
    "max_tries": st.integers(0, 40) | JSON,
    "send_at": st.datetimes().map(lambda instant: instant.isoformat() + "Z") | JSON,
    "expires_at": st.datetimes().map(lambda instant: instant.isoformat() + "Z") | JSON,
    "collapse_key": st.text() | JSON,
    "time_zone": st.sampled_from(["Europe/Berlin", "UTC"]) | st.text() | JSON,
    "metadata": JSON,
    "idempotency_key": st.text() | JSON,
    "tag": st.sampled_from(["a", "a/b", "A:1"]) | st.text() | JSON,
    "topic": st.sampled_from(["news", "1"]) | st.text() | JSON,
    "tenant": st.sampled_from(["default", "shop", "Shop", ""]) | JSON,
}
FALLBACK_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "after_s": st.floats(0, 4_000_000) | JSON,
    **{name: SUBMIT_FIELDS[name] for name in ("channel", "recipient", "content", "template")},
    **{name: SUBMIT_FIELDS[name] for name in ("variables", "locale")},
    "unless": st.sampled_from(["sent", "delivered", "read"]) | JSON,
}
SUBMIT_FIELDS["fallback"] = st.fixed_dictionaries({}, optional=FALLBACK_FIELDS) | JSON
ONE_FIELD = st.sampled_from(sorted(SUBMIT_FIELDS)).flatmap(
    lambda name: SUBMIT_FIELDS[name].map(lambda value: submit_body(**{name: value}))
)
SUBMIT_BODIES = corrupted(
    documents(**SUBMIT_FIELDS) | ONE_FIELD.map(lambda body: json.dumps(body).encode())
)
BATCH_BODIES = corrupted(
    st.lists(SUBMIT_BODIES, max_size=4).map(
        lambda items: b'{"notifications": [' + b",".join(items) + b"]}"
    )
)

ZONES = st.sampled_from(["Europe/Berlin", "America/St_Johns", "posixrules", "../x"]) | st.text()
CRON_FIELDS = st.text("0123456789*,/-#LW", min_size=1, max_size=8) | st.sampled_from(
    ["*", "*/5", "0", "1-5", "MON-FRI", "jan,DEC", "L", "5L", "MON#2", "59", "9" * 5000]
)
CRONS = st.lists(CRON_FIELDS, min_size=5, max_size=5).map(" ".join) | st.text()
SCHEDULE_FIELDS = {
    "cron": CRONS | JSON,
    "time_zone": ZONES | JSON,
    "notification": st.fixed_dictionaries({}, optional=SUBMIT_FIELDS)
    | ONE_FIELD
    | st.just(submit_body())
    | JSON,
    "note": st.text() | JSON,
    "paused": st.booleans() | JSON,
}
ONE_OF_SCHEDULE = st.sampled_from(sorted(SCHEDULE_FIELDS)).flatmap(
    lambda name: SCHEDULE_FIELDS[name].map(
        lambda value: json.dumps(
            {
                "cron": "0 9 * * *",
                "time_zone": "UTC",
                "notification": submit_body(),
                name: value,
            }
        ).encode()
    )
)
SCHEDULE_BODIES = corrupted(documents(**SCHEDULE_FIELDS) | ONE_OF_SCHEDULE)


def test_the_generated_submits_have_every_field() -> None:
    assert set(SUBMIT_FIELDS) == set(Submit.__struct_encode_fields__)
    assert set(FALLBACK_FIELDS) == set(Fallback.__struct_encode_fields__)
    assert set(CONTENT_FIELDS) == set(Content.__struct_encode_fields__)
    assert set(SCHEDULE_FIELDS) == set(ScheduleRequest.__struct_encode_fields__)


@given(SUBMIT_BODIES | st.binary(max_size=200))
def test_a_submit_can_be_stored_or_is_refused(body: bytes) -> None:
    try:
        new = VALIDATOR.validate(body)
    except (InvalidNotification, RequestRefused):
        return
    if isinstance(new, Unfilled):
        msgspec.json.decode(new.variables, type=dict[str, object])
        assert len(new.variables) <= MAX_VARIABLES_BYTES
        return
    assert canonical_json(again := canonical_json(body)) == again
    list(metadata_lookups(new.metadata, ("a", "order")))
    stored = [new.recipient, new.content.decode(), new.metadata.decode()]
    assert "\0" not in "".join(stored)
    assert timedelta() < new.ttl <= DEFAULT_RULES.max_ttl
    assert new.max_tries is None or 0 < new.max_tries < 2**15
    msgspec.json.decode(new.content)


@given(BATCH_BODIES | st.binary(max_size=200))
def test_a_batch_is_split_or_refused(body: bytes) -> None:
    try:
        items = SPLITTER.split(body)
    except (InvalidNotification, RequestRefused):
        return
    for item in items:
        try:
            VALIDATOR.validate(item)
        except (InvalidNotification, RequestRefused):
            continue


def parameter_values(names: str) -> st.SearchStrategy[bytes]:
    """Queries with these parameters."""
    values = st.sampled_from(VALUES) | st.binary(max_size=9)
    pair = st.tuples(st.sampled_from(names.encode().split()), values).map(b"=".join)
    return corrupted(st.lists(pair, max_size=3).map(b"&".join))


VALUES = (
    b"failed email high 50 -1 1e3 2030-01-31T12:00:00Z 9999-12-31T23:59:59-14:00 %00 %ff % "
    b"AaIEQyo3dmiDL6HHr0dl1g %C2%B2 Ada@EXAMPLE.com a,b ,, default manual content "
    b"01a20443-2a37-7668-832f-a1c7af4765d6 %EF%BF%BF@xn--%00 @%E2%80%8D.de"
).split()
QUERIES = parameter_values(
    " ".join({name for route in ROUTES for name in route.parameters}) + " metadata.order else"
)
NAMES: Final = b"order email.high default smtp news 3 1 x %2F %00 %C3%A4".split()
HEADERS: Final[Mapping[bytes, st.SearchStrategy[bytes]]] = {
    b"content-type": st.sampled_from(
        [
            *(b"application/json", b"application/json; charset=\xff", b"text/plain", b"text/csv"),
            *(b"message/rfc822", b"application/x-www-form-urlencoded", b"multipart/form-data"),
        ]
    ),
    b"content-encoding": st.just(b"gzip"),
    b"content-length": st.just(b"5"),
    b"accept": st.just(b"text/csv"),
    b"idempotency-key": st.just(b"K1"),
    b"request-id": st.just(b"R1"),
    b"authorization": st.just(b"Bearer ntf_live_"),
    b"cookie": st.just(f"{COOKIE}=a.1.b".encode()),
    b"host": st.sampled_from([b"127.0.0.1:2", b"[::1]:80", b"evil.example.com"]),
    b"origin": st.sampled_from([b"http://127.0.0.1:2", b"null", b"https://evil.example.com"]),
    b"x-forwarded-host": st.just(b"a.example.com"),
    b"x-forwarded-prefix": st.just(b"/n"),
    b"x-forwarded-proto": st.just(b"https"),
    b"x-forwarded-port": st.just(b"8443"),
}
ANY_HEADERS = st.lists(
    st.sampled_from(sorted(HEADERS)).flatmap(
        lambda name: st.tuples(st.just(name), HEADERS[name] | corrupted(HEADERS[name]))
    ),
    max_size=4,
)
SOURCES = st.lists(
    st.sampled_from(
        """
{{ name }}
{{ order.id }}
{% for i in order %}
{% endfor %}
{% if name %}
{% endif %}
{{ name|upper }}
{{ name|tojson }}
{{ name[1:] }}
{{ name.split() }}
{{ nobody }}
{{ order[-1] }}
{{ 1 / 0 }}
{{ [1] * 9 }}
{{
}}
{%
%}
{#
'
{% set x = 1 %}
{{ self }}
{% raw %}
{{ loop }}
&
<mjml><mj-body>
</mj-body></mjml>
<mj-text>
<mj-column>
🎉>
<mj-include path='/'/>""".splitlines()
    )
    | st.text(max_size=3),
    max_size=6,
).map("".join)
TEXTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["subject", "body", "html", "mjml"], SOURCES | JSON),
        "data": st.dictionaries(st.text(max_size=3), SOURCES | JSON) | JSON,
    },
)
SCHEMAS = st.sampled_from(
    [
        {"type": "object", "required": ["name"]},
        {"properties": {"name": {"pattern": "(a+)+$"}}},
        {"$ref": "https://example.com/x"},
        {"$ref": "#"},
        {"pattern": "("},
    ]
)
TEMPLATES = corrupted(
    documents(
        default_locale=st.just("en") | JSON,
        locales=st.fixed_dictionaries(
            {"en": st.fixed_dictionaries({"email": TEXTS}) | JSON},
            optional={"de-AT": st.dictionaries(st.sampled_from(["email", "sms", "x"]), TEXTS)},
        ),
        schema=SCHEMAS | JSON,
    )
)
VARIABLES: Final = b'{"name": "Ada <ada>", "order": {"id": 17}}'
CSV_FILES = corrupted(
    st.sampled_from(
        [
            b"channel,recipient\nemail,ada@example.com\n",
            b'\xef\xbb\xbfrecipient,channel,note\r\n"a""b@example.com",email,"x,\r\ny"\r\n,,\r\n',
            b"channel,recipient,topic,reason,expires_at\nsms,+15005550006,news,gone,2099-01-01\n",
        ]
    )
)
INSTANTS = st.sampled_from(["2030-01-31T08:00:00Z", "9999-12-31T23:59:59-14:00"]) | JSON
OTHER_BODIES = corrupted(
    documents(
        scopes=st.lists(st.sampled_from([*KeyScope])) | JSON,
        tenant=st.just("shop") | JSON,
        mode=st.just("test") | JSON,
        rate_per_s=st.floats() | JSON,
        note=st.text() | JSON,
        expires_at=INSTANTS,
    )
    | documents(note=st.text() | JSON, for_s=st.floats() | JSON)
    | documents(start=st.just("21:00") | JSON, end=st.text() | JSON, time_zone=st.text() | JSON)
    | documents(
        channel=st.just("email") | JSON,
        recipient=st.just("ada@example.com") | st.text() | JSON,
        topic=st.text() | JSON,
        reason=st.just("gone") | JSON,
        note=st.text() | JSON,
        expires_at=INSTANTS,
    )
    | documents(key=st.text() | JSON)
    | st.just(b"List-Unsubscribe=One-Click")
)


def segments(path: str) -> st.SearchStrategy[bytes]:
    """Paths of a route, with something in place of its parameters."""
    parts = [
        st.sampled_from(NAMES) if part.startswith("{") else st.just(part.encode())
        for part in path.split("/")
    ]
    return st.tuples(*parts).map(b"/".join)


PATHS = st.sampled_from(sorted({route.path for route in ROUTES})).flatmap(segments)
AUTH, KEY = memory_auth(*KeyScope)
STORE: Final = MemoryStore()
SUPPRESSIONS: Final = MemorySuppressions()
SCHEDULES: Final = MemorySchedules()
OPEN: Final = make_api(STORE, RULES, suppressions=SUPPRESSIONS, schedules=SCHEDULES)
KEYED: Final = make_api(STORE, RULES, auth=AUTH, suppressions=SUPPRESSIONS, schedules=SCHEDULES)
BEARER: Final = (b"authorization", f"Bearer {KEY.text}".encode())
SESSION: Final = asyncio.run(AUTH.sessions.cookie(KEY.id, CookiePlace(path="/", is_secure=True)))
TOKEN: Final = SESSION.partition(";")[0].partition("=")[2]


def answer(
    method: str,
    path: bytes,
    query: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
    body: bytes = b"",
    *,
    app: Any = KEYED,
) -> Response:
    """The answer of an API that has what the last requests left, but not of all before."""
    if len(STORE.new) + len(SUPPRESSIONS.stored) + len(SCHEDULES.stored) > 100:
        for stored in (STORE.new, STORE.views, STORE.blobs, STORE.templates.saved):
            stored.clear()
        SUPPRESSIONS.stored.clear()
        SCHEDULES.stored.clear()
    return asyncio.run(response_to(app, method, path, query, headers or [], body))


@given(
    app=st.sampled_from([OPEN, KEYED]),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X"]),
    path=PATHS | corrupted(PATHS),
    query=QUERIES,
    headers=ANY_HEADERS,
    has_key=st.booleans(),
    body=SUBMIT_BODIES
    | BATCH_BODIES
    | SCHEDULE_BODIES
    | CSV_FILES
    | TEMPLATES
    | OTHER_BODIES
    | MAILS
    | st.binary(max_size=60),
)
def test_every_request_is_answered_below_500(
    app: Any,
    method: str,
    path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    has_key: bool,
    body: bytes,
) -> None:
    response = answer(
        method, path, query, [BEARER, *headers] if has_key else headers, body, app=app
    )
    assert response.status < 500, response
    if response.status >= 400 and b"html" not in response.headers[b"content-type"]:
        assert response.headers[b"content-type"] == b"application/problem+json"
        assert json.loads(response.body)["status"] == response.status


@given(
    method_and_path=st.sampled_from(
        [
            (b"POST", b"/v1/notifications"),
            (b"POST", b"/v1/notifications/batch"),
            (b"POST", b"/v1/notifications/preview"),
            (b"POST", b"/v1/templates/order/versions"),
            (b"POST", b"/v1/suppressions"),
            (b"PUT", b"/v1/tenants/default/quiet-hours"),
            (b"PUT", b"/v1/pauses/tag/a"),
            (b"POST", b"/v1/keys"),
            (b"POST", b"/v1/schedules"),
        ]
    ),
    body=SUBMIT_BODIES | BATCH_BODIES | SCHEDULE_BODIES | TEMPLATES | OTHER_BODIES,
    key=corrupted(st.just(b"K1")),
)
def test_every_document_is_taken_or_refused(
    method_and_path: tuple[bytes, bytes], body: bytes, key: bytes
) -> None:
    method, path = method_and_path
    headers = [BEARER, (b"content-type", b"application/json"), (b"idempotency-key", key)]
    response = answer(method.decode(), path, headers=headers, body=body)
    assert response.status < 500, response


@given(query=QUERIES, path=st.sampled_from([b"notifications", b"audit", b"suppressions"]))
def test_every_filter_selects_or_is_refused(query: bytes, path: bytes) -> None:
    response = answer("GET", b"/v1/" + path, query, [BEARER])
    assert response.status in {200, 400}, response


@given(corrupted(st.just(b"Bearer " + KEY.text.encode())) | st.binary(max_size=60))
def test_a_request_is_let_in_by_the_whole_key_alone(header: bytes) -> None:
    response = answer("GET", b"/v1/queues", headers=[(b"authorization", header)])
    text = header.decode("latin-1")
    is_key = (text[:7].lower(), text[7:].strip()) == ("bearer ", KEY.text)
    assert response.status == (200 if is_key else 401)
    parsed = parse_credential(text)
    assert parsed is NO_CREDENTIAL or parsed.text == text


@given(corrupted(st.just(f"a=b; {COOKIE}={TOKEN}".encode())) | st.binary(max_size=60))
def test_a_request_is_let_in_by_a_whole_session_alone(cookies: bytes) -> None:
    response = answer("GET", b"/v1/queues", headers=[(b"cookie", cookies)])
    assert response.status == 401 or (response.status == 200 and TOKEN.encode() in cookies)


class NoHashes:
    """Implements ports.suppressions.RecipientHashes: links are only read."""

    async def recipient_hashes(self, recipients: Collection[Recipient]) -> Mapping[Recipient, UUID]:
        raise AssertionError(f"no link is made, got {recipients}")


SIGNER: Final = Signer([bytes(32)])
LINKS: Final = UnsubscribeLinks(
    hashes=NoHashes(),
    secret=MemoryAccess(),
    public_url=RULES.public_url,
    channels=["email"],
)
WISHES = st.builds(
    Unsubscribe,
    scope=st.builds(SuppressionScope, st.sampled_from(["", "shop"]), st.sampled_from(Mode)),
    channel=st.just("email"),
    topic=st.sampled_from(["news", "a-1"]),
    recipient=st.uuids(),
    notification=st.uuids().map(NotificationId),
)


@given(WISHES, st.data())
def test_a_link_to_unsubscribe_is_read_as_it_was_signed_or_not_at_all(
    wish: Unsubscribe, data: st.DataObject
) -> None:
    token = SIGNER.sign(Purpose.UNSUBSCRIBE, wish.payload())
    assert asyncio.run(LINKS.read(token)) == wish
    changed = data.draw(corrupted(st.just(token.encode()))).decode("latin-1")
    assert asyncio.run(LINKS.read(changed)) == (wish if changed == token else None)
    of_other_version = data.draw(corrupted(st.just(wish.payload().encode()))).decode("latin-1")
    asyncio.run(LINKS.read(SIGNER.sign(Purpose.UNSUBSCRIBE, of_other_version)))


@given(CSV_FILES | st.binary(max_size=99))
def test_every_row_of_a_csv_file_is_a_suppression_or_refused(body: bytes) -> None:
    try:
        rows = list(read_rows(body))
    except InvalidNotification:
        return
    assert all(isinstance(row.request, SuppressionRequest | InvalidNotification) for row in rows)
    assert sorted(row.line for row in rows) == [row.line for row in rows]


@given(TEMPLATES | st.binary(max_size=99), corrupted(st.just(VARIABLES)))
def test_a_template_is_compiled_and_rendered_or_its_faults_are_named(
    body: bytes, variables: bytes
) -> None:
    try:
        template = checked_template(body, DEFAULT_RULES.channels)
    except (InvalidNotification, RequestRefused):
        return
    compiled = child._answer(Compile(template.document))
    for fault in compiled.faults:
        assert fault_as_field(fault).field
    if compiled.faults:
        return
    document = msgspec.json.decode(compiled.result)
    schema = msgspec.json.encode(document["schema"]) if document.get("schema") else b""
    for parts in (parts for texts in document["locales"].values() for parts in texts.values()):
        encoded = msgspec.json.encode(parts)
        for values in (VARIABLES, variables):
            reply = child._answer(Render(encoded, values, 1000, schema, is_accepted=False))
            assert reply.faults or msgspec.json.decode(reply.result).keys() == parts.keys()


@given(corrupted(st.just(b"order-shipped@3")).map(lambda text: text.decode("latin-1")))
def test_a_reference_to_a_template_is_read_as_it_is_written(text: str) -> None:
    try:
        ref = TemplateRef.parse(text)
    except ValueError:
        return
    assert str(ref) == text


@given(st.uuids(), st.data())
def test_a_cursor_is_of_its_list_or_none(last: UUID, data: st.DataObject) -> None:
    cursor = cursor_after(last, Filter(tag=("a",)))
    assert position_in(cursor, Filter(tag=("a",))) == last
    assert position_in(cursor, Filter(tag=("b",))) is None
    changed = data.draw(corrupted(st.just(cursor.encode()))).decode("latin-1")
    position_in(changed, Filter(tag=("a",)))


@given(SCHEDULE_BODIES | st.binary(max_size=60))
def test_a_schedule_is_made_as_it_was_asked_for_or_refused(body: bytes) -> None:
    response = answer(
        "POST",
        b"/v1/schedules",
        b"tenant=default",
        [BEARER, (b"content-type", b"application/json")],
        body,
    )
    assert response.status in {200, 201, 400}, response
    if response.status != 400:
        id_ = json.loads(response.body)["id"].encode()
        query = b"tenant=default&include=notification"
        shown = answer("GET", b"/v1/schedules/" + id_, query, [BEARER])
        assert json.loads(shown.body)["notification"].keys() <= json.loads(
            body.decode("utf-8-sig")
        )["notification"].keys() - {"tenant"}


@given(CRONS, ZONES, st.datetimes(timezones=st.just(UTC)))
def test_a_cron_expression_has_a_next_instant_or_is_refused(
    text: str, time_zone: str, now: datetime
) -> None:
    try:
        cron = Cron.parse(text, time_zone)
    except ValueError:
        return
    now = now.replace(year=1950 + now.year % 150)
    following = cron.next_after(now)
    assert following is None or now < following < now.replace(year=now.year + 51, day=1)
    assert Cron.parse(cron.text, time_zone) == cron


CLOCK_TIMES = st.sampled_from(["00:00", "08:00", "21:00", "24:00", "9:00", "²1:00"]) | st.text()


@given(CLOCK_TIMES, CLOCK_TIMES, ZONES, ZONES, st.datetimes(timezones=st.just(UTC)))
def test_quiet_hours_end_within_two_days_or_are_refused(
    start: str, end: str, time_zone: str, own: str, now: datetime
) -> None:
    try:
        hours = quiet_hours(start, end, time_zone)
    except ValueError:
        return
    now = now.replace(year=1950 + now.year % 150)
    ends_at = hours.ends_at(now, own)
    assert ends_at is None or timedelta() < ends_at - now < timedelta(days=2)
