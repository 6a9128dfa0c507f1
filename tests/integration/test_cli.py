"""The command line: exit codes, messages and help, without servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

TIMEOUT_S = 60


class Cli:
    """Runs `python -m notifier` in its own folder, without the NOTIFIER_ variables of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")
        }

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "notifier", *arguments],
            cwd=self.folder,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def start(self, *arguments: str, out: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "notifier", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port that a server listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


ID = "0192f0c1-0000-7000-8000-000000000000"
COMMANDS = (
    "dev",
    "api",
    "worker",
    "migrate",
    "send",
    "status",
    "queues",
    "sandbox",
    "load",
    "check-config",
    "doctor",
)


class TestArguments:
    def test_help_lists_every_command_with_a_description(self, cli: Cli) -> None:
        done = cli.run("--help")
        assert done.returncode == 0
        listed = dict(
            line.strip("│ ").split(maxsplit=1)
            for line in done.stdout.splitlines()
            if len(line.strip("│ ").split(maxsplit=1)) == 2
        )
        assert set(COMMANDS) <= set(listed)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_a_help_page(self, cli: Cli, command: str) -> None:
        done = cli.run(command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"notifier {command}" in done.stdout

    @pytest.mark.parametrize(
        ("command", "option"),
        [
            ("pause", "--for DURATION"),
            ("send", "--ttl DURATION"),
            ("send", "--timeout DURATION"),
            ("status", "--timeout DURATION"),
            ("queues", "--every DURATION"),
            ("load", "--timeout DURATION"),
        ],
    )
    def test_help_names_the_unit_of_durations(self, cli: Cli, command: str, option: str) -> None:
        assert f" {option} " in cli.run(command, "--help").stdout

    def test_help_imports_nothing_heavy(self) -> None:
        script = (
            "import sys; from notifier.cli.entry import run; run(['--help']);"
            "heavy = {'aiohttp', 'asyncpg', 'aio_pika', 'litestar', 'sqlalchemy', 'structlog'};"
            "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_version_is_printed(self, cli: Cli) -> None:
        done = cli.run("--version")
        assert done.returncode == 0
        assert done.stdout.strip()[0].isdigit()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("statuss",), 'Did you mean "status"?'),
            (("send", "--chanel", "x"), "--chan"),
            (("api", "--port", "x"), "--port"),
            (("api", "--port", "70000"), "got 70000, expected an integer from 1 to 65535"),
            (("dev", "--broker", "rabbit"), "expected inprocess, rabbitmq or a URL"),
            (("load", "--mix", "emial.high=1"), 'did you mean "email.high"?'),
            (("load", "--number", "0"), "expected an integer from 1 up"),
            (("load", "--rate", "nan"), "--rate: got nan, expected a number from 0 up"),
            (("load", "--rate=-1"), "--rate: got -1.0, expected a number from 0 up"),
            (("load", "--timeout", "0"), "expected a span such as 90s, 15m or 1h30m"),
            (("queues", "--watch", "--every", "0"), "expected a span such as 90s, 15m or 1h30m"),
            (("queues", "--watch", "--every", "nan"), "expected a span such as 90s, 15m or 1h30m"),
            (("status", ID, "--timeout", "nan"), "for --timeout: got 'nan', expected a span"),
            (("status", ID, "--timeout=-1"), "expected a span such as 90s, 15m or 1h30m"),
            (
                ("send", "-c", "email", "-t", "a@b.com", "--ttl", "inf"),
                "expected a span such as 90s, 15m or 1h30m",
            ),
            (("send", "-c", "email", "-t", "a\udcff@b.com"), "the argument is not UTF-8"),
            (("send", "-c", "email", "-t", "a@b.com", "-b", "\udcff"), "is not UTF-8"),
            (("status", "../queues"), "UUID"),
            (("status", ""), "UUID"),
            (("migrate", "--database", "postgresql://u:p@h"), "it names no database"),
            (("dev", "--database", "postgresql://u:p@h"), "it names no database"),
        ],
    )
    def test_misuse_is_one_line_and_exit_code_2(
        self, cli: Cli, arguments: tuple[str, ...], message: str
    ) -> None:
        done = cli.run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


class TestSettings:
    @pytest.mark.parametrize("command", ["api", "worker"])
    def test_without_urls_the_message_names_the_variables(self, cli: Cli, command: str) -> None:
        done = cli.run(command)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"notifier: {name} is not set: e.g. {example}"
            for name, example in (
                ("NOTIFIER_DATABASE_URL", "postgresql://user:password@host/database"),
                ("NOTIFIER_BROKER_URL", "amqp://user:password@host/vhost"),
            )
        ]

    def test_a_wrong_secret_is_masked(self, cli: Cli) -> None:
        done = cli.run("check-config", NOTIFIER_DATABASE_URL="hunter2")
        assert done.returncode == 2
        assert "got ***, expected a URL like postgresql://" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr

    def test_a_broker_url_without_slashes_is_masked(self, cli: Cli) -> None:
        done = cli.run("dev", "--broker", "amqp:u:hunter2@h")
        assert done.returncode == 2
        assert "hunter2" not in done.stdout + done.stderr

    def test_an_output_that_cannot_be_written_is_one_line(self, cli: Cli) -> None:
        with Path("/dev/full").open("w") as full, cli.start("check-config", out=full) as started:
            _, err = started.communicate(timeout=TIMEOUT_S)
        assert started.returncode == 1
        assert "No space left on device" in err
        assert len(err.splitlines()) == 1

    def test_migrate_needs_a_database_only(self, cli: Cli) -> None:
        done = cli.run("migrate")
        assert done.returncode == 2
        assert "NOTIFIER_DATABASE_URL is not set" in done.stderr
        assert "BROKER" not in done.stderr

    def test_a_wrong_setting_is_reported_with_key_value_and_suggestion(self, cli: Cli) -> None:
        done = cli.run("check-config", NOTIFIER_WORKER__CONSUMRS="x", NOTIFIER_API__PORT="0")
        assert done.returncode == 2
        assert (
            "api.port (NOTIFIER_API__PORT): got '0', expected an integer from 1 to 65535"
            in done.stderr
        )
        assert 'did you mean "consumers"?' in done.stderr
        assert len(done.stderr.splitlines()) == 2

    def test_check_config_finds_a_wrong_provider_setting(self, cli: Cli) -> None:
        done = cli.run("check-config", NOTIFIER_PROVIDERS__SMTP__PROT="25")
        assert done.returncode == 2
        assert "providers.smtp.prot: unknown key" in done.stderr
        assert 'did you mean "port"?' in done.stderr

    def test_check_config_finds_what_no_provider_of_a_type_can_use(self, cli: Cli) -> None:
        done = cli.run(
            "check-config",
            NOTIFIER_PROVIDERS__SMTP__SENDER="nobody",
            NOTIFIER_PROVIDERS__TWILIO__FORM__TO="{{ recipent }}",
            NOTIFIER_PROVIDERS__FCM__CA_FILE="/nowhere.pem",
        )
        assert done.returncode == 2
        lines = sorted(line.removeprefix("notifier: ").strip() for line in done.stderr.splitlines())
        assert [line.partition(": ")[0].lower() for line in lines] == [
            "providers.fcm.ca_file",
            "providers.smtp.sender",
            "providers.twilio.form.to",
        ]

    def test_check_config_shows_values_and_origins_with_secrets_masked(self, cli: Cli) -> None:
        url = "postgresql://u:hunter2@h/d"
        done = cli.run("check-config", NOTIFIER_DATABASE_URL=url)
        assert done.returncode == 0
        assert 'database.url = "postgresql://u:***@h/d"  # NOTIFIER_DATABASE_URL' in done.stdout
        assert "api.port = 8000  # default" in done.stdout
        assert "hunter2" not in done.stdout + done.stderr

    def test_check_config_shows_providers_with_their_defaults(self, cli: Cli) -> None:
        done = cli.run(
            "check-config",
            NOTIFIER_PROVIDERS__SMTP__PORT="25",
            NOTIFIER_PROVIDERS__TWILIO__HEADERS__AUTHORIZATION="hunter2",
        )
        assert "providers.smtp.port = 25  # NOTIFIER_PROVIDERS__SMTP__PORT" in done.stdout
        assert 'providers.smtp.security = "none"  # default' in done.stdout
        assert 'providers.twilio.headers.authorization = "***"' in done.stdout

    def test_check_config_prints_json(self, cli: Cli) -> None:
        rows = json.loads(cli.run("check-config", "--json").stdout)
        assert {"key": "api.port", "value": 8000, "from": "default"} in rows


class TestWithoutAServer:
    def test_migrate_without_postgres_fails_with_one_line(self, cli: Cli) -> None:
        url = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/d"
        done = cli.run("migrate", "--database", url)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "hunter2" not in done.stderr


class TestWithoutAnApi:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("send", "-c", "email", "-t", "a@example.com", "-b", "x"),
            ("status", ID),
            ("queues",),
            ("load", "-n", "3"),
        ],
    )
    def test_every_command_fails_with_one_line(self, cli: Cli, arguments: tuple[str, ...]) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        done = cli.run(*arguments, "--url", url)
        assert done.returncode == 1
        assert f"no API at {url}" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_a_secret_file_that_is_missing_leaves_the_commands_with_a_url(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        file = tmp_path / "settings.toml"
        file.write_text("[providers.sms]\ntype = 'http'\nurl = 'http://a'\npassword_file = '/no'")
        url = f"http://127.0.0.1:{free_port()}"
        without_url = cli.run("queues", NOTIFIER_CONFIG=str(file))
        assert without_url.returncode == 2
        assert "providers.sms.password_file" in without_url.stderr
        assert "needs no settings with --url" in without_url.stderr
        assert (
            f"no API at {url}" in cli.run("queues", "--url", url, NOTIFIER_CONFIG=str(file)).stderr
        )

    @pytest.mark.parametrize(
        "url", ["http://u:hunter2@127.0.0.1:1", "http://u:hunter2@[::1", "u:hunter2@h"]
    )
    def test_the_password_of_the_url_is_masked(self, cli: Cli, url: str) -> None:
        done = cli.run("send", "-c", "email", "-t", "a@example.com", "--url", url)
        assert done.returncode == 1
        assert "***" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr

    def test_a_server_that_is_not_http_is_reported_without_the_password(self, cli: Cli) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://u:hunter2@127.0.0.1:{server.getsockname()[1]}"
            with cli.start("queues", "--url", url) as started, server.accept()[0] as caller:
                caller.recv(1)
                caller.sendall(b"SSH-2.0\r\n\r\n")
                _, err = started.communicate(timeout=TIMEOUT_S)
        assert started.returncode == 1
        assert "sent a response that is not HTTP" in err
        assert len(err.splitlines()) == 1
        assert "hunter2" not in err

    def test_an_invalid_url_is_reported(self, cli: Cli) -> None:
        done = cli.run("queues", "--url", "localhost")
        assert done.returncode == 1
        assert "'localhost' is not a URL" in done.stderr


class TestSignals:
    def test_a_second_signal_ends_a_process_that_does_not_stop_with_exit_code_1(self) -> None:
        script = (
            "import asyncio\n"
            "from notifier.cli.running import run_until_signal\n"
            "async def never_stops(stop):\n"
            "    print('up', flush=True)\n"
            "    await stop.wait()\n"
            "    print('stopping', flush=True)\n"
            "    await asyncio.Event().wait()\n"
            "run_until_signal(never_stops)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as started:
            assert started.stdout is not None
            for line in ("up\n", "stopping\n"):
                assert started.stdout.readline() == line
                started.send_signal(signal.SIGINT)
            _, err = started.communicate(timeout=TIMEOUT_S)
        assert started.returncode == 1
        assert "SIGINT again: ending at once" in err

    def test_a_process_raises_its_limit_of_open_files(self) -> None:
        script = (
            "import resource\n"
            "from notifier.cli.running import MAX_OPEN_FILES, run_until_signal\n"
            "_, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (256, maximum))\n"
            "async def main(stop):\n"
            "    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "    print(limit in {MAX_OPEN_FILES, maximum})\n"
            "run_until_signal(main)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout == "True\n"

    def test_ctrl_c_ends_a_short_command_without_a_traceback(self, cli: Cli) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            cli.start("queues", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}") as started,
            silent.accept()[0] as caller,
        ):
            caller.recv(1)
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=TIMEOUT_S)
        assert (started.returncode, out, err) == (130, "", "")


class TestSandbox:
    def start(self, cli: Cli) -> subprocess.Popen[str]:
        """Start a sandbox and wait until it has printed its addresses."""
        ports = ["--http-port", str(free_port()), "--smtp-port", str(free_port())]
        started = cli.start("sandbox", *ports)
        assert started.stdout is not None
        assert "http://127.0.0.1:" in started.stdout.readline()
        assert "smtp://127.0.0.1:" in started.stdout.readline()
        assert "/calls" in started.stdout.readline()
        return started

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_stops_it_with_exit_code_0(self, cli: Cli, number: signal.Signals) -> None:
        with self.start(cli) as started:
            started.send_signal(number)
            _, err = started.communicate(timeout=TIMEOUT_S)
        assert started.returncode == 0
        assert err.startswith(f"notifier: {number.name}: stopping")
        assert "Traceback" not in err

    def test_a_port_in_use_is_one_line(self, cli: Cli, busy_port: int) -> None:
        done = cli.run("sandbox", "--http-port", str(busy_port), "--smtp-port", str(free_port()))
        assert done.returncode == 2
        assert str(busy_port) in done.stderr
        assert len(done.stderr.splitlines()) == 1
