"""A database that cannot be used is one line and exit code 2, whichever command finds it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from notifier.embedded.free_ports import free_ports
from notifier.embedded.postgres import PostgresServer
from tests.conftest import execute, in_a_thread, run_alone

TIMEOUT_S: Final = 60
NO_BROKER: Final = "amqp://guest:hunter2@127.0.0.1:1/"
COMMANDS: Final = ("migrate", "api", "worker")
WRONG_URLS: Final = (
    "mysql://u:hunter2@127.0.0.1/d",
    "postgresql://u:hunter2@127.0.0.1:99999/d",
    "postgresql://u:hunter2@[::1/d",
    "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=nonsense",
    "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=require&sslcert=/nowhere/c&sslkey=/nowhere/k",
    "postgresql://u:hunter2@127.0.0.1:1/d?target_session_attrs=nonsense",
)


def run(folder: Path, command: str, database: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
    return subprocess.run(
        [sys.executable, "-m", "notifier", *command.split()],
        cwd=folder,
        env=environ | {"NOTIFIER_DATABASE_URL": database, "NOTIFIER_BROKER_URL": NO_BROKER} | more,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def check_refusal(done: subprocess.CompletedProcess[str], named: str) -> None:
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert named in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.fixture
def server_without_tls() -> Iterator[str]:
    """A server that answers no to each request for TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(8)
                    connection.sendall(b"N")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"postgresql://u:hunter2@127.0.0.1:{listener.getsockname()[1]}/d?sslmode=require"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(TIMEOUT_S)


@pytest.fixture(scope="module")
def locked_role(postgres_server: PostgresServer) -> Iterator[str]:
    """A role that needs a password."""
    rules = postgres_server.data_folder / "pg_hba.conf"
    text = rules.read_text()
    rules.write_text(f"local all locked scram-sha-256\n{text}")
    execute(postgres_server, "CREATE ROLE locked LOGIN PASSWORD 'right'")
    execute(postgres_server, "SELECT pg_reload_conf()")
    yield "locked"
    rules.write_text(text)
    execute(postgres_server, "SELECT pg_reload_conf()")
    execute(postgres_server, "DROP ROLE locked")


@pytest.mark.parametrize("command", COMMANDS)
class TestRefusals:
    def test_a_missing_database(
        self, tmp_path: Path, postgres_server: PostgresServer, command: str
    ) -> None:
        done = run(tmp_path, command, postgres_server.url("nowhere"))
        check_refusal(done, 'database "nowhere" does not exist')

    def test_an_unknown_role(
        self, tmp_path: Path, postgres_server: PostgresServer, command: str
    ) -> None:
        url = postgres_server.url().replace("postgres@", "nobody_knows@")
        check_refusal(run(tmp_path, command, url), 'role "nobody_knows" does not exist')

    def test_a_wrong_password(
        self, tmp_path: Path, postgres_server: PostgresServer, locked_role: str, command: str
    ) -> None:
        url = postgres_server.url().replace("postgres@", f"{locked_role}:hunter2@")
        check_refusal(run(tmp_path, command, url), "password authentication failed")

    def test_refused_tls(self, tmp_path: Path, server_without_tls: str, command: str) -> None:
        check_refusal(run(tmp_path, command, server_without_tls), "rejected SSL upgrade")

    def test_no_right_to_create_or_read_tables(
        self, tmp_path: Path, empty_database_url: str, app_role: str, command: str
    ) -> None:
        url = empty_database_url.replace("postgres@", f"{app_role}@")
        named = "permission denied" if command == "migrate" else "notifier migrate"
        check_refusal(run(tmp_path, command, url), named)

    def test_no_right_to_change_the_tables_that_are_there(
        self, tmp_path: Path, database_url: str, app_role: str, command: str
    ) -> None:
        url = database_url.replace("postgres@", f"{app_role}@")
        named = "permission denied" if command == "migrate" else "lacks"
        check_refusal(run(tmp_path, command, url), named)

    @pytest.mark.parametrize("url", WRONG_URLS)
    def test_an_url_that_cannot_be_used(self, tmp_path: Path, url: str, command: str) -> None:
        done = run(tmp_path, command, url)
        assert done.returncode in {1, 2}
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "hunter2" not in done.stderr


def test_an_older_schema_is_named(tmp_path: Path, database_url: str) -> None:
    set_revision(database_url, "0004")
    for command in ("api", "worker"):
        check_refusal(
            run(tmp_path, command, database_url), "the schema is at 0004; not applied: 0005"
        )


def test_migrate_leaves_the_schema_of_a_newer_version_as_it_is(
    tmp_path: Path, database_url: str
) -> None:
    set_revision(database_url, "9999")
    done = run(tmp_path, "migrate", database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "already up to date\n", "")


def test_dev_refuses_a_database_of_its_user(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    ports = dict(zip(("HTTP", "SMTP"), free_ports(2), strict=True))
    options = " ".join(["--database", postgres_server.url("nowhere")])
    done = run(
        tmp_path,
        f"dev {options}",
        "",
        **{f"NOTIFIER_SANDBOX__{name}_PORT": str(port) for name, port in ports.items()},
    )
    check_refusal(done, 'database "nowhere" does not exist')


@pytest.mark.parametrize("url", WRONG_URLS)
def test_doctor_reports_an_url_that_cannot_be_used(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "doctor", url)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def set_revision(url: str, revision: str) -> None:
    async def write() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE alembic_version SET version_num = $1", revision)
        await connection.close()

    in_a_thread(lambda: run_alone(write()))
