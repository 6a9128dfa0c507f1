"""What could add or end a header of a mail is refused at submit, in every field, with its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import InvalidNotification
from tests.unit.fakes_api import DEFAULT_RULES, submit_body

VALIDATOR = SubmitValidator(DEFAULT_RULES)
CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"]
BREAKS = ["\r\n", "\r\n ", "\n\t", "\r\nBcc: eve@example.com\r\n", "\r\n\r\n", "\r\n.\r\n", "\n.\n"]
SURROGATES = ["\ud800", "\udfff", "\udc00\ud800"]
HOSTILE = [*CONTROLS, *BREAKS, *SURROGATES]


def mail(**content: object) -> dict[str, object]:
    return submit_body(content={"subject": "s", "body": "b", **content})


def with_file(**changes: object) -> dict[str, object]:
    file = {"filename": "a.pdf", "content_type": "application/pdf", "data": "", **changes}
    return mail(attachments=[file])


FIELDS: Mapping[str, Callable[[str], dict[str, object]]] = {
    "recipient": lambda part: submit_body(recipient=f"A{part}da <ada@example.com>"),
    "content.subject": lambda part: mail(subject=f"Hel{part}lo"),
    "content.from": lambda part: mail(**{"from": f"A{part}da <ada@example.com>"}),
    "content.reply_to": lambda part: mail(reply_to=f"A{part}da <ada@example.com>"),
    "content.cc": lambda part: mail(cc=f"A{part}da <ada@example.com>"),
    "content.bcc": lambda part: mail(bcc=f"A{part}da <ada@example.com>"),
    "content.headers.X-Shop": lambda part: mail(headers={"X-Shop": f"a{part}b"}),
    "content.headers.References": lambda part: mail(headers={"References": f"<a{part}b@c.d>"}),
    "content.headers.In-Reply-To": lambda part: mail(headers={"In-Reply-To": f"<a@b.c>{part}"}),
    "content.headers.Auto-Submitted": lambda part: mail(headers={"Auto-Submitted": f"no{part}"}),
    "content.headers.List-Id": lambda part: mail(headers={"List-Id": f"a{part} <a.b>"}),
    "content.headers": lambda part: mail(headers={f"X-A{part}B": "1"}),
    "content.attachments.0.filename": lambda part: with_file(filename=f"a{part}b.pdf"),
    "content.attachments.0.content_type": lambda part: with_file(content_type=f"a/b{part}c"),
    "content.attachments.0.content_id": lambda part: with_file(content_id=f"a{part}b"),
}


def test_there_are_more_than_fifty_of_them() -> None:
    assert len(set(HOSTILE)) > 50


@pytest.mark.parametrize("field", FIELDS)
def test_the_field_is_right_without_them(field: str) -> None:
    VALIDATOR.validate(json.dumps(FIELDS[field]("")).encode())


@pytest.mark.parametrize("field", FIELDS)
def test_each_is_refused_with_the_name_of_the_field(field: str) -> None:
    for part in HOSTILE:
        with pytest.raises(InvalidNotification) as caught:
            VALIDATOR.validate(json.dumps(FIELDS[field](part)).encode())
        faults = [fault.field for fault in (caught.value, *caught.value.others)]
        is_key = part in SURROGATES and field == "content.headers"
        assert faults == [field] or (is_key and faults[0].startswith(field)), ascii(part)
