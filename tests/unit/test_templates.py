"""Templates without a renderer: names, locales, what may be sent, documents, and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest

from notifier.api.rules import AddressKind, ChannelRules
from notifier.api.templating.checking import checked_template
from notifier.cli.template_files import changed_files, read_folders, texts_of
from notifier.delivery.templates import TEMPLATED, TemplatedContent, encode_templated
from notifier.domain.errors import ConfigError, InvalidNotification
from notifier.domain.templates import TemplateRef, TemplateVersion, text_fault
from notifier.domain.tenants import DEFAULT_TENANT
from tests.stored_templates import email_template

CHANNELS = {
    "email": ChannelRules(address=AddressKind.EMAIL),
    "sms": ChannelRules(address=AddressKind.PHONE),
    "push": ChannelRules(address=AddressKind.TOKEN),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("order", ("order", None)),
        ("order-shipped_2@3", ("order-shipped_2", 3)),
        ("a" * 64, ("a" * 64, None)),
    ],
)
def test_a_template_is_named_with_or_without_its_version(
    text: str, expected: tuple[str, int | None]
) -> None:
    ref = TemplateRef.parse(text)
    assert tuple(ref) == expected
    assert str(ref) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Order",
        "1a",
        "a b",
        "a@",
        "a@0",
        "a@01",
        "a@-1",
        "a@x",
        "a@1@2",
        "@1",
        "a" * 65,
        "a@9999999999",
        "a\n",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a template"):
        TemplateRef.parse(text)


def version(*locales: str, default: str = "en") -> TemplateVersion:
    return TemplateVersion(
        id=UUID(int=1),
        tenant=DEFAULT_TENANT,
        name="order",
        version=1,
        default_locale=default,
        locales={locale: {"email": {"body": locale}} for locale in locales},
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, "en"),
        ("en", "en"),
        ("zh-Hant-TW", "zh-Hant"),
        ("ZH-HANT", "zh-Hant"),
        ("zh", "en"),
        ("de-AT", "de"),
        ("d", "en"),
    ],
)
def test_the_locale_is_looked_up_from_the_most_specific_one(
    wanted: str | None, expected: str
) -> None:
    assert version("en", "de", "zh-Hant").locale_for("email", wanted) == expected


def test_a_channel_that_no_candidate_has_has_no_locale() -> None:
    assert version("en", "de").locale_for("sms", "de") is None


@pytest.mark.parametrize(
    ("parts", "part"),
    [
        ({"subject": ""}, "subject"),
        ({"subject": "a\r\nBcc: eve@example.com"}, "subject"),
        ({"subject": "a\u2028b"}, "subject"),
        ({"subject": "a" * 999}, "subject"),
        ({"body": ""}, "body"),
        ({"data": {}}, "body"),
        ({"subject": "S", "html": "a\0"}, "html"),
        ({"subject": "S", "html": "ä" * 51}, "html"),
        ({}, "body"),
    ],
)
def test_a_text_that_cannot_be_sent_names_its_part(parts: Mapping[str, object], part: str) -> None:
    fault = text_fault(parts, 100 if "html" in parts else 10_000)
    assert fault is not None
    assert fault.part == part


@pytest.mark.parametrize(
    "parts",
    [{"subject": "a" * 998}, {"subject": "S", "body": ""}, {"body": "b"}, {"data": {"a": 1}}],
)
def test_a_text_that_can_be_sent_has_no_fault(parts: Mapping[str, object]) -> None:
    assert text_fault(parts, 10_000) is None


def test_the_stored_content_begins_with_what_workers_and_readers_look_for() -> None:
    own = TemplatedContent(
        template="order@3", locale="en", template_id=UUID(int=7), template_channel="email"
    )
    content = encode_templated(own, {"from": "a@example.com"})
    assert content.startswith(TEMPLATED)
    assert content.startswith(b'{"template":"order@3","locale":"en",')


def test_a_document_is_stored_the_same_whatever_the_order_and_the_nulls() -> None:
    texts = email_template(body="b", html=None)
    reordered = {
        "locales": {"en": {"email": {"body": "b", "subject": "S"}}},
        "schema": None,
        "default_locale": "en",
    }
    one, other = (
        checked_template(json.dumps(each).encode(), CHANNELS) for each in (texts, reordered)
    )
    assert one == other
    assert one.channels == ["email"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"default_locale", "locales"}),
        ({**email_template(body="b"), "default_locale": "de"}, {"default_locale"}),
        ({"default_locale": "e", "locales": {"e": {"sms": {"body": "b"}}}}, {"locales"}),
        ({"default_locale": "en", "locales": {"en": {}}}, {"locales.en"}),
        ({"default_locale": "en", "locales": {"en": {"fax": {"body": "b"}}}}, {"locales.en.fax"}),
        (
            {
                "default_locale": "en",
                "locales": {"en": {"sms": {"body": "b"}}, "EN": {"sms": {"body": "b"}}},
            },
            {"locales"},
        ),
        (
            {
                "default_locale": "en",
                "locales": {f"e{chr(97 + n)}": {"sms": {"body": "b"}} for n in range(4, 25)},
            },
            {"locales"},
        ),
        (email_template(), {"locales.en.email"}),
        (email_template(body="b", nothing=1), {"locales.en.email.nothing"}),
        (email_template(body=7), {"locales.en.email.body"}),
        (email_template(body="b", data={"a": 1}), {"locales.en.email.data"}),
        (email_template(body="b", html="h", mjml="m"), {"locales.en.email.mjml"}),
        (email_template(text="b"), {"locales.en.email.text"}),
        ({**email_template(body="b"), "schema": 7}, {"schema"}),
        ({**email_template(body="b"), "default_locale": 7}, {"default_locale"}),
        ({"default_locale": "en", "locales": {"en": 7}}, {"locales"}),
    ],
)
def test_a_wrong_document_names_its_fields(body: object, fields: set[str]) -> None:
    with pytest.raises(InvalidNotification) as refused:
        checked_template(json.dumps(body).encode(), CHANNELS)
    named = {each.field for each in (refused.value, *refused.value.others)}
    assert fields == named


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_folder_becomes_a_document(tmp_path: Path) -> None:
    write(
        tmp_path / "order",
        en__email__subject="S {{ id }}\n",
        en__email__txt="Hello\n",
        en__email__html="<p>",
        de__push__json='{"a": "{{ id }}"}',
        template__toml='default_locale = "en"',
        schema__json='{"type": "object"}',
        README__md="not a text",
    )
    (tmp_path / ".git").mkdir()
    assert read_folders(tmp_path) == {
        "order": {
            "default_locale": "en",
            "locales": {
                "de": {"push": {"data": {"a": "{{ id }}"}}},
                "en": {"email": {"subject": "S {{ id }}", "body": "Hello\n", "html": "<p>"}},
            },
            "schema": {"type": "object"},
        }
    }


def test_changes_name_the_files(tmp_path: Path) -> None:
    write(tmp_path / "order", en__email__subject="S", en__email__txt="a")
    before = read_folders(tmp_path)["order"]
    write(tmp_path / "order", en__email__txt="b", en__email__html="<p>")
    (tmp_path / "order/en.email.subject").unlink()
    after = read_folders(tmp_path)["order"]
    assert changed_files(before, after) == ["+en.email.html", "-en.email.subject", "en.email.txt"]
    assert changed_files(before, before) == []
    assert changed_files(None, before) == ["+en.email.subject", "+en.email.txt", "+template.toml"]
    assert texts_of(before)["en.email.txt"] == "a"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Order", "en.email.txt"),
        ("order", "en.email.doc"),
        ("order", "email.txt"),
        ("order", "en.txt"),
        ("order", "e.email.txt"),
    ],
)
def test_a_file_or_folder_with_another_name_is_refused(
    tmp_path: Path, name: str, file: str
) -> None:
    (write(tmp_path / name) / file).write_text("x")
    with pytest.raises(ConfigError, match="expected"):
        read_folders(tmp_path)


def test_several_locales_need_a_default(tmp_path: Path) -> None:
    folder = write(tmp_path / "order", en__sms__txt="a", de__sms__txt="b")
    with pytest.raises(ConfigError, match=r"template\.toml"):
        read_folders(tmp_path)
    (folder / "template.toml").write_text('default_locale = "fr"')
    with pytest.raises(ConfigError, match=r"one of de, en"):
        read_folders(tmp_path)


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b"{"])
def test_data_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path / "order") / "en.push.json").write_bytes(content)
    with pytest.raises(ConfigError, match="expected"):
        read_folders(tmp_path)


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no template"):
        read_folders(tmp_path)
    with pytest.raises(ConfigError, match="expected a folder"):
        read_folders(tmp_path / "nothing")
    write(tmp_path / "order")
    with pytest.raises(ConfigError, match="there is no text"):
        read_folders(tmp_path)
