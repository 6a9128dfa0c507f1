from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from msgspec import structs

from notifier.adapters.providers import registry
from notifier.adapters.providers.http.settings import HttpSettings, SuccessSettings
from notifier.adapters.providers.registry import PROVIDER_TYPES, open_provider
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.app.providers import breaker_rules, provider_settings
from notifier.domain.errors import ConfigError
from notifier.domain.secret_names import is_secret
from notifier.settings import Settings, convert_table, load_settings


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, which can be read as an authority, too."""
    file = tmp_path_factory.mktemp("certificate") / "own.pem"
    trustme.CA().issue_cert("a").private_key_and_cert_chain_pem.write_to_path(file)
    return file


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
        "error_code": ["code"],
        "answers": {"404": "gone", "21211": "deferred", "/out of credit/": "misconfigured"},
        "success": {"path": "messages.*.status", "values": ["0", 0, True], "otherwise": "gone"},
    }
    settings = convert_table(table, PROVIDER_TYPES, key="providers.sms")
    assert settings == HttpSettings(
        url="https://sms.example.com",
        form={"To": "{{ recipient }}"},
        headers={"Authorization": "Bearer x"},
        error_code=("code",),
        answers={"404": "gone", "21211": "deferred", "/out of credit/": "misconfigured"},
        success=SuccessSettings(path="messages.*.status", values=("0", 0, True), otherwise="gone"),
    )


def test_the_repr_of_settings_shows_no_secret() -> None:
    http = HttpSettings(url="https://a.example", headers={"A": "s3cret"}, password="s3cret")
    smtp = SmtpSettings(host="a", username="me", password="s3cret")
    assert "s3cret" not in repr(http) + repr(smtp)


@pytest.mark.parametrize("settings_class", PROVIDER_TYPES.values())
def test_the_repr_shows_exactly_the_fields_that_check_config_does_not_mask(
    settings_class: type[ProviderSettings],
) -> None:
    required = [field.name for field in msgspec.structs.fields(settings_class) if field.required]
    values: dict[str, Any] = dict.fromkeys(required, "x")
    shown = repr(settings_class(**values))
    for name in settings_class.__struct_fields__:
        key = f"providers.x.{name}"
        is_masked = is_secret(key) or is_secret(f"{key}.entry")
        assert (f"{name}=" not in shown) == is_masked, name


def test_the_repr_hides_the_token_of_a_new_provider_type() -> None:
    class TokenSettings(ProviderSettings, frozen=True, kw_only=True, tag="token"):
        token: str
        host: str

    shown = repr(TokenSettings(token="s3cret", host="a"))
    assert "s3cret" not in shown
    assert "host='a'" in shown


def test_every_provider_type_is_selected_by_the_tag_of_its_settings() -> None:
    tags = {tag: cls.__struct_config__.tag for tag, cls in PROVIDER_TYPES.items()}
    assert tags == {tag: tag for tag in PROVIDER_TYPES}
    assert len(registry._ROWS) == len(PROVIDER_TYPES)


@pytest.mark.parametrize("provider_type", PROVIDER_TYPES)
def test_the_documentation_describes_every_provider_type(provider_type: str) -> None:
    assert f"\nType `{provider_type}`: " in Path("docs/configuration.md").read_text()


async def test_the_example_of_the_documentation_can_be_used() -> None:
    text = Path("docs/configuration.md").read_text()
    (example,) = [part for part in text.split("```") if "[providers.vonage]" in part]
    table = tomllib.loads(example.removeprefix("toml"))["providers"]["vonage"]
    settings = convert_table(table, PROVIDER_TYPES, key="providers.vonage")
    async with open_provider("vonage", settings):
        pass


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "http", "url": "https://a", "errors": {"404": "gone"}},
        {"type": "http", "url": "https://a", "answers": {"1": "maybe"}},
        {"type": "http", "url": "https://a", "success": {"path": "a", "value": ["1"]}},
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
        (HttpSettings(url="https://a", ca_file="/nowhere.pem"), "providers.x.ca_file"),
        (HttpSettings(url="https://a", cert_file="/nowhere.pem"), "providers.x.cert_file"),
        (HttpSettings(url="https://a", key_file="/nowhere.pem"), "providers.x.cert_file"),
        (HttpSettings(url="https://a", key_password="s3cret"), "providers.x.cert_file"),
        (HttpSettings(url="http://a", cert_file="{certificate}"), "providers.x.cert_file"),
        (HttpSettings(url="http://a", ca_file="{certificate}"), "providers.x.ca_file"),
        (
            HttpSettings(url="HTTP://a", ca_file="{certificate}", proxy="http://b"),
            "providers.x.ca_file",
        ),
        (HttpSettings(url="http://a", http_version="2"), "providers.x.http_version"),
        (HttpSettings(url="https://a", password="s3cret"), "providers.x.username"),
        (SmtpSettings(host="a", password="s3cret"), "providers.x.username"),
        (SmtpSettings(host="a", ca_file="{certificate}"), "providers.x.ca_file"),
        (HttpSettings(url="https://a", proxy="proxy:3128"), "providers.x.proxy"),
        (HttpSettings(url="https://a", proxy="ftp://proxy"), "providers.x.proxy"),
        (HttpSettings(url="https://a", json='{"to": }'), "providers.x.json"),
        (HttpSettings(url="https://a", headers={"X-Key": "a\nb"}), "providers.x.headers.X-Key"),
        (HttpSettings(url="https://a", answers={"/(/": "gone"}), "providers.x.answers./(/"),
        (HttpSettings(url="https://a", answers={"499-400": "gone"}), "providers.x.answers.499-400"),
        (HttpSettings(url="https://a", answers={"21211": "gone"}), "providers.x.error_code"),
        (HttpSettings(url="https://a", answers={"40x": "gone"}), "providers.x.answers.40x"),
        (HttpSettings(url="https://a", answers={"6xx": "gone"}), "providers.x.answers.6xx"),
        (HttpSettings(url="https://a", answers={"1xx": "gone"}), "providers.x.answers.1xx"),
        (HttpSettings(url="https://a", answers={"100": "gone"}), "providers.x.answers.100"),
        (HttpSettings(url="https://a", answers={" 404": "gone"}), "providers.x.answers. 404"),
        (HttpSettings(url="https://a", error_code=("",)), "providers.x.error_code"),
        (HttpSettings(url="https://a", error_code=("code ",)), "providers.x.error_code"),
        (HttpSettings(url="https://a", answers={"a[0]=1": "gone"}), "providers.x.answers.a[0]=1"),
        (HttpSettings(url="https://a", error_code=("$.code",)), "providers.x.error_code"),
        (HttpSettings(url="https://a", reference="messages[0].id"), "providers.x.reference"),
        (
            HttpSettings(url="https://a", success=SuccessSettings(path="a..b", values=(1,))),
            "providers.x.success.path",
        ),
        (HttpSettings(url="https://a", success=SuccessSettings()), "providers.x.success"),
        (
            HttpSettings(url="https://a", success=SuccessSettings(path="ok")),
            "providers.x.success.values",
        ),
        (
            HttpSettings(url="https://a", success=SuccessSettings(text="(")),
            "providers.x.success.text",
        ),
    ],
)
async def test_unusable_settings_raise_when_the_provider_opens(
    settings: SmtpSettings | HttpSettings, key: str, certificate: Path
) -> None:
    files = {
        name: str(certificate)
        for name in ("ca_file", "cert_file")
        if getattr(settings, name, "") == "{certificate}"
    }
    with pytest.raises(ConfigError) as raised:
        async with open_provider("x", structs.replace(settings, **files)):
            pass
    assert raised.value.key == key
    assert str(raised.value).startswith(key)


async def test_an_authority_for_an_https_proxy_is_used_although_the_url_is_http(
    certificate: Path,
) -> None:
    settings = HttpSettings(url="http://a", ca_file=str(certificate), proxy="https://proxy:3128")
    async with open_provider("x", settings):
        pass


@pytest.mark.parametrize(
    ("address", "json", "is_usable"),
    [
        ("email", '{"to": {{ recipient }}}', False),
        ("phone", "{{ recipient }}", False),
        ("token", '{"chat_id": {{ recipient }}}', True),
        ("email", '{"to": {{ recipient|tojson }}, "text": {{ content.body|tojson }}}', True),
        ("email", '{"to": "{{ recipient }}"}', True),
        ("token", '{"to": "{{ recipient }}",}', False),
        ("token", '{"id": {{ id }}}', False),
        ("token", "{{ content.data.message }}", True),
        ("token", "{{ content.body }}", True),
    ],
)
def test_json_that_no_notification_of_the_channel_renders_is_refused(
    tmp_path: Path, address: str, json: str, *, is_usable: bool
) -> None:
    settings = settings_with(
        tmp_path, f"type = 'http'\nurl = 'https://a'\njson = '{json}'", address=address
    )
    if is_usable:
        assert list(provider_settings(settings)) == ["x"]
        return
    with pytest.raises(ConfigError, match=r"^providers\.x\.json: .*tojson") as raised:
        provider_settings(settings)
    assert raised.value.key == "providers.x.json"


@pytest.mark.parametrize("limit_s", [20, 12.5])
def test_a_call_of_an_http_provider_must_end_before_the_worker_cuts_it_off(
    tmp_path: Path, limit_s: float
) -> None:
    http = f"type = 'http'\nurl = 'https://a'\ntimeout_s = {limit_s}"
    settings = settings_with(tmp_path, http, worker=f"send_timeout_s = {limit_s}")
    with pytest.raises(ConfigError, match=r"less than worker\.send_timeout_s") as raised:
        provider_settings(settings)
    assert raised.value.key == "providers.x.timeout_s"
    settings = settings_with(tmp_path, http, worker=f"send_timeout_s = {limit_s + 0.5}")
    assert provider_settings(settings)["x"].timeout_s == limit_s


def test_the_limits_of_a_mail_may_be_longer_than_the_worker_s(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "type = 'smtp'\nhost = 'a'\ntimeout_s = 60")
    assert provider_settings(settings)["x"].longest_send_s == 300


@pytest.mark.parametrize(
    ("timeout_s", "stop_s", "opens_after_s"),
    [(15, 10, 10), (3, 10, 2), (3, 1, 1), (3, 0, 0), (0.8, 10, 2)],
)
def test_a_breaker_opens_before_unanswered_calls_time_out(
    tmp_path: Path, timeout_s: float, stop_s: float, opens_after_s: float
) -> None:
    settings = settings_with(tmp_path, f"type = 'http'\nurl = 'https://a'\ntimeout_s = {timeout_s}")
    channel = structs.replace(settings.channels["a"], stop_unanswered_s=stop_s)
    settings = structs.replace(settings, channels={"a": channel})
    rule = breaker_rules(settings, provider_settings(settings))["x"]
    assert rule.stop_unanswered_s == {"a": pytest.approx(opens_after_s)}


def settings_with(
    folder: Path, provider: str, *, address: str = "email", worker: str = ""
) -> Settings:
    """Settings with one channel and one provider, from TOML."""
    file = folder / "notifier.toml"
    file.write_text(
        f"[worker]\n{worker}\n[channels.a]\naddress = '{address}'\nprovider = 'x'\n"
        f"[providers.x]\n{provider}\n"
    )
    return load_settings({"NOTIFIER_CONFIG": str(file)}, cwd=folder)


def test_the_sandbox_has_a_provider_for_each_channel() -> None:
    assert set(sandbox_providers("http://127.0.0.1:8025", "127.0.0.1", 2525)) == {
        "smtp",
        "twilio",
        "fcm",
    }


async def test_a_host_and_an_ehlo_name_are_converted_by_idna_2008() -> None:
    settings = SmtpSettings(host="straße.test", ehlo_name="bücher.example")
    async with open_smtp("smtp", settings) as provider:
        assert provider._server.host == "xn--strae-oqa.test"
        assert provider._server.ehlo_name == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"host": "☃.example"}, "providers.mail.host"),
        ({"host": "mail.example.com:587"}, "providers.mail.host"),
        ({"host": "smtp://mail.example.com"}, "providers.mail.host"),
        ({"host": "mail.example.com "}, "providers.mail.host"),
        ({"ehlo_name": "☃.example"}, "providers.mail.ehlo_name"),
        ({"ehlo_name": "mail example.com"}, "providers.mail.ehlo_name"),
        ({"ehlo_name": "a.example\r\nRSET"}, "providers.mail.ehlo_name"),
        ({"ehlo_name": "https://a.example"}, "providers.mail.ehlo_name"),
        ({"replies": {"4xx": "throttled"}}, 'providers.mail.replies."4xx"'),
        ({"replies": {"45*": "throttled"}}, 'providers.mail.replies."45*"'),
        ({"replies": {"250": "accepted"}}, 'providers.mail.replies."250"'),
        ({"replies": {"999": "refused"}}, 'providers.mail.replies."999"'),
        ({"replies": {"2.1.5": "accepted"}}, 'providers.mail.replies."2.1.5"'),
        ({"replies": {"450 5.7.1": "refused"}}, 'providers.mail.replies."450 5.7.1"'),
        ({"replies": {"(": "refused"}}, 'providers.mail.replies."("'),
        ({"replies": {"(a)\\1": "refused"}}, 'providers.mail.replies."(a)\\1"'),
        ({"replies": {"x" * 201: "refused"}}, f'providers.mail.replies."{"x" * 201}"'),
    ],
)
async def test_smtp_settings_that_cannot_work_are_named(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_smtp("mail", SmtpSettings(**{"host": "a", **values})):
            pass
    assert caught.value.key == key


@pytest.mark.parametrize("host", ["relay", "mail_relay", "mail.example.com.", "192.0.2.1", "::1"])
@pytest.mark.parametrize("ehlo_name", ["", "vm", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
async def test_names_and_addresses_of_hosts_can_be_used(host: str, ehlo_name: str) -> None:
    async with open_smtp("mail", SmtpSettings(host=host, ehlo_name=ehlo_name)) as provider:
        assert provider._server.host == host


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"type": "http", "url": "https://a", "statuses": {"404": "gone"}}, '"answers"?'),
        ({"type": "http", "url": "https://a", "errors": {"21211": "gone"}}, '"answers"?'),
        ({"type": "http", "url": "https://a", "replies": {"454": "throttled"}}, '"answers"?'),
        ({"type": "smtp", "host": "a", "answers": {"454": "throttled"}}, '"replies"?'),
    ],
)
def test_a_table_of_another_version_or_type_is_named(
    table: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        convert_table(table, PROVIDER_TYPES, key="providers.x")


def test_replies_of_the_settings_are_outcomes() -> None:
    raw = {"type": "smtp", "host": "a", "replies": {"454": "throttled", "550 .*full": "deferred"}}
    settings = convert_table(raw, PROVIDER_TYPES, key="providers.mail")
    assert isinstance(settings, SmtpSettings)
    assert settings.replies == {"454": "throttled", "550 .*full": "deferred"}
    with pytest.raises(ConfigError):
        convert_table({**raw, "replies": {"454": "later"}}, PROVIDER_TYPES, key="providers.mail")
