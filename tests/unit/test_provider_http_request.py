from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import parse_qs
from uuid import UUID

import pytest

from notifier.adapters.providers.fcm.settings import FcmSettings
from notifier.adapters.providers.http.request import Request, Templates, Unrenderable
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.sandboxed import twilio
from notifier.domain.errors import ConfigError
from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports.provider import Envelope

ID = NotificationId(UUID("018f0000-0000-7000-8000-000000000001"))
URL = "https://sms.example.com/send"


def rendered(
    settings: HttpSettings,
    content: Mapping[str, object] | None = None,
    recipient: str = "+15005550006",
) -> Request:
    envelope = Envelope(
        id=ID,
        claim=2,
        queue=QueueKey.parse("sms.low"),
        recipient=recipient,
        content={"body": "hi"} if content is None else content,
    )
    return Templates("sms", settings).render(envelope)


def body_of(request: Request) -> str:
    assert request.body is not None
    return request.body.decode()


def test_every_request_carries_the_notification_id_and_the_claim() -> None:
    headers = rendered(HttpSettings(url=URL)).headers
    assert headers == {"Idempotency-Key": str(ID), "Notifier-Claim": "2"}


def test_a_header_of_the_settings_replaces_a_default_in_any_case() -> None:
    settings = HttpSettings(url=URL, headers={"idempotency-key": "{{ id }}-{{ claim }}"})
    headers = rendered(settings).headers
    assert headers == {"idempotency-key": f"{ID}-2", "Notifier-Claim": "2"}


def test_the_login_is_sent_in_utf_8() -> None:
    headers = rendered(HttpSettings(url=URL, username="änn", password="pa:ß")).headers
    login = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    assert login == "änn:pa:ß"


def test_an_international_host_name_is_sent_in_ascii() -> None:
    assert rendered(HttpSettings(url="https://bücher.example/ä b")).url == (
        "https://xn--bcher-kva.example/%C3%A4%20b"
    )


def test_a_form_is_encoded_field_by_field() -> None:
    settings = HttpSettings(url=URL, form={"To": "{{ recipient }}", "Body": "{{ content.body }}"})
    request = rendered(settings, {"body": "a&To=+1=é\n"})
    assert parse_qs(body_of(request)) == {"To": ["+15005550006"], "Body": ["a&To=+1=é\n"]}
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_tojson_makes_any_content_valid_json() -> None:
    settings = HttpSettings(url=URL, json='{"b": {{ content.body|tojson }}, "p": "{{ priority }}"}')
    request = rendered(settings, {"body": '"},\\ </script> \U0001f600\n'})
    assert json.loads(body_of(request)) == {"b": '"},\\ </script> \U0001f600\n', "p": "low"}
    assert request.headers["Content-Type"] == "application/json"


def test_invalid_json_from_a_template_is_not_sent() -> None:
    with pytest.raises(Unrenderable):
        rendered(HttpSettings(url=URL, json='{"b": "{{ content.body }}"}'), {"body": '"'})


def test_urlencode_keeps_a_recipient_within_its_part_of_the_url() -> None:
    settings = HttpSettings(url=URL + "/{{ recipient|urlencode }}?c={{ channel }}")
    request = rendered(settings, recipient="../a?b#c d+e")
    assert str(request.url) == URL + "/..%2Fa%3Fb%23c%20d%2Be?c=sms"


ENDLESS = "{% for i in range(9999) %}{% for j in range(9999) %}{{ i }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "settings",
    [
        HttpSettings(url=URL, json="{{ content.subject|tojson }}"),
        HttpSettings(url=URL, form={"a": "{{ content.html }}"}),
        HttpSettings(url=URL + "{{ content.subject|urlencode }}"),
        HttpSettings(url=URL, headers={"X-A": "{{ content.subject }}"}),
        HttpSettings(url="{{ content.subject }}"),
        HttpSettings(url=URL, form={"a": ENDLESS}),
        HttpSettings(url=URL, form={"a": "{{ content.body / 2 }}"}),
        HttpSettings(url=URL, headers={"X-A": "{{ 'a\r\nX-B: c' }}"}),
        HttpSettings(url="ftp://{{ recipient }}/"),
        HttpSettings(url="{{ content.body }}"),
        HttpSettings(url="http://[{{ content.body }}/"),
    ],
)
def test_a_template_that_fails_raises_unrenderable(settings: HttpSettings) -> None:
    with pytest.raises(Unrenderable):
        rendered(settings)


def test_a_default_replaces_an_absent_value() -> None:
    settings = HttpSettings(url=URL, form={"a": "{{ content.subject|default('none') }}"})
    assert body_of(rendered(settings)) == "a=none"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (HttpSettings(url="{{ a"), "providers.sms.url"),
        (HttpSettings(url=URL, form={"To": "{% if %}"}), "providers.sms.form.To"),
        (HttpSettings(url=URL, json="{{ a|nofilter( }}"), "providers.sms.json"),
        (HttpSettings(url=URL, json="{}", form={}), "providers.sms.json"),
        (HttpSettings(url=URL, headers={"a b": ""}), "providers.sms.headers.a b"),
        (
            HttpSettings(url=URL, headers={"Content-length": "1"}),
            "providers.sms.headers.Content-length",
        ),
        (HttpSettings(url="ftp://a.example/"), "providers.sms.url"),
        (HttpSettings(url=URL, json="{{ recipent|tojson }}"), "providers.sms.json"),
        (HttpSettings(url=URL, form={"To": "{{ content.bdy }}"}), "providers.sms.form.To"),
        (HttpSettings(url="a.example"), "providers.sms.url"),
        (HttpSettings(url="https://a.example:99999/"), "providers.sms.url"),
        (
            HttpSettings(url=URL, username="a", headers={"authorization": "b"}),
            "providers.sms.username",
        ),
    ],
)
def test_unusable_settings_raise_at_the_start(settings: HttpSettings, key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Templates("sms", settings)
    assert raised.value.key == key


def test_templates_may_use_every_variable_and_names_of_their_own() -> None:
    json = """{"a": [{% for key, value in content.data|items %}
        {%- set both = key ~ value.x %}{{ both|tojson }}{{ "" if loop.last else "," }}
    {%- endfor %}], "b": "{{ recipient }}{{ id }}{{ claim }}{{ channel }}{{ priority }}"}"""
    content = {"data": {"k": {"x": 1}}}
    assert b'"k1"' in (rendered(HttpSettings(url=URL, json=json), content).body or b"")


def test_the_sms_form_is_the_one_of_twilio() -> None:
    request = rendered(twilio("https://api.example.com/", account="AC1"), {"body": "code 1"})
    assert str(request.url) == "https://api.example.com/2010-04-01/Accounts/AC1/Messages.json"
    assert parse_qs(body_of(request)) == {
        "To": ["+15005550006"],
        "From": ["+15005550006"],
        "Body": ["code 1"],
    }


FCM = FcmSettings(url="https://fcm.example.com").requests("p")


def test_the_push_document_is_the_one_of_fcm_with_data_as_strings() -> None:
    content = {
        "subject": "S",
        "body": "B",
        "data": {"a": 1, "b": 'x"y', "c": {"d": [None]}, "e": None},
    }
    request = rendered(FCM, content, "tok")
    assert str(request.url) == "https://fcm.example.com/v1/projects/p/messages:send"
    assert json.loads(body_of(request)) == {
        "message": {
            "token": "tok",
            "notification": {"title": "S", "body": "B"},
            "data": {"a": "1", "b": 'x"y', "c": '{"d":[null]}', "e": ""},
        }
    }
    bare = json.loads(body_of(rendered(FCM, {}, "tok")))
    assert bare["message"] == {"token": "tok", "notification": {"title": "", "body": ""}}
    empty = rendered(FCM, {"data": {}}, "tok")
    assert json.loads(body_of(empty))["message"]["data"] == {}
