"""A private RabbitMQ as a real process: its data, faults, clusters, and cleaning up."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aio_pika
import aiohttp
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from harness.rabbitmq import ClusterPeer, RabbitmqNode, running_node
from notifier.embedded.folder import FolderInUse, ForeignFolder, processes_in, program_name
from notifier.embedded.process import ServerFailed, run_steps, run_steps_async, until
from notifier.embedded.rabbitmq import RabbitmqInstall, RabbitmqServer, find_rabbitmq
from notifier.embedded.server import opened

LOOPBACK = {
    "0100007F",
    "00000000000000000000000001000000",
}  # as in /proc/net/tcp and tcp6
LISTENING = "0A"
RECEIVE_TIMEOUT_S = 20.0
QUORUM = {"x-queue-type": "quorum"}
LAUNCHER = """
import signal, sys
from pathlib import Path
from harness.rabbitmq import choose_rabbitmq
from notifier.embedded.rabbitmq import RabbitmqServer
from notifier.embedded.server import running
with running(RabbitmqServer(Path(sys.argv[1]), install=choose_rabbitmq(sys.argv[2]))) as server:
    print(server.port, flush=True)
    signal.pause()
"""


async def _publish(url: str, body: bytes) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, arguments={**QUORUM})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)


async def _receive(url: str, count: int) -> list[bytes]:
    """Receive messages without acknowledging them. (After a start a queue's depth is unknown.)"""
    connection = await aio_pika.connect(url)
    async with connection, asyncio.timeout(RECEIVE_TIMEOUT_S):
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", passive=True)
        bodies: list[bytes] = []
        async with queue.iterator() as messages:
            while len(bodies) < count:
                bodies.append((await anext(messages)).body)
        return bodies


async def test_confirmed_messages_survive_a_restart_and_a_kill(
    private_rabbitmq: RabbitmqNode, private_vhost_url: str
) -> None:
    await _publish(private_vhost_url, b"a")
    await run_steps_async(private_rabbitmq.restarting())
    assert await _receive(private_vhost_url, 1) == [b"a"]
    await _publish(private_vhost_url, b"b")
    private_rabbitmq.kill()
    assert private_rabbitmq.pid is None
    with pytest.raises(OSError, match=r".+"):
        await _receive(private_vhost_url, 1)
    await run_steps_async(private_rabbitmq.starting())
    assert sorted(await _receive(private_vhost_url, 2)) == [b"a", b"b"]


async def test_a_wiped_node_keeps_its_vhosts_and_ports_and_loses_its_messages(
    private_rabbitmq: RabbitmqNode, private_vhost_url: str
) -> None:
    await _publish(private_vhost_url, b"a")
    private_rabbitmq.wipe()
    with pytest.raises(ChannelNotFoundEntity):
        await _receive(private_vhost_url, 1)
    await _publish(private_vhost_url, b"b")
    assert await _receive(private_vhost_url, 1) == [b"b"]


async def test_vhosts_are_separate_and_can_be_deleted(
    rabbitmq_server: RabbitmqNode, vhost_url: str
) -> None:
    await _publish(vhost_url, b"a")
    rabbitmq_server.create_vhost("other/one")
    with pytest.raises(ChannelNotFoundEntity):
        await _receive(rabbitmq_server.url("other/one"), 1)
    rabbitmq_server.delete_vhost("other/one")
    async with aiohttp.ClientSession(rabbitmq_server.management_url) as session:
        names = [vhost["name"] for vhost in await (await session.get("/api/vhosts")).json()]
    assert "other/one" not in names
    assert "/" in names


def test_a_node_listens_on_the_loopback_only(rabbitmq_server: RabbitmqNode) -> None:
    folder = rabbitmq_server.log.parent
    sockets = {
        str(link.readlink())
        for pid in processes_in(folder)
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink()
    }
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = {
        row[1].partition(":")[0]
        for row in rows
        if row[3] == LISTENING and f"socket:[{row[9]}]" in sockets
    }
    assert listening
    assert listening <= LOOPBACK


def test_a_second_node_in_a_folder_is_refused_in_one_line(
    rabbitmq_server: RabbitmqNode, rabbitmq_install: RabbitmqInstall
) -> None:
    folder = rabbitmq_server.log.parent
    with pytest.raises(FolderInUse) as refused:
        RabbitmqNode(folder, install=rabbitmq_install, keep=False).start()
    assert str(refused.value) == (
        f"{folder} is in use by process {os.getpid()}; stop it or choose another folder"
    )
    with pytest.raises(FolderInUse):
        RabbitmqServer.remove(folder)
    socket.create_connection(("127.0.0.1", rabbitmq_server.port)).close()


def test_node_and_epmd_end_when_their_parent_is_killed(
    session_folder: Path, pytestconfig: pytest.Config
) -> None:
    folder = session_folder / "killed" / ("a long name " * 10)
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, folder, pytestconfig.getoption("--rabbitmq")],
        cwd=pytestconfig.rootpath,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        assert int(parent.stdout.readline())
        assert len(processes_in(folder)) >= 2
        parent.kill()
    run_steps(until(lambda: not processes_in(folder), timeout_s=30))
    assert not processes_in(folder)
    assert folder.exists()
    RabbitmqServer.remove(folder)
    assert not folder.exists()


def test_a_cancelled_start_leaves_no_process(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folder = session_folder / "cancelled"
    steps = RabbitmqNode(folder, install=rabbitmq_install, keep=False).starting()
    for _ in zip(range(10), steps, strict=False):
        pass
    steps.close()
    run_steps(until(lambda: not processes_in(folder), timeout_s=30))
    assert not processes_in(folder)
    assert not folder.exists()


def test_the_installer_does_nothing_if_a_rabbitmq_is_installed(
    pytestconfig: pytest.Config,
) -> None:
    script = pytestconfig.rootpath / "deploy/install-rabbitmq"
    result = subprocess.run([script], cwd=pytestconfig.rootpath, check=True, capture_output=True)
    assert result.stdout.decode().startswith("install-rabbitmq: found ")
    assert find_rabbitmq(pytestconfig.rootpath / ".notifier/rabbitmq-server")


def test_a_folder_that_no_launcher_created_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("precious")
    with pytest.raises(ForeignFolder, match="nothing was changed"):
        RabbitmqServer.remove(tmp_path)
    (tmp_path / "lock").touch()
    with pytest.raises(ForeignFolder):
        RabbitmqServer.remove(tmp_path)
    assert (tmp_path / "report.txt").read_text() == "precious"


def test_a_helper_that_outlives_its_node_is_killed_and_a_foreign_process_is_not(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folder = session_folder / "rabbitmq-helpers"
    with running_node(folder, install=rabbitmq_install, keep=True):
        erl = shutil.which("erl", path=rabbitmq_install.path)
        assert erl
        foreign = subprocess.Popen(["/bin/sleep", "600"], cwd=folder)
        helper = subprocess.Popen(
            [erl, "-noshell", "-boot", "no_dot_erlang"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
        run_steps(until(lambda: program_name(helper.pid) == "beam.smp", timeout_s=30))
        helper_pid = helper.pid
    assert helper.wait(timeout=30) == -signal.SIGKILL
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()
    assert helper_pid not in processes_in(folder)
    RabbitmqServer.remove(folder)


async def test_a_peer_can_join_the_cluster_of_the_first_node(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folders = [session_folder / f"rabbitmq-cluster-{number}" for number in range(2)]
    first = RabbitmqNode(folders[0], install=rabbitmq_install, keep=False)
    second = ClusterPeer(folders[1], install=rabbitmq_install, first=first)
    async with opened(first), opened(second):
        await second.join()
        assert second.name in await first.control("cluster_status")
    assert not any(folder.exists() for folder in folders)


async def test_a_first_node_that_paused_itself_while_a_peer_joined_is_waited_for(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folders = [session_folder / f"rabbitmq-pausing-{number}" for number in range(2)]
    first = RabbitmqNode(folders[0], install=rabbitmq_install, keep=False)
    second = ClusterPeer(folders[1], install=rabbitmq_install, first=first)
    async with opened(first), opened(second):
        await second.control("stop_app")
        await second.control("join_cluster", first.name)
        await first.control("eval", f"erlang:disconnect_node('{second.name}').")
        await second.control("start_app")
        await second.wait_until_both_run()
        assert second.name in await first.control("cluster_status")


async def test_an_error_of_rabbitmqctl_is_raised(private_rabbitmq: RabbitmqNode) -> None:
    with pytest.raises(ServerFailed, match="rabbitmqctl no_such_word: "):
        await private_rabbitmq.control("no_such_word")
