"""Postgres and RabbitMQ over TLS, with certificates of a private authority."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from harness.client import open_client, submit_body
from harness.rabbitmq import running_node
from harness.system import running_system, urls
from notifier.adapters.rabbitmq.checkup import examine_rabbitmq
from notifier.domain.finding import CheckStatus
from notifier.embedded.free_ports import free_ports
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.rabbitmq import RabbitmqInstall
from tests.conftest import NUMBERS
from tests.tls_front import tls_in_front_of

PASSWORD = "correct-horse"


@dataclass(frozen=True)
class Servers:
    """The addresses and credentials of both servers. The certificates name `localhost` only."""

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
    """The certificate of the servers, its authority, and another authority."""
    folder = session_folder / "tls"
    folder.mkdir(mode=0o711)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder


@pytest.fixture
def postgres_port(postgres_server: PostgresServer, folder: Path) -> Iterator[int]:
    with tls_in_front_of(postgres_server.socket, folder / "server.pem") as port:
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
    node_folder = session_folder / f"rabbitmq-{next(NUMBERS)}"
    with running_node(node_folder, install=rabbitmq_install, keep=False, settings=settings):
        yield port


@pytest.fixture
def servers(database_url: str, postgres_port: int, amqps_port: int, folder: Path) -> Servers:
    name = urlsplit(database_url).path[1:]
    return Servers(name, postgres_port, amqps_port, folder)


@pytest.fixture
def system_folder(session_folder: Path) -> Path:
    return session_folder / f"tls-system-{next(NUMBERS)}"


async def test_a_notification_is_sent_over_tls(system_folder: Path, servers: Servers) -> None:
    with running_system(system_folder, urls(servers.database, servers.broker)) as system:
        system.start_all()
        async with open_client(system.api_url, system.sandbox_url) as client:
            notification_id = await client.submit_one(submit_body())
            assert (await client.final(notification_id))["status"] == "sent"
        doctor = system.run("doctor")
        assert doctor.returncode == 0, doctor.stdout
        migrate = system.run("migrate")
        assert migrate.returncode == 0, migrate.stderr


@pytest.mark.parametrize(
    ("ca", "host", "reason"),
    [
        ("other-ca.pem", "localhost", "certificate verify failed"),
        ("ca.pem", "127.0.0.1", "certificate is not valid for '127.0.0.1'"),
    ],
    ids=["another authority", "another name"],
)
def test_no_password_is_sent_to_a_server_with_a_wrong_certificate(
    system_folder: Path, servers: Servers, ca: str, host: str, reason: str
) -> None:
    wrong = replace(servers, ca=Path(ca), host=host, broker_login=f"app:{PASSWORD}")
    with running_system(system_folder, urls(wrong.database, wrong.broker)) as system:
        doctor = system.run("doctor", "--json")
        migrate = system.run("migrate")
    findings = {check["check"]: check["finding"] for check in json.loads(doctor.stdout)}
    assert (doctor.returncode, migrate.returncode) == (1, 2)
    for message in (findings["postgres"], findings["rabbitmq"], migrate.stderr):
        assert reason in message
    assert PASSWORD not in doctor.stdout + doctor.stderr + migrate.stdout + migrate.stderr


@pytest.mark.parametrize("server", ["database", "broker"])
def test_a_missing_certificate_file_is_an_error_of_the_setting(
    system_folder: Path, servers: Servers, server: str
) -> None:
    wrong = replace(servers, ca=Path("none.pem"))
    urls_of = {"database": wrong.database, "broker": servers.broker, server: getattr(wrong, server)}
    with running_system(system_folder, urls(urls_of["database"], urls_of["broker"])) as system:
        doctor = system.run("doctor")
    assert doctor.returncode == 2
    assert f"{server}.url" in doctor.stderr
    assert "names a file that cannot be read" in doctor.stderr
    assert PASSWORD not in doctor.stdout + doctor.stderr


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (lambda url: url.partition("?")[0], "append ?cafile="),
        (lambda url: url.partition("?")[0].replace("amqps:", "amqp:"), "write amqps://"),
    ],
    ids=["a private authority without cafile", "amqp on the TLS port"],
)
async def test_doctor_says_how_to_fix_a_tls_connection_to_rabbitmq(
    servers: Servers, change: Callable[[str], str], fix: str
) -> None:
    (reach, *_) = await examine_rabbitmq(change(servers.broker), [], place="there")
    assert reach.status is CheckStatus.WRONG
    assert fix in reach.fix


async def test_doctor_says_that_a_port_does_not_speak_tls(vhost_url: str) -> None:
    url = vhost_url.replace("amqp:", "amqps:")
    (reach, *_) = await examine_rabbitmq(url, [], place="there")
    assert reach.status is CheckStatus.WRONG
    assert "does not speak TLS" in reach.fix
