from __future__ import annotations

import pytest

from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.registry import PROVIDER_TYPES, open_provider
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.errors import ConfigError
from notifier.settings import convert_table


def test_the_type_of_a_settings_table_selects_the_provider() -> None:
    raw = {"type": "smtp", "host": "mail.example.com", "port": 587, "security": "starttls"}
    assert convert_table(raw, PROVIDER_TYPES, key="providers.smtp") == SmtpSettings(
        host="mail.example.com", port=587, security="starttls"
    )
    table = {
        "type": "http",
        "url": "https://sms.example.com",
        "form": {"To": "{{ recipient }}"},
        "headers": {"Authorization": "Bearer x"},
        "statuses": {"404": "gone"},
        "error_code": ["code"],
        "errors": {"21211": "refused"},
    }
    settings = convert_table(table, PROVIDER_TYPES, key="providers.sms")
    assert settings == HttpSettings(
        url="https://sms.example.com",
        form={"To": "{{ recipient }}"},
        headers={"Authorization": "Bearer x"},
        statuses={"404": "gone"},
        error_code=("code",),
        errors={"21211": "refused"},
    )


def test_the_repr_of_settings_shows_no_secret() -> None:
    http = HttpSettings(url="https://a.example", headers={"A": "s3cret"}, password="s3cret")
    smtp = SmtpSettings(host="a", username="me", password="s3cret")
    assert "s3cret" not in repr(http) + repr(smtp)


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "http", "url": "https://a", "statuses": {"4O4": "gone"}},
        {"type": "http", "url": "https://a", "errors": {"1": "maybe"}},
        {"type": "smtp", "host": "a", "security": "ssl"},
        {"type": "smtp"},
        {"type": "fax"},
    ],
)
def test_a_wrong_value_raises_config_error(raw: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        convert_table(raw, PROVIDER_TYPES, key="providers.x")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (SmtpSettings(host="a", sender="nobody"), "providers.x.sender"),
        (SmtpSettings(host="a", envelope_sender="no body"), "providers.x.envelope_sender"),
        (SmtpSettings(host="a", security="tls", ca_file="/nowhere.pem"), "providers.x.ca_file"),
        (HttpSettings(url="{{"), "providers.x.url"),
    ],
)
async def test_unusable_settings_raise_when_the_provider_opens(
    settings: SmtpSettings | HttpSettings, key: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        async with open_provider("x", settings):
            pass
    assert raised.value.key == key


def test_the_sandbox_has_a_provider_for_each_channel() -> None:
    assert set(sandbox_providers("http://127.0.0.1:8025", "127.0.0.1", 2525)) == {
        "smtp",
        "twilio",
        "fcm",
    }
