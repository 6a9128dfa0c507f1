"""Postgres and RabbitMQ over TLS, with certificates of a private authority."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from harness.client import open_client, submit_body
from harness.rabbitmq import running_node
from harness.system import running_system, urls
from notifier.embedded.free_ports import free_ports
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.rabbitmq import RabbitmqInstall
from tests.conftest import NUMBERS
from tests.tls_front import tls_before

PASSWORD = "correct-horse"


@dataclass(frozen=True)
class Way:
    """How the system is told to reach both; the certificates are for `localhost` alone."""

    name: str
    postgres_port: int
    amqps_port: int
    folder: Path
    ca: Path = Path("ca.pem")
    host: str = "localhost"
    broker_login: str = "guest:guest"

    @property
    def database(self) -> str:
        query = urlencode({"sslmode": "verify-full", "sslrootcert": self.folder / self.ca})
        return (
            f"postgresql://postgres:{PASSWORD}@{self.host}:{self.postgres_port}/{self.name}?{query}"
        )

    @property
    def broker(self) -> str:
        query = urlencode({"cafile": self.folder / self.ca})
        return f"amqps://{self.broker_login}@{self.host}:{self.amqps_port}/%2F?{query}"


@pytest.fixture(scope="module")
def folder(session_folder: Path) -> Path:
    """The certificates, made by one authority, and the one of another."""
    folder = session_folder / "tls"
    folder.mkdir(mode=0o711)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    made = authority.issue_cert("localhost")
    made.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder


@pytest.fixture
def postgres_port(postgres_server: PostgresServer, folder: Path) -> Iterator[int]:
    with tls_before(postgres_server.socket, folder / "server.pem") as port:
        yield port


@pytest.fixture(scope="module")
def amqps_port(
    session_folder: Path, folder: Path, rabbitmq_install: RabbitmqInstall
) -> Iterator[int]:
    (port,) = free_ports(1)
    settings = {
        "listeners.ssl.local": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(folder / "ca.pem"),
        "ssl_options.certfile": str(folder / "server.pem"),
        "ssl_options.keyfile": str(folder / "server.pem"),
    }
    where = session_folder / f"rabbitmq-{next(NUMBERS)}"
    with running_node(where, install=rabbitmq_install, keep=False, settings=settings):
        yield port


@pytest.fixture
def way(database_url: str, postgres_port: int, amqps_port: int, folder: Path) -> Way:
    name = urlsplit(database_url).path[1:]
    return Way(name, postgres_port, amqps_port, folder)


@pytest.fixture
def folder_of_system(session_folder: Path) -> Path:
    return session_folder / f"tls-system-{next(NUMBERS)}"


async def test_both_are_reached_and_a_notification_is_sent(
    folder_of_system: Path, way: Way
) -> None:
    with running_system(folder_of_system, urls(way.database, way.broker)) as system:
        system.start_all()
        async with open_client(system.api_url, system.sandbox_url) as client:
            which = await client.submit_one(submit_body())
            assert (await client.final(which))["status"] == "sent"
        examined = system.run("doctor")
        assert examined.returncode == 0, examined.stdout
        migrated = system.run("migrate")
        assert migrated.returncode == 0, migrated.stderr


@pytest.mark.parametrize(
    ("ca", "host", "says"),
    [
        ("other-ca.pem", "localhost", "certificate verify failed"),
        ("ca.pem", "127.0.0.1", "certificate is not valid for '127.0.0.1'"),
    ],
    ids=["another authority", "another name"],
)
def test_a_server_that_cannot_prove_who_it_is_hears_no_password(
    folder_of_system: Path, way: Way, ca: str, host: str, says: str
) -> None:
    wrong = replace(way, ca=Path(ca), host=host, broker_login=f"app:{PASSWORD}")
    with running_system(folder_of_system, urls(wrong.database, wrong.broker)) as system:
        examined = system.run("doctor", "--json")
        migrated = system.run("migrate")
    found = {check["check"]: check["finding"] for check in json.loads(examined.stdout)}
    assert (examined.returncode, migrated.returncode) == (1, 1)
    for said in (found["postgres"], found["rabbitmq"], migrated.stderr):
        assert says in said
    assert PASSWORD not in examined.stdout + examined.stderr + migrated.stdout + migrated.stderr


@pytest.mark.parametrize("server", ["database", "broker"])
def test_a_file_that_is_not_there_is_a_wrong_setting(
    folder_of_system: Path, way: Way, server: str
) -> None:
    wrong = replace(way, ca=Path("none.pem"))
    chosen = {"database": wrong.database, "broker": way.broker, server: getattr(wrong, server)}
    with running_system(folder_of_system, urls(chosen["database"], chosen["broker"])) as system:
        said = system.run("doctor")
    assert said.returncode == 2
    assert f"{server}.url" in said.stderr
    assert "names a file that cannot be read" in said.stderr
    assert PASSWORD not in said.stdout + said.stderr
