"""The settings: their sources, error messages and masked secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from notifier.adapters.providers.registry import PROVIDER_TYPES
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.domain.errors import ConfigError
from notifier.domain.notification import Priority
from notifier.settings import Settings, convert_table, load_settings, load_with_origins

REPOSITORY = Path(__file__).parents[2]

WriteToml = Callable[[str], Path]


@pytest.fixture
def write_toml(tmp_path: Path) -> WriteToml:
    def write(text: str) -> Path:
        path = tmp_path / "config" / "notifier.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def problems(
    cwd: Path, overrides: dict[str, object] | None = None, **environ: str
) -> dict[str, str]:
    """The lines of the error, by the key at the start of each line."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ, cwd=cwd, overrides=overrides)
    lines = str(caught.value).splitlines()
    return {line.partition(":")[0].partition(" ")[0]: line for line in lines}


class TestSources:
    def test_nothing_set_gives_the_documented_defaults(self, tmp_path: Path) -> None:
        settings = load_settings({}, cwd=tmp_path)

        assert settings.database.url == ""
        assert settings.api.port == 8000
        assert settings.worker.consumers == 64
        assert [settings.priorities.of(priority).weight for priority in Priority] == [8, 3, 1]
        assert [settings.priorities.of(priority).tries for priority in Priority] == [8, 8, 10]
        assert settings.retention.days == 30
        assert set(settings.channels) == {"email", "sms", "push"}

    def test_commented_out_keys_of_the_default_file_show_the_default(self, tmp_path: Path) -> None:
        text = (REPOSITORY / "config" / "notifier.toml").read_text()
        uncommented = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text)
        with_defaults = re.sub(
            r"(?m)^(consumer_rate|max_consumers|rate|refusals_in_a_row|(final_)?timeout_s|replies|security"
            r"|username|\w+_file|sender) = .*$",
            "",
            uncommented,
        )
        path = tmp_path / "shown.toml"
        path.write_text(with_defaults)

        assert load_settings({"NOTIFIER_CONFIG": str(path)}, cwd=tmp_path) == load_settings(
            {}, cwd=tmp_path
        )

    def test_loading_the_default_file_changes_nothing(self, tmp_path: Path) -> None:
        named = load_settings({}, cwd=REPOSITORY)
        assert named == load_settings({}, cwd=tmp_path)

    def test_the_default_file_shows_every_setting(self) -> None:
        text = (REPOSITORY / "config" / "notifier.toml").read_text()
        tree = msgspec.to_builtins(Settings())
        for section in ("database", "broker", "api", "worker", "retention", "log", "sandbox"):
            for key in tree[section]:
                assert re.search(rf"(?m)^(# )?{key} = ", text), f"{section}.{key}"

    def test_a_file_overrides_defaults_and_dotenv_overrides_the_file(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        write_toml("[api]\nport = 1001\nmax_batch = 1001\nmax_in_flight = 1001")
        (tmp_path / ".env").write_text("NOTIFIER_API__PORT=1002\nNOTIFIER_API__MAX_BATCH=1002")
        environ = {"NOTIFIER_API__PORT": "1003"}

        api = load_settings(environ, cwd=tmp_path, overrides={"api.host": "::1"}).api

        assert (api.port, api.max_batch, api.max_in_flight) == (1003, 1002, 1001)
        assert api.host == "::1"

    def test_the_command_line_overrides_everything(self, tmp_path: Path) -> None:
        environ = {"NOTIFIER_API__PORT": "1003"}
        settings = load_settings(environ, cwd=tmp_path, overrides={"api.port": 1004})
        assert settings.api.port == 1004

    def test_an_override_of_none_is_ignored(self, tmp_path: Path) -> None:
        assert load_settings({}, cwd=tmp_path, overrides={"api.port": None}).api.port == 8000

    def test_notifier_config_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("[worker]\nconsumers = 7")
        settings = load_settings({"NOTIFIER_CONFIG": "mine.toml"}, cwd=tmp_path)
        assert settings.worker.consumers == 7

    def test_dotenv_may_name_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("[worker]\nconsumers = 7")
        (tmp_path / ".env").write_text("NOTIFIER_CONFIG=mine.toml")
        assert load_settings({}, cwd=tmp_path).worker.consumers == 7

    def test_the_two_urls_have_short_variable_names(self, tmp_path: Path) -> None:
        environ = {
            "NOTIFIER_DATABASE_URL": "postgresql://host/db",
            "NOTIFIER_BROKER_URL": "amqp://host",
        }
        settings = load_settings(environ, cwd=tmp_path)
        assert settings.database.url == "postgresql://host/db"
        assert settings.broker.url == "amqp://host"

    def test_nested_variables_set_channels_priorities_and_providers(self, tmp_path: Path) -> None:
        environ = {
            "NOTIFIER_CHANNELS__EMAIL__CONSUMER_RATE": "2.5",
            "NOTIFIER_PRIORITIES__HIGH__RETRY_BASE_S": "0.1",
            "NOTIFIER_PROVIDERS__SMTP__PORT": "25",
        }
        settings = load_settings(environ, cwd=tmp_path)
        assert settings.channels["email"].consumer_rate == 2.5
        assert settings.priorities.high.retry_base_s == 0.1
        assert settings.priorities.high.retry_cap_s == 60
        assert settings.providers["smtp"]["port"] == "25"

    def test_a_variable_sets_a_key_with_hyphens_or_upper_case(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        write_toml(
            '[channels.in-app]\naddress = "token"\nprovider = "app-1"\n'
            '[providers.app-1]\ntype = "http"\n[providers.app-1.headers]\nX-Api-Key = "a"'
        )
        environ = {
            "NOTIFIER_CHANNELS__IN_APP__MAX_CONSUMERS": "3",
            "NOTIFIER_PROVIDERS__APP_1__HEADERS__X_API_KEY": "b",
        }
        settings = load_settings(environ, cwd=tmp_path)
        assert settings.channels["in-app"].max_consumers == 3
        assert settings.providers["app-1"]["headers"] == {"X-Api-Key": "b"}

    def test_channels_of_a_file_replace_the_default_channels(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        write_toml('[channels.pager]\naddress = "phone"\nprovider = "twilio"')
        assert set(load_settings({}, cwd=tmp_path).channels) == {"pager"}

    def test_a_file_without_channels_keeps_the_default_channels(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        write_toml('[log]\nlevel = "debug"')
        assert set(load_settings({}, cwd=tmp_path).channels) == {"email", "sms", "push"}

    def test_dotenv_supports_comments_quotes_and_export(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(
            "# first\n\nexport NOTIFIER_API__HOST = '::1'  # why\nOTHER=1\n"
            'NOTIFIER_PROVIDERS__SMTP__PASSWORD="p #1"\nNOTIFIER_LOG__LEVEL=debug # x\n'
        )
        settings = load_settings({}, cwd=tmp_path)
        assert settings.api.host == "::1"
        assert settings.providers["smtp"]["password"] == "p #1"
        assert settings.log.level == "debug"

    def test_every_key_that_was_set_has_its_origin(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        path = write_toml("[api]\nport = 1001")
        loaded = load_with_origins(
            {"NOTIFIER_API__HOST": "::1"}, cwd=tmp_path, overrides={"log.level": "debug"}
        )
        assert loaded.origins["api.port"] == str(path)
        assert loaded.origins["api.host"] == "NOTIFIER_API__HOST"
        assert loaded.origins["log.level"] == "command line"
        assert "api.max_batch" not in loaded.origins

    def test_service_variables_of_kubernetes_are_ignored(self, tmp_path: Path) -> None:
        environ = {
            "NOTIFIER_SERVICE_HOST": "10.0.0.1",
            "NOTIFIER_API_SERVICE_PORT_HTTP": "8000",
            "NOTIFIER_API_PORT": "tcp://10.0.0.1:8000",
            "NOTIFIER_API_PORT_8000_TCP_ADDR": "10.0.0.1",
        }
        assert load_settings(environ, cwd=tmp_path) == load_settings({}, cwd=tmp_path)


class TestProblems:
    def test_all_problems_are_reported_at_once(self, tmp_path: Path, write_toml: WriteToml) -> None:
        write_toml("[api]\nprot = 1\n[worker]\nconsumers = 0\n")
        lines = problems(tmp_path, NOTIFIER_LOG__LEVEL="loud", NOTIFIER_NONSENSE="1")
        assert set(lines) == {"api.prot", "worker.consumers", "log.level", "NOTIFIER_NONSENSE"}

    def test_the_error_names_the_first_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load_settings({"NOTIFIER_API__PORT": "x"}, cwd=tmp_path)
        assert caught.value.key == "api.port"

    def test_a_line_has_key_origin_value_and_expectation(self, tmp_path: Path) -> None:
        assert problems(tmp_path, NOTIFIER_API__PORT="99999")["api.port"] == (
            "api.port (NOTIFIER_API__PORT): got '99999', expected an integer from 1 to 65535"
        )

    @pytest.mark.parametrize(
        ("toml", "key", "message"),
        [
            ("[api]\nport = '8000'", "api.port", "an integer from 1 to 65535"),
            ("[api]\nport = 80.5", "api.port", "an integer from 1 to 65535"),
            ("[api]\nport = true", "api.port", "an integer from 1 to 65535"),
            ("[api]\nhost = ''", "api.host", "a host name or address"),
            ("[api]\nauth = 'on'", "api.auth", 'expected "keys" or "off"'),
            ("api = 1", "api", "expected a table"),
            ("[worker]\ngrace_s = 0", "worker.grace_s", "above 0 and at most 3600"),
            ("[worker]\ngrace_s = nan", "worker.grace_s", "above 0 and at most 3600"),
            ("[worker]\ngrace_s = inf", "worker.grace_s", "above 0 and at most 3600"),
            ("[worker]\ngrace_s = 20", "worker.send_timeout_s", "less than worker.grace_s (20)"),
            (
                "channels.x={address='email',provider='smtp',ambiguous='hold',ambiguous_tries=2}",
                "channels.x.ambiguous_tries",
                'ambiguous = "resend"',
            ),
            ("[database]\nurl = 'mysql://h'", "database.url", "postgresql://user:password@"),
            ("[broker]\nurl = 'redis://h'", "broker.url", "amqp://user:password@host/vhost"),
            ("[log]\nformat = 'jsn'", "log.format", '"auto", "console" or "json"'),
            ("[retention]\ndays = 2", "retention.days", "from 9 to 400"),
            (
                "[priorities.low]\nttl_s = 8640000",
                "priorities.low.ttl_s",
                "retention.days less one day",
            ),
            (
                "[priorities.low]\nretry_cap_s = 1",
                "priorities.low.retry_cap_s",
                "at least retry_base_s (30)",
            ),
            ("[priorities.urgent]\nweight = 1", "priorities.urgent", "known: high, low, medium"),
            ("[priorities.high]\nwieght = 1", "priorities.high.wieght", 'did you mean "weight"?'),
            ("[wroker]\nconsumers = 1", "wroker", 'did you mean "worker"?'),
            ("channels = 3", "channels", "a table"),
            ("[channels]", "channels", "at least one table like [channels.email]"),
            ("[channels.Big]\naddress='email'\nprovider='smtp'", "channels.Big", "a name like"),
            ("[channels.email]\nprovider = 'smtp'", "channels.email.address", "is not set"),
            (
                "[channels.email]\naddress = 'mail'\nprovider = 'smtp'",
                "channels.email.address",
                '"email", "phone", "token" or "user"',
            ),
            (
                "[channels.email]\naddress = 'email'\nprovider = 'smpt'",
                "channels.email.provider",
                'did you mean "smtp"?',
            ),
            (
                "[channels.test]\naddress = 'email'\nprovider = 'smtp'",
                "channels.test.provider",
                'a provider with type = "sandbox"',
            ),
            (
                "[channels.news]\naddress = 'token'\nprovider = 'i'\n[providers.i]\ntype = 'inbox'",
                "channels.news.address",
                '"user" for a provider with type = "inbox"',
            ),
            (
                "[channels.inbox]\naddress = 'user'\nprovider = 'smtp'",
                "channels.inbox.address",
                '"user" for a provider with type = "inbox"',
            ),
            (
                "[channels.news]\naddress = 'user'\nprovider = 'i'\n[providers.i]\ntype = 'inbox'",
                "channels.news.provider",
                "expected it in [channels.inbox] only",
            ),
            (
                "[channels.x]\naddress = 'email'\nprovider = 'smtp'\nconsumer_rate = 0",
                "channels.x.consumer_rate",
                "a number above 0",
            ),
            (
                "[channels.x]\naddress = 'email'\nprovider = 'smtp'\nconsumer_rates = 1",
                "channels.x.consumer_rates",
                'did you mean "consumer_rate"?',
            ),
            ("[providers]\nsmtp = 1", "providers.smtp", "a table"),
        ],
    )
    def test_each_kind_of_wrong_value_is_explained(
        self, tmp_path: Path, write_toml: WriteToml, toml: str, key: str, message: str
    ) -> None:
        write_toml(toml)
        assert message in problems(tmp_path)[key]

    def test_an_unknown_variable_suggests_the_most_similar_name(self, tmp_path: Path) -> None:
        lines = problems(
            tmp_path,
            NOTIFIER_DATABSE_URL="x",
            NOTIFIER_API_PORT="9000",
            NOTIFIER_CHANNELS_EMAIL_CONSUMER_RATE="5",
        )
        assert 'did you mean "NOTIFIER_DATABASE_URL"?' in lines["NOTIFIER_DATABSE_URL"]
        assert 'did you mean "NOTIFIER_API__PORT"?' in lines["NOTIFIER_API_PORT"]
        assert (
            'did you mean "NOTIFIER_CHANNELS__EMAIL__CONSUMER_RATE"?'
            in lines["NOTIFIER_CHANNELS_EMAIL_CONSUMER_RATE"]
        )

    def test_an_unknown_key_in_dotenv_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("NOTIFIER_API__PRT=1")
        line = problems(tmp_path)["api.prt"]
        assert "NOTIFIER_API__PRT in .env" in line
        assert 'did you mean "port"?' in line

    def test_a_setting_below_a_value_is_an_unknown_key(self, tmp_path: Path) -> None:
        assert problems(tmp_path, NOTIFIER_API__PORT__X="1")["api.port.x"] == (
            "api.port.x (NOTIFIER_API__PORT__X): unknown key, api.port is not a table"
        )

    def test_a_variable_that_is_not_utf_8_is_reported(self, tmp_path: Path) -> None:
        lines = problems(tmp_path, NOTIFIER_API__HOST="h\udcff")
        assert "bytes that are not UTF-8" in lines["NOTIFIER_API__HOST"]

    def test_a_url_set_by_two_variables_is_reported(self, tmp_path: Path) -> None:
        lines = problems(
            tmp_path,
            NOTIFIER_DATABASE_URL="postgresql://a/d",
            NOTIFIER_DATABASE__URL="postgresql://b/d",
        )
        assert any("which NOTIFIER_DATABASE_URL sets, too" in line for line in lines.values())

    def test_a_file_that_is_missing_or_not_toml_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_text("[api")
        assert "No such file" in problems(tmp_path, NOTIFIER_CONFIG="none.toml")["NOTIFIER_CONFIG"]
        lines = problems(tmp_path, NOTIFIER_CONFIG="bad.toml")
        assert "is not TOML" in lines[str(tmp_path / "bad.toml")]

    def test_an_invalid_dotenv_line_is_reported_with_its_number(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("A=1\nnot an assignment\n")
        with pytest.raises(ConfigError, match=r"\.env line 2: expected NAME=value"):
            load_settings({}, cwd=tmp_path)


class TestSecrets:
    def test_a_variable_may_name_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
        environ = {"NOTIFIER_DATABASE_URL_FILE": str(tmp_path / "url")}
        assert load_settings(environ, cwd=tmp_path).database.url == "postgresql://u:p@h/d"

    def test_a_nested_variable_may_name_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("hunter2")
        environ = {"NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE": "password"}
        assert load_settings(environ, cwd=tmp_path).providers["smtp"]["password"] == "hunter2"

    def test_a_toml_key_may_name_a_file_beside_it(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        path = write_toml(
            '[providers.smtp]\ntype = "smtp"\npassword_file = "pw"\n'
            '[providers.twilio]\n[providers.fcm.headers]\nAuthorization_file = "pw"'
        )
        path.with_name("pw").write_text("hunter2\n")
        providers = load_settings({}, cwd=tmp_path).providers
        assert providers["smtp"] == {"type": "smtp", "password": "hunter2"}
        assert providers["fcm"] == {"headers": {"Authorization": "hunter2"}}

    def test_a_secret_of_the_environment_overrides_a_secret_file_of_dotenv(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "url").write_text("postgresql://weak/d")
        (tmp_path / ".env").write_text("NOTIFIER_DATABASE_URL_FILE=url")
        environ = {"NOTIFIER_DATABASE_URL": "postgresql://strong/d"}
        assert load_settings(environ, cwd=tmp_path).database.url == "postgresql://strong/d"

    def test_a_missing_secret_file_is_reported(self, tmp_path: Path) -> None:
        lines = problems(tmp_path, NOTIFIER_BROKER_URL_FILE="/none/such")
        assert "cannot read '/none/such'" in lines["NOTIFIER_BROKER_URL_FILE"]

    def test_a_secret_set_together_with_its_file_is_reported(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        write_toml("[database]\nurl = 'postgresql://h/d'\nurl_file = 'x'")
        assert (
            "url is set, too, expected only one of the two"
            in problems(tmp_path)["database.url_file"]
        )

    def test_only_secrets_have_file_variants(self, tmp_path: Path) -> None:
        assert "api.port_file" in problems(tmp_path, NOTIFIER_API__PORT_FILE="x")

    def test_no_secret_is_in_a_repr(self, tmp_path: Path) -> None:
        environ = {
            "NOTIFIER_DATABASE_URL": "postgresql://u:hunter2@h/d?sslmode=require",
            "NOTIFIER_BROKER_URL": "amqp://u:hunter2@h/v",
            "NOTIFIER_PROVIDERS__SMTP__USERNAME": "hunter2",
            "NOTIFIER_PROVIDERS__SMTP__PASSWORD": "hunter2",
            "NOTIFIER_PROVIDERS__TWILIO__HEADERS__AUTHORIZATION": "Bearer hunter2",
            "NOTIFIER_PROVIDERS__TWILIO__URL": "https://h/x?api_key=hunter2&v=1",
        }
        shown = repr(load_settings(environ, cwd=tmp_path))
        assert "hunter2" not in shown
        assert "postgresql://u:***@h/d?sslmode=require" in shown
        assert "https://h/x?api_key=***&v=1" in shown

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://u:hunter2@h/d",
            "u:hunter2@h/d",
            "http://u:p/hunter2@h/d",
            "http://[u:hunter2@h/d",
            "hunter2@h",
            "mysql://u:pass#hunter2@h/d",
            "mysql://u:pass?hunter2@h/d",
            "hunter2",
            "postgresql://u:hunter2@[::1/d",
        ],
    )
    def test_no_secret_is_in_an_error(self, tmp_path: Path, url: str) -> None:
        line = problems(tmp_path, NOTIFIER_DATABASE_URL=url)["database.url"]
        assert "hunter2" not in line
        assert "got ***, expected a URL like postgresql://user:password@host/database" in line

    def test_a_url_in_the_wrong_place_is_masked(
        self, tmp_path: Path, write_toml: WriteToml
    ) -> None:
        write_toml("database = 'postgresql://u:hunter2@h/d'")
        assert "got ***, expected a table" in problems(tmp_path)["database"]
        (tmp_path / "config" / "notifier.toml").unlink()
        lines = problems(tmp_path, NOTIFIER_DATABASE_URL_FILE="postgresql://u:hunter2@h/d")
        assert "cannot read ***" in lines["NOTIFIER_DATABASE_URL_FILE"]

    def test_a_password_parameter_with_escapes_is_masked(self, tmp_path: Path) -> None:
        environ = {"NOTIFIER_DATABASE_URL": "postgresql://h/d?p%61ssword=hunter2&user=u"}
        shown = repr(load_settings(environ, cwd=tmp_path))
        assert "postgresql://h/d?p%61ssword=***&user=u" in shown


def test_the_default_providers_point_to_the_sandbox(tmp_path: Path) -> None:
    settings = load_settings({}, cwd=tmp_path)
    providers = {
        name: convert_table(raw, PROVIDER_TYPES, key=f"providers.{name}")
        for name, raw in settings.providers.items()
    }
    ports = settings.sandbox
    assert providers == sandbox_providers(
        f"http://{ports.host}:{ports.http_port}", ports.host, ports.smtp_port
    )


class Small(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int = 25
    max_connections: int = 1
    headers: dict[str, str] = {}
    security: Literal["none", "tls"] = "none"


class TestTaggedTables:
    def test_the_type_of_a_table_selects_its_struct(self, tmp_path: Path) -> None:
        environ = {"NOTIFIER_PROVIDERS__SMTP__PORT": "26"}
        raw = load_settings(environ, cwd=tmp_path).providers["smtp"]
        struct = convert_table(raw, {"smtp": Small}, key="providers.smtp")
        assert struct == Small(host="127.0.0.1", port=26, max_connections=128)

    def test_an_unknown_key_is_reported_with_its_full_path(self) -> None:
        with pytest.raises(ConfigError, match=r'providers\.smtp\.prot: .*did you mean "port"\?'):
            convert_table(
                {"type": "smtp", "host": "h", "prot": 1}, {"smtp": Small}, key="providers.smtp"
            )

    def test_an_unknown_type_is_reported_with_the_known_types(self) -> None:
        with pytest.raises(ConfigError, match=r"providers\.x\.type: got 'smpt', expected \"smtp\""):
            convert_table({"type": "smpt"}, {"smtp": Small}, key="providers.x")

    def test_a_missing_type_is_reported(self) -> None:
        with pytest.raises(ConfigError, match=r"providers\.x\.type: is not set"):
            convert_table({}, {"smtp": Small}, key="providers.x")

    def test_a_wrong_header_is_masked(self) -> None:
        raw: dict[str, object] = {"type": "smtp", "host": "h", "headers": {"Key": 123456}}
        with pytest.raises(ConfigError, match=r"headers\.Key: got \*\*\*, expected a text"):
            convert_table(raw, {"smtp": Small}, key="providers.x")


class TestLimits:
    @pytest.mark.parametrize("prefix", ["49", "+", "+0", "+49 15", "0049", "+1234567890123456", ""])
    def test_what_is_no_beginning_of_a_number_is_named(
        self, write_toml: WriteToml, prefix: str
    ) -> None:
        path = write_toml(f'[limits]\nsms_prefixes = ["+43", "{prefix}"]\n')
        line = problems(path.parents[1])["limits.sms_prefixes"]
        assert repr(prefix) in line
        assert "+49" in line

    def test_prefixes_are_read(self, write_toml: WriteToml) -> None:
        path = write_toml('[limits]\nsms_prefixes = ["+43", "+4915"]\n')
        assert load_settings({}, cwd=path.parents[1]).limits.sms_prefixes == ("+43", "+4915")

    def test_contents_are_kept_no_longer_than_notifications(self, write_toml: WriteToml) -> None:
        path = write_toml("[retention]\ndays = 10\ncontent_s = { low = 900_000 }\n")
        assert "864000" in problems(path.parents[1])["retention.content_s.low"]

    def test_the_ages_of_contents_are_read_each_by_itself(self, write_toml: WriteToml) -> None:
        path = write_toml("[retention]\ncontent_s = { high = 0 }\n")
        ages = load_settings({}, cwd=path.parents[1]).retention.content_s
        assert [ages.of(priority) for priority in Priority] == [0, 604_800, 604_800]

    def test_caps_name_channels(self, write_toml: WriteToml) -> None:
        path = write_toml("[limits]\nrecipient_per_day = { sms = 3, emial = 5 }\n")
        line = problems(path.parents[1])["limits.recipient_per_day"]
        assert "emial" in line
        assert "email" in line
