"""A private Postgres as a real process: its data, faults, and cleaning up."""

import asyncio
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from notifier.embedded.folder import FolderInUse, ForeignFolder, processes_in
from notifier.embedded.postgres import PostgresServer, open_postgres, running_postgres
from notifier.embedded.postgres_binaries import SYSTEM_FOLDER, find_binaries
from notifier.embedded.process import ServerFailed, run_steps, run_steps_async, until

VERSIONS = [find_binaries(), *sorted(SYSTEM_FOLDER.glob("*/bin"))]
NUMBERS = itertools.count(1)
LAUNCHER = """
import signal, sys
from pathlib import Path
from notifier.embedded.postgres import running_postgres
with running_postgres(Path(sys.argv[1]), durable=False) as server:
    print(server.data_folder, flush=True)
    signal.pause()
"""


@pytest.fixture
def folder(session_folder: Path) -> Path:
    """A path where nothing exists yet, in a folder that the server's account may enter."""
    return session_folder / f"p{next(NUMBERS)}"


async def _insert_note(server: PostgresServer, text: str) -> None:
    await _fetch_value(server, "CREATE TABLE IF NOT EXISTS notes (text text)")
    await _fetch_value(server, f"INSERT INTO notes VALUES ('{text}')")


async def _notes(server: PostgresServer) -> object:
    return await _fetch_value(server, "SELECT string_agg(text, ',' ORDER BY text) FROM notes")


async def _fetch_value(server: PostgresServer, statement: str) -> object:
    connection = await asyncpg.connect(server.url())
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("binaries", VERSIONS, ids=lambda path: path.parent.name)
async def test_committed_rows_survive_a_stop_a_restart_and_a_kill(
    folder: Path, binaries: Path
) -> None:
    async with open_postgres(folder, bin_folder=binaries, durable=False) as server:
        await _insert_note(server, "a")
        server.restart()
        await _insert_note(server, "b")
        server.kill()
        assert server.pid is None
        server.start()
        assert await _notes(server) == "a,b"
    async with open_postgres(folder, bin_folder=binaries, durable=False) as server:
        assert await _notes(server) == "a,b"
    PostgresServer.remove(folder)
    assert not folder.exists()


async def test_a_restart_in_steps_does_not_block_the_event_loop(
    private_postgres: PostgresServer,
) -> None:
    before = private_postgres.pid
    await run_steps_async(private_postgres.restarting())
    assert private_postgres.pid not in {None, before}
    assert await _fetch_value(private_postgres, "SELECT 1") == 1


async def test_a_durable_server_uses_fsync_and_does_not_listen_on_tcp(folder: Path) -> None:
    async with open_postgres(folder, keep=False) as server:
        assert await _fetch_value(server, "SHOW fsync") == "on"
        assert await _fetch_value(server, "SHOW listen_addresses") == ""
        assert await _fetch_value(server, "SHOW max_connections") == "100"


async def test_a_server_that_is_not_kept_leaves_no_file_and_no_process(folder: Path) -> None:
    async with open_postgres(folder, keep=False, durable=False) as server:
        data = server.data_folder
    assert not folder.exists()
    assert not data.exists()
    assert not processes_in(data)


async def test_a_folder_with_a_long_path_gets_a_socket_with_a_short_path(folder: Path) -> None:
    long = folder / ("with a long name " * 6) / ("and another " * 8)
    async with open_postgres(long, durable=False) as server:
        sockets = server.socket.parent
        assert len(os.fsencode(server.socket)) < 100
        await _insert_note(server, "a")
    assert not sockets.exists()
    async with open_postgres(long, durable=False, keep=False) as server:
        assert await _notes(server) == "a"
    assert not server.socket.parent.exists()


async def test_a_folder_that_only_its_owner_may_enter_keeps_its_mode(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    inner = folder / "postgres"
    async with open_postgres(inner, durable=False) as server:
        data = server.data_folder
        await _insert_note(server, "a")
    async with open_postgres(inner, durable=False) as server:
        assert await _notes(server) == "a"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.geteuid()
    PostgresServer.remove(inner)
    assert not data.exists()
    assert not inner.exists()


async def test_programs_that_the_servers_account_cannot_reach_are_copied(folder: Path) -> None:
    package = find_binaries().parent.parent
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700, parents=True)
    for source in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, hidden / source.name, symlinks=True)
    binaries = hidden / package.name / "pginstall/bin"
    for _ in range(2):
        async with open_postgres(folder / "home", bin_folder=binaries, durable=False) as server:
            assert await _fetch_value(server, "SELECT 1") == 1
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700


async def test_a_second_server_in_a_folder_is_refused_in_one_line(folder: Path) -> None:
    with running_postgres(folder, durable=False, keep=False) as server:
        with pytest.raises(FolderInUse) as refused:
            async with open_postgres(folder, durable=False, keep=False):
                pass
        assert str(refused.value) == (
            f"{folder} is in use by process {os.getpid()}; stop it or choose another folder"
        )
        with pytest.raises(FolderInUse):
            PostgresServer.remove(folder)
        assert await _fetch_value(server, "SELECT 1") == 1


async def test_a_server_ends_when_its_parent_is_killed(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, folder], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        data = Path(parent.stdout.readline().strip())
        assert processes_in(data)
        parent.kill()
    run_steps(until(lambda: not processes_in(data), timeout_s=30))
    assert not processes_in(data)
    async with open_postgres(folder, durable=False, keep=False) as server:
        assert await _fetch_value(server, "SELECT 1") == 1


async def test_a_start_waits_until_the_processes_of_a_killed_server_have_ended(
    folder: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, folder], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        data = Path(parent.stdout.readline().strip())
        for pid in processes_in(data):
            os.kill(pid, signal.SIGKILL)
        parent.kill()
    async with open_postgres(folder, durable=False, keep=False) as server:
        assert await _fetch_value(server, "SELECT 1") == 1


async def test_a_server_starts_although_another_process_has_the_pid_in_its_old_pid_file(
    folder: Path,
) -> None:
    with running_postgres(folder, durable=False) as server:
        server.kill()
        pid_file = server.data_folder / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]))
        server.start()
        assert await _fetch_value(server, "SELECT 1") == 1


async def test_a_cancelled_start_leaves_no_process_and_a_usable_folder(folder: Path) -> None:
    server = PostgresServer(folder, durable=False)
    steps = server.starting()
    next(steps)
    steps.close()
    assert not processes_in(folder / "data-part")
    async with open_postgres(folder, durable=False, keep=False) as restarted:
        assert await _fetch_value(restarted, "SELECT 1") == 1


def test_the_error_names_a_folder_without_postgres_programs(folder: Path) -> None:
    with pytest.raises(ServerFailed, match=f"{folder} contains no Postgres"):
        PostgresServer(folder, bin_folder=folder).start()


def test_data_of_another_version_is_refused_with_the_servers_error(folder: Path) -> None:
    with running_postgres(folder, durable=False) as server:
        (server.data_folder / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerFailed, match="initialized by PostgreSQL version 9") as refused:
        server.start()
    assert "\n" not in str(refused.value)
    assert not processes_in(server.data_folder)


async def test_a_server_cannot_be_started_outside_the_main_thread(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(PostgresServer(folder, durable=False).start)


def test_a_folder_that_no_launcher_created_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("precious")
    with pytest.raises(ForeignFolder, match="nothing was changed"):
        PostgresServer.remove(tmp_path)
    (tmp_path / "lock").touch()
    with pytest.raises(ForeignFolder):
        PostgresServer.remove(tmp_path)
    assert (tmp_path / "report.txt").read_text() == "precious"
