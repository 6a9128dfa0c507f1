"""Every parser of external input either returns a value or raises its documented error.

Each test is also a target of `make fuzz`, which runs it for minutes instead of a few examples.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unicodedata import category
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.adapters.postgres.heartbeat import decode_figures, encode_figures
from notifier.adapters.providers.http.answers import AnswerTable
from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.request import Templates, Unrenderable
from notifier.adapters.providers.http.responses import retry_after, values_at
from notifier.adapters.providers.http.settings import HttpSettings, SuccessSettings
from notifier.adapters.providers.http.transport import Answer
from notifier.adapters.providers.signed_receipts import SignedReceiptVerifier
from notifier.adapters.providers.smtp.addresses import Unsendable
from notifier.adapters.providers.smtp.mail_text import Lines, MailText
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.replies import ReplyRules, Step
from notifier.adapters.providers.smtp.reply import ProtocolError, Reply, ReplyReader
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.adapters.providers.verdict import outcome
from notifier.adapters.rabbitmq.wire import UnreadableMessage, decode, encode
from notifier.cli.spans import read_span
from notifier.delivery.files import FileLoader, HeldFiles
from notifier.delivery.templates import TEMPLATED, TemplateCache, TemplateContents
from notifier.domain.blobs import BlobId, blob_id
from notifier.domain.breaker import ProviderFigures
from notifier.domain.errors import ConfigError
from notifier.domain.features import ALL_FEATURES, KNOWN_PARTS
from notifier.domain.holds import time_zone_of
from notifier.domain.notification import Channel, Claimed, NotificationId, Priority, QueueKey
from notifier.domain.outcome import (
    MAX_CODE_LENGTH,
    MAX_DETAIL_LENGTH,
    MAX_REFERENCE_LENGTH,
    Outcome,
    Refused,
)
from notifier.domain.receipts import ReceiptEvent, UndeliveredReason
from notifier.domain.templates import TemplateFault, TemplateVersion
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.domain.time_zones import zone_named
from notifier.domain.webhook_signature import ID, SIGNATURE, TIMESTAMP, signed_headers
from notifier.domain.whole_mail import check_mail, parse_mail
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.provider import Envelope
from notifier.ports.receipts import ReceiptRefusal
from notifier.settings.load import load_settings
from tests.builders import EMAIL_HIGH, new_id
from tests.integration.raw_servers import CLOSE, open_http_script, open_raw_smtp
from tests.property.inputs import CONTENT_FIELDS, JSON, MAILS, corrupted, documents
from tests.unit.fakes_api import InlineRenderer, MemoryTemplates

pytestmark = pytest.mark.filterwarnings(
    "ignore:BasicAuth is deprecated:DeprecationWarning",
    "ignore:The 'auth' parameter is deprecated:DeprecationWarning",
)

CANARY: Final = "c4n4ry-s3cret"
MAX_INT4: Final = 2**31 - 1


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


COUNTS = st.integers() | st.floats() | JSON
FIGURES = documents(
    queues=st.dictionaries(
        st.sampled_from(["email.high", "email", "x.high", ""]),
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(QueueFigures.__struct_encode_fields__, COUNTS)
        )
        | JSON,
    )
    | JSON,
    providers=st.dictionaries(
        st.text(),
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(ProviderFigures.__struct_encode_fields__, COUNTS)
        )
        | JSON,
    )
    | JSON,
    draining=st.booleans() | JSON,
    version=st.text() | JSON,
    features=st.lists(st.sampled_from(sorted(ALL_FEATURES)) | JSON) | JSON,
)


@given(corrupted(FIGURES))
def test_a_heartbeat_of_another_version_has_figures_or_none(stored: bytes) -> None:
    try:
        figures = decode_figures(stored.decode("utf-8", "replace"))
    except ValueError:
        return
    assert decode_figures(encode_figures(figures)).queues == figures.queues


VERSION: Final = TemplateVersion(
    id=UUID(int=7),
    tenant=DEFAULT_TENANT,
    name="order",
    version=1,
    default_locale="en",
    locales={"en": {"email": {"subject": "Order {{ id }}", "body": "Hello {{ name }}"}}},
)
FILE: Final = b"data"


class OneOfEach(MemoryTemplates):
    """A TemplateReader and a BlobReader with one version of a template and one blob."""

    async def load(self, id: UUID) -> TemplateVersion | None:  # noqa: A002 the port's word
        return VERSION if id == VERSION.id else None

    async def sizes(self, _: NotificationId, ids: Collection[BlobId]) -> Mapping[BlobId, int]:
        return {id_: len(FILE) for id_ in ids if id_ == blob_id(FILE)}

    async def read(self, _: NotificationId, id: BlobId) -> bytes | None:  # noqa: A002 the port's word
        return FILE if id == blob_id(FILE) else None


STORED: Final[dict[str, st.SearchStrategy[Any]]] = {
    **CONTENT_FIELDS,
    "recipient_name": st.text() | JSON,
    "suppressed_copies": st.lists(st.text()) | JSON,
    "time_zone": st.sampled_from(["Europe/Berlin", "x"]) | JSON,
    "event": st.just({"id": "e1", "type": "webhook.test", "data": {}}) | JSON,
    "mime": st.just(blob_id(FILE)) | JSON,
    "attachments": st.lists(
        st.fixed_dictionaries(
            {"filename": st.just("a.txt"), "content_type": st.just("text/plain")},
            optional={"blob": st.just(blob_id(FILE)) | JSON, "content_id": st.text() | JSON},
        )
    )
    | JSON,
}
OWN: Final[dict[str, st.SearchStrategy[Any]]] = {
    "template": st.just("order@1") | JSON,
    "locale": st.sampled_from(["en", "de"]) | JSON,
    "template_id": st.just(str(VERSION.id)) | JSON,
    "template_channel": st.just("email") | JSON,
    "variables": st.just({"id": 1, "name": "Ada"}) | JSON,
}
CONTENTS = documents(**STORED) | st.tuples(
    st.fixed_dictionaries(OWN), st.fixed_dictionaries({}, optional=STORED)
).map(lambda both: msgspec.json.encode(both[0])[:-1] + b"," + msgspec.json.encode(both[1])[1:])
REQUESTS: Final = Templates(
    "http",
    HttpSettings(
        url="http://127.0.0.1/{{ recipient|urlencode }}",
        json='{"to": {{ recipient|tojson }}, "content": {{ content|tojson }}}',
        headers={"X-Subject": "{{ content.subject|default('') }}"},
    ),
)


def test_the_stored_contents_have_every_part() -> None:
    assert set(STORED) | set(OWN) == KNOWN_PARTS


@given(corrupted(CONTENTS) | CONTENTS)
def test_a_stored_content_can_be_sent_or_has_its_fault(content: bytes) -> None:
    claimed = Claimed(
        id=new_id(),
        claim=1,
        queue=EMAIL_HIGH,
        recipient="ada@example.com",
        content=content,
        tries=0,
        max_tries=None,
        waited_s=0.0,
    )
    zone_named(time_zone_of(content) or "", "")
    parts, files = asyncio.run(loaded(claimed))
    assert isinstance(parts, Mapping | TemplateFault)
    assert isinstance(files, HeldFiles | Refused)
    if isinstance(parts, Mapping) and isinstance(files, HeldFiles):
        own = {"content": parts, "files": files.data}
        asyncio.run(compose(msgspec.structs.replace(envelope("email"), **own)))


async def loaded(claimed: Claimed) -> tuple[object, object]:
    """What a worker makes of a row before it calls the provider: its content and its files."""
    files = await FileLoader(OneOfEach(), 1000).load(claimed, copies=0, timeout_s=1.0)
    if not claimed.content.startswith(TEMPLATED):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(claimed.content, type=dict[str, object]), files
    contents = TemplateContents(
        versions=TemplateCache(OneOfEach()), renderer=InlineRenderer(), max_bytes=1000
    )
    return await contents.render(claimed), files


async def compose(of: Envelope) -> None:
    """Make what the providers send."""
    async with open_smtp("smtp", SmtpSettings(host="127.0.0.1", port=25)) as smtp:
        with suppress(Unsendable):
            smtp._mail(of)
    with suppress(Unrenderable):
        REQUESTS.render(of)


@given(corrupted(st.sampled_from([b"90s", b"1h30m", b"1.5", b"2d"])) | st.binary(max_size=9))
def test_a_span_is_a_number_of_seconds_or_refused(text: bytes) -> None:
    try:
        seconds = read_span(text.decode("latin-1"))
    except ValueError:
        return
    assert 0 < seconds < float("inf")


RECEIPT_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "event": st.sampled_from([*ReceiptEvent, "opened"]) | JSON,
    "reference": st.sampled_from(["SM1", ""]) | st.text(st.characters()) | JSON,
    "at": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | JSON,
    "id": st.text(st.characters()) | JSON,
    "recipient": st.text(st.characters()) | JSON,
    "reason": st.sampled_from([*UndeliveredReason, None]) | JSON,
    "code": st.text(st.characters(), max_size=200) | JSON,
    "detail": st.text(st.characters(), max_size=900) | JSON,
}
NEEDED_OF_RECEIPTS: Final = ("event", "reference", "at")
RECEIPT_BODIES = st.lists(
    st.fixed_dictionaries(
        {name: RECEIPT_FIELDS[name] for name in NEEDED_OF_RECEIPTS},
        optional={
            name: values
            for name, values in RECEIPT_FIELDS.items()
            if name not in NEEDED_OF_RECEIPTS
        },
    ),
    max_size=3,
).map(lambda receipts: json.dumps({"receipts": receipts}).encode())
RECEIPT_SECRET: Final = b"a secret that signs receipts"


@given(corrupted(RECEIPT_BODIES) | st.binary())
def test_receipts(body: bytes) -> None:
    """What is read of a signed body can be stored."""
    now = datetime(2026, 11, 28, tzinfo=UTC)
    headers = signed_headers(RECEIPT_SECRET, "msg_1", int(now.timestamp()), body)
    receipts = SignedReceiptVerifier(RECEIPT_SECRET).verify(body, headers, now)
    assert receipts is not ReceiptRefusal.SIGNATURE
    for receipt in [] if isinstance(receipts, ReceiptRefusal) else receipts:
        assert 0 < len(receipt.reference) <= MAX_REFERENCE_LENGTH
        assert len(receipt.code) <= MAX_CODE_LENGTH
        assert len(receipt.detail) <= MAX_DETAIL_LENGTH
        assert receipt.provider_at is not None
        assert receipt.provider_at.astimezone(UTC).timestamp() > -86_400
        for text in (receipt.reference, receipt.code, receipt.detail, receipt.recipient or ""):
            assert not {"Cc", "Cs"} & set(map(category, text))
            text.encode()


@given(st.dictionaries(st.sampled_from([ID, TIMESTAMP, SIGNATURE]), st.text() | JSON.map(str)))
def test_signatures_of_receipts(headers: dict[str, str]) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    refused = SignedReceiptVerifier(RECEIPT_SECRET).verify(b"{}", headers, now)
    assert refused is ReceiptRefusal.SIGNATURE
