"""Settings as editors, shells, compose and orchestrators really write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from notifier.cli.environment import read_settings
from notifier.domain.errors import ConfigError
from notifier.settings import Settings, load_settings

BOM = "\ufeff"
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG/+=\n-----END PRIVATE KEY-----"


def load(cwd: Path, **environ: str) -> Settings:
    return load_settings(environ, cwd=cwd)


def problems(cwd: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(cwd, **environ)
    return str(caught.value).splitlines()


def problem(cwd: Path, **environ: str) -> str:
    (line,) = problems(cwd, **environ)
    return line


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_toml(cwd: Path, content: str | bytes) -> Path:
    return write(cwd / "config" / "notifier.toml", content)


class TestTomlFile:
    def test_a_byte_order_mark_is_ignored(self, tmp_path: Path) -> None:
        write_toml(tmp_path, BOM + "[api]\r\nport = 1001\r\n")
        assert load(tmp_path).api.port == 1001

    def test_utf_16_is_named(self, tmp_path: Path) -> None:
        path = write_toml(tmp_path, "[api]\nport = 1001".encode("utf-16"))
        assert problem(tmp_path) == f"{path}: cannot read: it is not text in UTF-8"

    def test_a_folder_in_the_place_of_the_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "config" / "notifier.toml"
        path.mkdir(parents=True)
        assert problem(tmp_path) == f"{path}: cannot read: Is a directory"

    def test_a_file_in_the_place_of_its_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("")
        assert problem(tmp_path).endswith("notifier.toml: cannot read: Not a directory")

    def test_a_named_folder_is_named(self, tmp_path: Path) -> None:
        assert problem(tmp_path, NOTIFIER_CONFIG=str(tmp_path)) == (
            f"NOTIFIER_CONFIG: cannot read {tmp_path}: Is a directory"
        )

    def test_a_key_that_is_set_twice_is_named_with_its_line(self, tmp_path: Path) -> None:
        path = write_toml(tmp_path, "[api]\nport = 1\nport = 2\n")
        line = problem(tmp_path)
        assert str(path) in line
        assert "line 3" in line

    def test_a_key_that_is_set_twice_in_other_cases_is_named(self, tmp_path: Path) -> None:
        write_toml(tmp_path, "[api]\nport = 1001\nPort = 1002\n")
        line = problem(tmp_path)
        assert line.startswith("api.port (")
        assert line.endswith("is set twice, as api.port and api.Port; remove one")

    def test_the_case_of_a_key_does_not_matter(self, tmp_path: Path) -> None:
        write_toml(tmp_path, "[API]\nPort = 1001\n")
        assert load(tmp_path).api.port == 1001

    def test_a_similar_name_in_another_case_is_suggested(self, tmp_path: Path) -> None:
        write_toml(tmp_path, "[API]\nPROT = 1001\n")
        assert 'did you mean "port"?' in problem(tmp_path)

    def test_a_value_in_another_case_is_named_with_the_values(self, tmp_path: Path) -> None:
        write_toml(tmp_path, '[log]\nlevel = "INFO"\n')
        assert 'got \'INFO\', expected "debug", "error", "info"' in problem(tmp_path)


class TestSecretFiles:
    @pytest.mark.parametrize(
        "content", ["hunter2 \n", "hunter2\r\n", "\thunter2\n\n", BOM + "hunter2"]
    )
    @pytest.mark.parametrize("is_in_toml", [False, True])
    def test_white_space_and_a_byte_order_mark_around_a_secret_are_removed(
        self, tmp_path: Path, content: str, is_in_toml: bool
    ) -> None:
        secret = write(tmp_path / "secret", content)
        environ = {}
        if is_in_toml:
            write_toml(
                tmp_path,
                '[channels.email]\naddress = "email"\nprovider = "smtp"\n'
                f'[providers.smtp]\ntype = "smtp"\nhost = "h"\npassword_file = "{secret}"\n',
            )
        else:
            environ["NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE"] = str(secret)
        assert load(tmp_path, **environ).providers["smtp"]["password"] == "hunter2"

    def test_blanks_inside_a_secret_are_kept(self, tmp_path: Path) -> None:
        write(tmp_path / "key", PEM + "\n")
        settings = load(tmp_path, NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE="key")
        assert settings.providers["smtp"]["password"] == PEM

    @pytest.mark.parametrize("content", ["", "\n", BOM, " \r\n"])
    def test_an_empty_secret_file_is_named(self, tmp_path: Path, content: str) -> None:
        write(tmp_path / "secret", content)
        line = problem(tmp_path, NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE="secret")
        assert line.startswith("NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE: ")
        assert "is empty" in line

    def test_a_folder_that_docker_made_for_a_missing_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "url").mkdir()
        line = problem(tmp_path, NOTIFIER_DATABASE_URL_FILE="url")
        assert line.startswith("NOTIFIER_DATABASE_URL_FILE: cannot read ")
        assert line.endswith(": Is a directory")

    def test_a_secret_in_utf_16_is_named_without_its_content(self, tmp_path: Path) -> None:
        write(tmp_path / "secret", "hunter2".encode("utf-16"))
        line = problem(tmp_path, NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE="secret")
        assert line.endswith("it is not text in UTF-8")

    def test_a_missing_secret_file_is_named(self, tmp_path: Path) -> None:
        line = problem(tmp_path, NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE="none")
        assert line.endswith(": No such file or directory")


class TestDotenv:
    @pytest.mark.parametrize("quote", ['"', "'"])
    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    def test_a_quoted_value_may_have_several_lines(
        self, tmp_path: Path, quote: str, line_end: str
    ) -> None:
        text = (
            f"OTHER={quote}{PEM}{quote}\n"
            f"NOTIFIER_PROVIDERS__SMTP__PASSWORD = {quote}{PEM}{quote}  # the key\n"
            "NOTIFIER_API__PORT=1001\n"
        )
        write(tmp_path / ".env", text.replace("\n", line_end))
        settings = load(tmp_path)
        assert settings.providers["smtp"]["password"] == PEM
        assert settings.api.port == 1001

    def test_a_quote_that_is_never_closed_is_named_with_its_line(self, tmp_path: Path) -> None:
        write(tmp_path / ".env", 'A=1\nNOTIFIER_LOG__LEVEL="hunter2\nNOTIFIER_API__PORT=1\n')
        line = problem(tmp_path)
        assert line.endswith('.env line 2: the value of NOTIFIER_LOG__LEVEL has no closing "')

    def test_text_after_a_closing_quote_is_named_with_its_line(self, tmp_path: Path) -> None:
        write(tmp_path / ".env", 'NOTIFIER_PROVIDERS__SMTP__PASSWORD="hun"ter2"\n')
        line = problem(tmp_path)
        assert ".env line 1: text after the closing" in line
        assert "ter2" not in line

    def test_a_pem_without_quotes_is_named_with_each_line(self, tmp_path: Path) -> None:
        write(tmp_path / ".env", f"NOTIFIER_PROVIDERS__SMTP__PASSWORD={PEM}\n")
        assert [line.rpartition("/")[2] for line in problems(tmp_path)] == [
            ".env line 2: expected NAME=value",
            ".env line 3: expected NAME=value",
        ]

    def test_a_setting_that_stands_twice_is_named_with_both_lines(self, tmp_path: Path) -> None:
        write(tmp_path / ".env", "NOTIFIER_API__PORT=1\nA=1\nA=2\nNOTIFIER_API__PORT=1001\n")
        assert problem(tmp_path).endswith(
            ".env line 4: sets NOTIFIER_API__PORT, as line 1 does; remove one"
        )

    def test_a_byte_order_mark_is_ignored(self, tmp_path: Path) -> None:
        write(tmp_path / ".env", BOM + "NOTIFIER_API__PORT=1001\r\n")
        assert load(tmp_path).api.port == 1001

    def test_a_folder_in_the_place_of_the_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / ".env").mkdir()
        assert problem(tmp_path).endswith(".env: cannot read: Is a directory")


class TestVariables:
    @pytest.mark.parametrize(
        "name",
        [
            "NOTIFIER_API__PORT",
            "NOTIFIER_DATABASE_URL",
            "NOTIFIER_DATABASE_URL_FILE",
            "NOTIFIER_LOG__LEVEL",
            "NOTIFIER_PROVIDERS__SMTP__PASSWORD_FILE",
            "NOTIFIER_CONFIG",
        ],
    )
    def test_an_empty_variable_sets_nothing(self, tmp_path: Path, name: str) -> None:
        assert load(tmp_path, **{name: ""}) == load(tmp_path)
        write(tmp_path / ".env", f"{name}=\n")
        assert load(tmp_path) == load(tmp_path, **{name: ""})

    def test_an_empty_variable_leaves_the_value_of_the_file(self, tmp_path: Path) -> None:
        write_toml(tmp_path, "[api]\nport = 1001\n")
        assert load(tmp_path, NOTIFIER_API__PORT="").api.port == 1001

    def test_an_empty_url_does_not_conflict_with_its_file(self, tmp_path: Path) -> None:
        write(tmp_path / "url", "postgresql://u:p@h/d")
        environ = {"NOTIFIER_DATABASE_URL": "", "NOTIFIER_DATABASE_URL_FILE": "url"}
        assert load(tmp_path, **environ).database.url == "postgresql://u:p@h/d"

    def test_an_empty_unknown_variable_is_named(self, tmp_path: Path) -> None:
        assert "unknown variable" in problem(tmp_path, NOTIFIER_DATABSE_URL="")

    def test_a_line_end_of_an_env_file_is_removed(self, tmp_path: Path) -> None:
        assert load(tmp_path, NOTIFIER_API__PORT="1001\r").api.port == 1001

    def test_the_case_of_a_name_does_not_matter(self, tmp_path: Path) -> None:
        assert load(tmp_path, notifier_api__port="1001").api.port == 1001
        assert load(tmp_path, Notifier_Broker_Url="amqp://h").broker.url == "amqp://h"

    def test_a_name_in_two_cases_is_named(self, tmp_path: Path) -> None:
        line = problem(tmp_path, notifier_api__port="1001", NOTIFIER_API__PORT="1002")
        assert line == (
            "notifier_api__port: sets api.port, which NOTIFIER_API__PORT sets, too; remove one"
        )

    def test_an_unknown_name_in_lower_case_is_named(self, tmp_path: Path) -> None:
        assert 'did you mean "NOTIFIER_CONFIG"?' in problem(tmp_path, notifier_config="x")

    @pytest.mark.parametrize("name", ["NOTIFIER_DATABASE_URL", "NOTIFIER_BROKER_URL"])
    def test_a_blank_at_the_end_of_a_url_is_named(self, tmp_path: Path, name: str) -> None:
        scheme = "postgresql" if "DATABASE" in name else "amqp"
        assert "it begins or ends with a blank" in problem(
            tmp_path, **{name: f"{scheme}://u:hunter2@h/d "}
        )


class TestAddresses:
    @pytest.mark.parametrize(
        "text", ["10.0.0.0/8,::1", " 10.0.0.0/8 , ::1 ", '["10.0.0.0/8", "::1"]']
    )
    def test_a_variable_may_hold_a_list(self, tmp_path: Path, text: str) -> None:
        api = load(tmp_path, NOTIFIER_API__TRUSTED_PROXIES=text).api
        assert api.trusted_proxies == ("10.0.0.0/8", "::1")

    def test_a_list_in_the_file_is_read(self, tmp_path: Path) -> None:
        write_toml(tmp_path, '[api]\ntrusted_proxies = ["10.0.0.7"]\n')
        assert load(tmp_path).api.trusted_proxies == ("10.0.0.7",)

    @pytest.mark.parametrize(
        "origin",
        [
            "*",
            "null",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://App.example.com",
            "app.example.com",
            "https://user@app.example.com",
            "ftp://app.example.com",
            "https://app.example.com\n",
        ],
    )
    def test_a_wrong_origin_is_named(self, tmp_path: Path, origin: str) -> None:
        write_toml(tmp_path, f"[api]\ncors_origins = [{json.dumps(origin)}]\n")
        assert problem(tmp_path).startswith("api.cors_origins")

    @pytest.mark.parametrize(
        "origin", ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443"]
    )
    def test_an_origin_is_taken_as_browsers_write_it(self, tmp_path: Path, origin: str) -> None:
        write_toml(tmp_path, f"[api]\ncors_origins = [{json.dumps(origin)}]\n")
        assert load(tmp_path).api.cors_origins == (origin,)

    @pytest.mark.parametrize("network", ["proxy.internal", "10.0.0.0/33", "*", "10.0.0"])
    def test_a_wrong_network_is_named(self, tmp_path: Path, network: str) -> None:
        line = problem(tmp_path, NOTIFIER_API__TRUSTED_PROXIES=f"::1, {network}")
        assert line.startswith("api.trusted_proxies (NOTIFIER_API__TRUSTED_PROXIES): ")
        assert f"got '{network}', expected addresses or networks" in line

    @pytest.mark.parametrize(
        "url",
        [
            "https://notify.example.com",
            "http://10.0.0.7:8080/",
            "https://notify.example.com/a/b-c/",
            "https://[2001:db8::1]:8443/notify",
        ],
    )
    def test_a_public_url_has_a_host_and_may_have_a_path(self, tmp_path: Path, url: str) -> None:
        assert load(tmp_path, NOTIFIER_API__PUBLIC_URL=url).api.public_url == url

    @pytest.mark.parametrize(
        "url",
        [
            "notify.example.com",
            "/notify",
            "ftp://notify.example.com",
            "https://notify.example.com/?a=1",
            "https://notify.example.com/#a",
            "https://user@notify.example.com",
            "https://notify.example.com//notify",
            "https://notify.example.com/$(reboot)",
            "https://notify.example.com\n",
            "https://notify.example.com:99999",
            "https://notify.example.com:0/notify",
        ],
    )
    def test_another_public_url_is_refused(self, tmp_path: Path, url: str) -> None:
        write_toml(tmp_path, f"[api]\npublic_url = '''{url}'''\n")
        assert "expected a URL like https://notify.example.com/prefix" in problem(tmp_path)


def test_a_working_directory_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="the working directory cannot be used: No such file"):
        read_settings()
