"""The private RabbitMQ as a real process: what it keeps, what it survives, what it leaves."""

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

from notifier.embedded.folder import FolderInUse, ForeignFolder, processes_in, program
from notifier.embedded.process import ServerFailed, run_steps, run_steps_async, until
from notifier.embedded.rabbitmq import (
    RabbitmqInstall,
    RabbitmqServer,
    find_rabbitmq,
    remove_rabbitmq,
    running_rabbitmq,
)
from notifier.embedded.server import opened

LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # as /proc/net/tcp and tcp6 write it
LISTENING = "0A"
SOON_S = 20.0
QUORUM = {"x-queue-type": "quorum"}
LAUNCHER = """
import signal, sys
from pathlib import Path
from notifier.embedded.rabbitmq import find_rabbitmq, running_rabbitmq
with running_rabbitmq(Path(sys.argv[1]), install=find_rabbitmq(Path(sys.argv[2]))) as server:
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


async def _take(url: str, count: int) -> list[bytes]:
    """The next messages, left unacked. (Just after a start a queue's depth is not known yet.)"""
    connection = await aio_pika.connect(url)
    async with connection, asyncio.timeout(SOON_S):
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", passive=True)
        taken: list[bytes] = []
        async with queue.iterator() as messages:
            while len(taken) < count:
                taken.append((await anext(messages)).body)
        return taken


async def test_what_was_confirmed_survives_a_restart_and_a_kill(
    private_rabbitmq: RabbitmqServer, private_vhost_url: str
) -> None:
    await _publish(private_vhost_url, b"a")
    await run_steps_async(private_rabbitmq.restarting())
    assert await _take(private_vhost_url, 1) == [b"a"]
    await _publish(private_vhost_url, b"b")
    private_rabbitmq.kill()
    assert private_rabbitmq.pid is None
    with pytest.raises(OSError, match=r".+"):
        await _take(private_vhost_url, 1)
    await run_steps_async(private_rabbitmq.starting())
    assert sorted(await _take(private_vhost_url, 2)) == [b"a", b"b"]


async def test_a_wiped_node_has_its_vhosts_and_ports_and_nothing_else(
    private_rabbitmq: RabbitmqServer, private_vhost_url: str
) -> None:
    await _publish(private_vhost_url, b"a")
    private_rabbitmq.wipe()
    with pytest.raises(ChannelNotFoundEntity):
        await _take(private_vhost_url, 1)
    await _publish(private_vhost_url, b"b")
    assert await _take(private_vhost_url, 1) == [b"b"]


async def test_vhosts_do_not_see_each_other_and_can_be_deleted(
    rabbitmq_server: RabbitmqServer, vhost_url: str
) -> None:
    await _publish(vhost_url, b"a")
    rabbitmq_server.create_vhost("other/one")
    with pytest.raises(ChannelNotFoundEntity):
        await _take(rabbitmq_server.url("other/one"), 1)
    rabbitmq_server.delete_vhost("other/one")
    async with aiohttp.ClientSession(rabbitmq_server.management_url) as session:
        names = [vhost["name"] for vhost in await (await session.get("/api/vhosts")).json()]
    assert "other/one" not in names
    assert "/" in names


def test_a_node_listens_on_the_loopback_only(rabbitmq_server: RabbitmqServer) -> None:
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


def test_a_second_node_on_a_folder_is_refused_in_one_line(
    rabbitmq_server: RabbitmqServer, rabbitmq_install: RabbitmqInstall
) -> None:
    folder = rabbitmq_server.log.parent
    with pytest.raises(FolderInUse) as refused:
        RabbitmqServer(folder, install=rabbitmq_install, keep=False).start()
    assert str(refused.value) == (
        f"{folder} is in use by process {os.getpid()}; stop it or choose another folder"
    )
    with pytest.raises(FolderInUse):
        remove_rabbitmq(folder)
    socket.create_connection(("127.0.0.1", rabbitmq_server.port)).close()


def test_a_killed_parent_takes_node_and_epmd_along(
    session_folder: Path, pytestconfig: pytest.Config
) -> None:
    folder = session_folder / "killed" / ("a long name " * 10)
    unpacked = pytestconfig.rootpath / ".notifier/rabbitmq-server"
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, folder, unpacked], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        assert int(parent.stdout.readline())
        assert len(processes_in(folder)) >= 2
        parent.kill()
    run_steps(until(lambda: not processes_in(folder), within=30))
    assert not processes_in(folder)
    assert folder.exists()
    remove_rabbitmq(folder)
    assert not folder.exists()


def test_an_abandoned_start_leaves_no_process(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folder = session_folder / "abandoned"
    steps = RabbitmqServer(folder, install=rabbitmq_install, keep=False).starting()
    for _ in zip(range(10), steps, strict=False):
        pass
    steps.close()
    run_steps(until(lambda: not processes_in(folder), within=30))
    assert not processes_in(folder)
    assert not folder.exists()


def test_the_installer_has_nothing_to_do_where_a_rabbitmq_is_found(
    pytestconfig: pytest.Config, rabbitmq_install: RabbitmqInstall
) -> None:
    script = pytestconfig.rootpath / "deploy/install-rabbitmq"
    done = subprocess.run([script], cwd=pytestconfig.rootpath, check=True, capture_output=True)
    assert done.stdout.decode().startswith("install-rabbitmq: found ")
    assert find_rabbitmq(pytestconfig.rootpath / ".notifier/rabbitmq-server") == rabbitmq_install


def test_a_folder_that_no_launcher_made_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("precious")
    with pytest.raises(ForeignFolder, match="nothing was removed"):
        remove_rabbitmq(tmp_path)
    (tmp_path / "lock").touch()
    with pytest.raises(ForeignFolder):
        remove_rabbitmq(tmp_path)
    assert (tmp_path / "report.txt").read_text() == "precious"


def test_a_helper_that_outlives_its_node_is_ended_and_a_visitor_is_not(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folder = session_folder / "rabbitmq-helpers"
    with running_rabbitmq(folder, install=rabbitmq_install, keep=True):
        erl = shutil.which("erl", path=rabbitmq_install.path)
        assert erl
        visitor = subprocess.Popen(["/bin/sleep", "600"], cwd=folder)
        helper = subprocess.Popen(
            [erl, "-noshell", "-boot", "no_dot_erlang"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
        run_steps(until(lambda: program(helper.pid) == "beam.smp", within=30))
        helper_pid = helper.pid
    assert helper.wait(timeout=30) == -signal.SIGKILL
    assert visitor.poll() is None
    visitor.kill()
    visitor.wait()
    assert helper_pid not in processes_in(folder)
    remove_rabbitmq(folder)


async def test_a_node_beside_another_can_be_a_cluster_with_it(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> None:
    folders = [session_folder / f"rabbitmq-cluster-{number}" for number in range(2)]
    first = RabbitmqServer(folders[0], install=rabbitmq_install, keep=False)
    second = RabbitmqServer(folders[1], install=rabbitmq_install, beside=first)
    async with opened(first), opened(second):
        for words in (("stop_app",), ("join_cluster", first.node), ("start_app",)):
            await second.control(*words)
        assert second.node in await first.control("cluster_status")
    assert not any(folder.exists() for folder in folders)


async def test_what_rabbitmqctl_refuses_is_said(private_rabbitmq: RabbitmqServer) -> None:
    with pytest.raises(ServerFailed, match="rabbitmqctl no_such_word: "):
        await private_rabbitmq.control("no_such_word")
