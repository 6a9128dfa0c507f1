"""Every parser of external input either returns a value or raises its documented error.

Each test is also a target of `make fuzz`, which runs it for minutes instead of a few examples.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unicodedata import category

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.adapters.providers.http.answers import AnswerTable
from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.responses import retry_after, values_at
from notifier.adapters.providers.http.settings import HttpSettings, SuccessSettings
from notifier.adapters.providers.http.transport import Answer
from notifier.adapters.providers.smtp.mail_text import Lines, MailText
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.replies import ReplyRules, Step
from notifier.adapters.providers.smtp.reply import ProtocolError, Reply, ReplyReader
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.adapters.providers.verdict import outcome
from notifier.adapters.rabbitmq.wire import UnreadableMessage, decode, encode
from notifier.api.http.problems import RequestRefused
from notifier.api.requests import Content, Submit
from notifier.api.submission.batch_split import BatchSplitter
from notifier.api.submission.validation import SubmitValidator
from notifier.api.templating.filling import Unfilled
from notifier.domain.blobs import blob_id
from notifier.domain.errors import ConfigError, InvalidNotification
from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.domain.outcome import (
    MAX_CODE_LENGTH,
    MAX_DETAIL_LENGTH,
    MAX_REFERENCE_LENGTH,
    Outcome,
)
from notifier.domain.templates import MAX_VARIABLES_BYTES
from notifier.domain.whole_mail import check_mail, parse_mail
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE
from notifier.ports.provider import Envelope
from notifier.settings.load import load_settings
from tests.builders import EMAIL_HIGH, new_id
from tests.integration.raw_servers import CLOSE, open_http_script, open_raw_smtp
from tests.property.asgi import response_to
from tests.unit.fakes_api import DEFAULT_RULES, MemoryStore, make_api, submit_body

pytestmark = pytest.mark.filterwarnings(
    "ignore:BasicAuth is deprecated:DeprecationWarning",
    "ignore:The 'auth' parameter is deprecated:DeprecationWarning",
)

VALIDATOR: Final = SubmitValidator(DEFAULT_RULES)
SPLITTER: Final = BatchSplitter(DEFAULT_RULES)
APP: Final = make_api(MemoryStore())
CANARY: Final = "c4n4ry-s3cret"
MAX_INT4: Final = 2**31 - 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FRAGMENTS = st.sampled_from([b"[" * 40, b"9" * 5000, b"\xff", b"\0", b"\r\n"]) | st.sampled_from(
    rb'{ " \u0000 \ud800 NaN 1e999 null -0 true , : \ %00 & ='.split()
)


@st.composite
def corrupted(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid input with parts of it overwritten, repeated or removed."""
    data = draw(valid)
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        data = (
            data[:start]
            + draw(FRAGMENTS | st.binary(max_size=9) | st.just(data[start:end] * 2))
            + (data[end:] if draw(st.booleans()) else data[start:])
        )
    return data


def documents(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON objects with a subset of these fields, encoded by json.dumps."""
    return st.fixed_dictionaries({}, optional=fields).map(
        lambda document: json.dumps(document).encode()
    )


MAILBOXES = (
    st.sampled_from(["ada@example.com", "Ada <ada@example.com>", "@", '"a\\"b" <a@b.example>'])
    | st.text()
)
HEADER_NAMES = st.sampled_from(["X-Order", "In-Reply-To", "List-Id", "Auto-Submitted", "To"]) | (
    st.text()
)
FILE_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "filename": st.text() | JSON,
    "content_type": st.sampled_from(["text/plain", "image/png; name=a", "message/rfc822"]) | JSON,
    "data": st.binary().map(lambda data: b64encode(data).decode()) | st.text() | JSON,
    "content_id": st.text() | JSON,
    "blob": st.sampled_from([blob_id(b""), "sha256:"]) | JSON,
}
CONTENT_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "subject": st.text(),
    "body": st.text(),
    "html": st.text(),
    "data": JSON,
    **dict.fromkeys(["from", "reply_to", "cc", "bcc"], MAILBOXES | st.lists(MAILBOXES) | JSON),
    "headers": st.dictionaries(HEADER_NAMES, st.text() | JSON) | JSON,
    "attachments": st.lists(st.fixed_dictionaries({}, optional=FILE_FIELDS)) | JSON,
    "mime": st.sampled_from([blob_id(b""), "sha256:"]) | JSON,
}
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
    "collapse_key": st.text() | JSON,
    "time_zone": st.sampled_from(["Europe/Berlin", "UTC"]) | st.text() | JSON,
    "metadata": JSON,
    "idempotency_key": st.text() | JSON,
    "tag": st.sampled_from(["a", "a/b", "A:1"]) | st.text() | JSON,
    "topic": st.sampled_from(["news", "1"]) | st.text() | JSON,
    "tenant": st.sampled_from(["default", "shop", "Shop", ""]) | JSON,
}
SUBMIT_BODIES = corrupted(documents(**SUBMIT_FIELDS) | st.just(json.dumps(submit_body()).encode()))
BATCH_BODIES = corrupted(
    st.lists(SUBMIT_BODIES, max_size=4).map(
        lambda items: b'{"notifications": [' + b",".join(items) + b"]}"
    )
)
TEXTS = st.text(st.characters())
SMTP_REPLIES = st.lists(
    st.tuples(st.integers(0, 999), st.sampled_from(["", "5.1.1 no", "4.7.1 slow"]) | TEXTS)
    .map(lambda reply: f"{reply[0]:03} {reply[1]}\r\n".encode(errors="replace"))
    .flatmap(lambda line: corrupted(st.just(line))),
    max_size=8,
)
STATUS_LINES = st.integers(100, 999).map(lambda status: b"HTTP/1.1 %d Reason" % status)
HEADERS = st.lists(
    st.sampled_from(
        b"""Retry-After: 7
Retry-After: Thu, 31 Jan 2030 12:00:10 GMT
Connection: close
Transfer-Encoding: chunked
Content-Encoding: gzip
Content-Length: 5
Content-Type: application/json
Set-Cookie: a=b
Location: http://127.0.0.1:1/""".splitlines()
    ),
    max_size=3,
)
HTTP_RESPONSES = corrupted(
    st.builds(
        lambda status, headers, body: b"\r\n".join([status, *headers, b"", body]),
        STATUS_LINES,
        HEADERS,
        JSON.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=60),
    )
)


def test_the_generated_submits_have_every_field() -> None:
    assert set(SUBMIT_FIELDS) == set(Submit.__struct_encode_fields__)
    assert set(CONTENT_FIELDS) == set(Content.__struct_encode_fields__)


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


PATHS = b"""
/v1/notifications /v1/notifications/batch /v1/failures /v1/queues /v1/providers /v1/pauses
/v1/queues/email.high/pause /v1/channels/email/pause /v1/providers/smtp/resume /health/ready
/metrics /docs /docs/openapi.json / /v1/notifications/01a20443-2a37-7668-832f-a1c7af4765d6
""".split()
PARAMETERS = b"status channel priority reason limit cursor created_from created_to else".split()
VALUES = (
    b"failed email high 50 -1 1e3 2030-01-31T12:00:00Z 9999-12-31T23:59:59-14:00 %00 %ff % "
    b"AaIEQyo3dmiDL6HHr0dl1g %C2%B2"
).split()
QUERIES = st.lists(
    st.tuples(st.sampled_from(PARAMETERS), st.sampled_from(VALUES) | st.binary(max_size=9)).map(
        b"=".join
    ),
    max_size=3,
).map(b"&".join)
CONTENT_TYPES = (b"application/json", b"application/json; charset=\xff", b"text/plain")
REQUEST_HEADERS = st.lists(
    st.tuples(st.just(b"content-type"), st.sampled_from(CONTENT_TYPES))
    | st.just((b"content-encoding", b"gzip"))
    | st.just((b"content-length", b"5")),
    max_size=3,
)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X"]),
    path=corrupted(st.sampled_from(PATHS)),
    query=corrupted(QUERIES),
    headers=REQUEST_HEADERS,
    body=SUBMIT_BODIES
    | BATCH_BODIES
    | st.just(b'{"reason": "why", "for": 60}')
    | st.binary(max_size=60),
)
def test_every_request_is_answered_below_500(
    method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    response = asyncio.run(response_to(APP, method, path, query, headers, body))
    assert response.status < 500, response
    if response.status >= 400:
        assert response.headers[b"content-type"] == b"application/problem+json"
        assert json.loads(response.body)["status"] == response.status


def assert_storable(result: Outcome) -> None:
    reference = getattr(result, "reference", "")
    for text, max_length in (
        (result.code, MAX_CODE_LENGTH),
        (result.detail, MAX_DETAIL_LENGTH),
        (reference, MAX_REFERENCE_LENGTH),
    ):
        assert len(text) <= max_length
        assert not {category(character) for character in text} & {"Cc", "Cs"}


@given(st.integers(0, 999), TEXTS, st.sampled_from(Step))
def test_any_smtp_reply_becomes_an_outcome(code: int, text: str, step: Step) -> None:
    assert_storable(ReplyRules().outcome(step, Reply(code, text)))


@given(st.lists(st.binary(max_size=99), max_size=5))
def test_any_bytes_of_a_mail_server_are_replies_or_a_protocol_error(chunks: list[bytes]) -> None:
    reader = ReplyReader()
    try:
        replies = [reply for chunk in chunks for reply in reader.feed(chunk)]
    except ProtocolError as error:
        assert_storable(outcome("unavailable", "protocol", str(error)))
    else:
        assert all(200 <= reply.code <= 599 for reply in replies)


TABLE = AnswerTable(
    "http",
    HttpSettings(
        url="http://127.0.0.1/",
        error_code=("code", "error.details.*.code", "0", "*"),
        answers={"7": "gone", "4xx": "refused", "error.*=x": "deferred", "/(a)|b/": "throttled"},
        success=SuccessSettings(path="*.ok", values=(True, 0)),
    ),
)


@given(HTTP_RESPONSES | st.binary(max_size=99), st.integers(100, 999), TEXTS, TEXTS)
def test_any_http_response_becomes_an_outcome(
    body: bytes, status: int, wait: str, date: str
) -> None:
    head, _, rest = body.rpartition(b"\r\n")
    answer = Answer(status, head, rest, is_whole=True)
    after = retry_after(
        wait, now=datetime(2030, 1, 31, tzinfo=UTC), date=date, limit=timedelta(hours=1)
    )
    decision = TABLE.decide(answer, "+15005550006")
    references = values_at(decision.document, "error.*.id")
    reference = answer.header("Date") or next(iter(references), date)
    assert_storable(
        outcome(decision.verdict, decision.code, wait, after=after, reference=reference)
    )


def envelope(channel: str) -> Envelope:
    return Envelope(
        id=new_id(),
        claim=1,
        queue=QueueKey(Channel(channel), Priority.HIGH),
        recipient="ada@example.com",
        content={"subject": "Hello", "body": "World"},
    )


@settings(max_examples=40)
@given(SMTP_REPLIES, st.booleans())
def test_a_send_has_an_outcome_for_any_replies_of_a_mail_server(
    replies: list[bytes], signs_in: bool
) -> None:
    async def send() -> Outcome:
        async with open_raw_smtp(replies) as raw:
            smtp = SmtpSettings(
                host="127.0.0.1",
                port=raw.port,
                username="user" if signs_in else "",
                password=CANARY if signs_in else "",
                timeout_s=5,
                final_timeout_s=5,
            )
            async with open_smtp("smtp", smtp) as provider:
                return await provider.send(envelope("email"))

    result = asyncio.run(send())
    assert_storable(result)
    assert CANARY not in result.detail


@settings(max_examples=40)
@given(HTTP_RESPONSES)
def test_a_send_has_an_outcome_for_any_response_of_a_web_server(response: bytes) -> None:
    async def send() -> Outcome:
        async with open_http_script(lambda n: response if n == 1 else CLOSE, closes=True) as raw:
            http = HttpSettings(
                url=f"http://127.0.0.1:{raw.port}/",
                json="{}",
                password=CANARY,
                username="user",
                error_code=("code", "error.code"),
                reference="id",
                timeout_s=5,
            )
            async with open_http("http", http) as provider:
                return await provider.send(envelope("sms"))

    result = asyncio.run(send())
    assert_storable(result)
    assert CANARY not in result.detail


MAIL_LINES = st.sampled_from(
    [
        b"From: a@example.com",
        b"From: x",
        b"Subject: \xe9",
        b" folded",
        b"",
        b"\r",
        b".",
        b"Bcc: b@c.d",
    ]
) | st.binary(max_size=20)
MAILS = st.lists(MAIL_LINES, max_size=8).flatmap(
    lambda lines: st.sampled_from([b"\n", b"\r\n"]).map(lambda end: end.join([*lines, b""]))
)


@given(MAILS)
@example(b"From: a@example.com\n\n.\n")
def test_any_upload_is_a_mail_of_whole_lines_or_refused(data: bytes) -> None:
    try:
        check_mail(data)
    except ValueError:
        return
    mail = parse_mail(data)
    sent = bytes(MailText([mail.head, Lines(mail.body)]))
    assert b"bcc" not in mail.head.lower().split(b":")
    assert sent.replace(b"\r\n", b"").find(b"\n") == -1
    assert b"\r" not in sent.replace(b"\r\n", b"")
    assert sent.endswith(b"\r\n")


POINTERS = documents(
    pointers=st.lists(
        st.tuples(st.uuids().map(str) | JSON, st.integers(0, 9) | st.integers() | JSON), max_size=70
    )
    | JSON,
    published_at=st.floats() | JSON,
    more=JSON,
)


@given(
    corrupted(POINTERS) | st.binary(max_size=99), st.sampled_from(["email.high", "sms.low", None])
)
def test_a_message_decodes_to_storable_pointers_or_is_unreadable(
    body: bytes, routing_key: str | None
) -> None:
    try:
        pointers, deployment = decode(body, routing_key=routing_key, queue=EMAIL_HIGH)
    except UnreadableMessage:
        return
    assert 1 <= len(pointers) <= MAX_POINTERS_PER_MESSAGE
    again = decode(encode(pointers, deployment), routing_key="email.high", queue=EMAIL_HIGH)
    assert again == (pointers, deployment)
    for pointer in pointers:
        assert 0 <= pointer.claim <= MAX_INT4
        assert NotificationId(pointer.id) == pointer.id
        datetime.fromtimestamp(min(pointer.published_at, 253402300799.0), UTC)


TOML = corrupted(
    st.sampled_from(
        [
            Path("config/notifier.toml").read_bytes(),
            b'[api]\nport = 8000\n[log]\nlevel = "info"\n',
            b'[providers.a]\ntype = "http"\nurl = "http://x/"\nheaders = { A = "c4n4ry-s3cret" }\n',
            b'[providers.smtp]\ntype = "smtp"\nhost = "x"\npassword = "c4n4ry-s3cret"\nport = 25\n',
            b'[database]\nurl = "postgresql://a:c4n4ry-s3cret@db/x"\n',
        ]
    )
)
SECRETS = st.sampled_from(
    [CANARY, f"postgresql://a:{CANARY}@db/x", f"amqp://a:{CANARY}@[", f"amqp://{CANARY}@mq:x/"]
)


def variables(names: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    known = st.sampled_from(names.split()).map("NOTIFIER_{}".format)
    return st.dictionaries(known, values, max_size=3)


SECRET = variables("DATABASE_URL BROKER_URL DATABASE__URL PROVIDERS__SMTP__PASSWORD", SECRETS)
PLAIN = variables(
    "API__PORT LOG__LEVEL PROVIDERS__SMTP__PORT X__Y CHANNELS__EMAIL__PROVIDER API __ API__PORT__X"
    " PRIORITIES__HIGH__TRIES DATABASE_URL_FILE",
    st.text(st.characters(exclude_characters="\0"), max_size=20) | st.sampled_from(["8", "-"]),
)


@example(b"a = " + b"9" * 5000, b"", {}, {})
@example(b"a = " + b"[" * 5000, b"", {}, {})
@given(TOML, corrupted(st.just(b"NOTIFIER_API__PORT=1\nexport A='b' # c\n")), SECRET, PLAIN)
def test_settings_are_read_or_refused_without_showing_a_secret(
    toml: bytes, dotenv: bytes, secret: dict[str, str], plain: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "notifier.toml").write_bytes(toml)
        (folder / ".env").write_bytes(dotenv)
        environ = {**secret, **plain, "NOTIFIER_CONFIG": "notifier.toml"}
        try:
            load_settings(environ, cwd=folder)
        except ConfigError as error:
            message = str(error)
        else:
            message = ""
    assert CANARY not in message
