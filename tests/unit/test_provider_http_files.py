"""The files of a notification in the templates of an HTTP provider."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping

import pytest

from notifier.adapters.providers.http.request import Templates, Unrenderable
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.domain.blobs import blob_id
from notifier.domain.notification import QueueKey
from notifier.ports.provider import Envelope
from tests.builders import new_id

FILES = """[{% for file in content.attachments -%}
{"name": {{ file.filename|tojson }}, "data": {{ file.data|tojson }}}
{%- if not loop.last %}, {% endif %}{% endfor %}]"""
LARGE = bytes(range(256)) * 4 * 1024 * 10  # 10 MiB


def rendered(template: str, content: Mapping[str, object], *files: bytes) -> object:
    templates = Templates("mail", HttpSettings(url="https://a.example", json=template))
    envelope = Envelope(
        id=new_id(),
        claim=1,
        queue=QueueKey.parse("email.high"),
        recipient="ada@example.com",
        content=content,
        files={blob_id(data): data for data in files},
    )
    body = templates.render(envelope).body
    assert body is not None
    return json.loads(body)


def attached(*files: bytes) -> Mapping[str, object]:
    documents = [
        {"filename": f"{n}.pdf", "content_type": "application/pdf", "blob": blob_id(data)}
        for n, data in enumerate(files)
    ]
    return {"subject": "s", "attachments": documents}


def test_a_template_gets_each_file_in_base64() -> None:
    found = rendered(FILES, attached(b"", b"pdf", LARGE), b"", b"pdf", LARGE)
    assert isinstance(found, list)
    assert [each["name"] for each in found] == ["0.pdf", "1.pdf", "2.pdf"]
    assert [b64decode(each["data"]) for each in found] == [b"", b"pdf", LARGE]


def test_a_whole_mail_is_given_in_base64() -> None:
    found = rendered('{"raw": {{ content.mime|tojson }}}', {"mime": blob_id(LARGE)}, LARGE)
    assert isinstance(found, dict)
    assert b64decode(found["raw"]) == LARGE


@pytest.mark.parametrize(
    "content",
    [attached(b"missing"), {"attachments": [None, 1, {}]}, {"attachments": 1}, {"mime": 7}],
)
def test_a_file_that_was_not_loaded_makes_it_unrenderable(content: Mapping[str, object]) -> None:
    with pytest.raises(Unrenderable):
        rendered(FILES, content, b"other")


def test_a_template_that_wants_a_text_is_not_rendered_for_a_whole_mail() -> None:
    with pytest.raises(Unrenderable):
        rendered("{{ content.subject|tojson }}", {"mime": blob_id(LARGE)}, LARGE)
