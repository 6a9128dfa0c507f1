"""The proxy that breaks connections, against the real servers it will stand before."""

import asyncio
import time

import asyncpg
import pytest

from harness.tcp_proxy import LOOPBACK, TcpProxy, open_proxy, open_proxy_for
from notifier.embedded.postgres import PostgresServer

SOON_S = 10.0


async def test_a_healthy_proxy_is_not_noticed(empty_database_url: str) -> None:
    async with open_proxy_for(empty_database_url) as proxy:
        connection = await asyncpg.connect(proxy.url(empty_database_url))
        big = await connection.fetchval("SELECT repeat('x', 3000000)")
        assert len(big) == 3_000_000
        assert proxy.connections == 1
        await connection.close()


async def test_what_clients_send_is_recorded_by_connection(empty_database_url: str) -> None:
    async with open_proxy_for(empty_database_url) as proxy:
        assert await _answer(proxy, empty_database_url) == 1
        sessions = proxy.record()
        for number in (2, 3):
            connection = await asyncpg.connect(proxy.url(empty_database_url))
            assert await connection.fetchval(f"SELECT {number}") == number
            await connection.close()
        first, second = sessions
        assert (b"SELECT 2" in first, b"SELECT 2" in second) == (True, False)
        assert b"SELECT 3" in second


async def test_a_cut_connection_fails_and_new_ones_are_refused_until_healed(
    empty_database_url: str,
) -> None:
    async with open_proxy_for(empty_database_url) as proxy:
        connection = await asyncpg.connect(proxy.url(empty_database_url))
        proxy.cut()
        with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await connection.fetchval("SELECT 1")
        with pytest.raises(ConnectionRefusedError):
            await asyncpg.connect(proxy.url(empty_database_url))
        proxy.heal()
        assert await _answer(proxy, empty_database_url) == 1


async def test_a_cut_and_heal_without_a_wait_between_them_leave_it_listening(
    empty_database_url: str,
) -> None:
    async with open_proxy_for(empty_database_url) as proxy:
        for _ in range(3):
            proxy.cut()
            proxy.heal()
        assert await _answer(proxy, empty_database_url) == 1


async def test_what_was_sent_into_a_black_hole_arrives_when_it_heals(
    empty_database_url: str,
) -> None:
    async with open_proxy_for(empty_database_url) as proxy, asyncio.TaskGroup() as group:
        connection = await asyncpg.connect(proxy.url(empty_database_url))
        proxy.blackhole()
        asked = group.create_task(connection.fetchval("SELECT 1"))
        late = group.create_task(_answer(proxy, empty_database_url))
        done, _ = await asyncio.wait({asked, late}, timeout=0.2)
        assert not done
        proxy.heal()
        async with asyncio.timeout(SOON_S):
            assert (await asked, await late) == (1, 1)
        await connection.close()


async def test_a_swallowed_answer_leaves_the_work_done(
    empty_database_url: str, postgres_server: PostgresServer
) -> None:
    upstream = postgres_server.socket
    async with open_proxy("", upstream) as proxy, asyncio.TaskGroup() as group:
        connection = await asyncpg.connect(proxy.url(empty_database_url))
        proxy.swallow_replies()
        asked = group.create_task(_ends_in_an_error(connection, "CREATE TABLE done ()"))
        async with asyncio.timeout(SOON_S):
            await proxy.swallowed.wait()
        proxy.heal()
        await asked
        direct = await asyncpg.connect(empty_database_url)
        assert await direct.fetchval("SELECT to_regclass('done')") == "done"
        await direct.close()


async def test_a_proxy_to_nowhere_resets_its_clients() -> None:
    async with open_proxy("", "/nonexistent/socket") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def _answer(proxy: TcpProxy, url: str) -> object:
    connection = await asyncpg.connect(proxy.url(url))
    try:
        return await connection.fetchval("SELECT 1")
    finally:
        await connection.close()


async def _ends_in_an_error(connection: asyncpg.Connection, statement: str) -> None:
    with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await connection.execute(statement)


async def test_a_slow_link_delays_both_ways_and_keeps_the_order(empty_database_url: str) -> None:
    async with open_proxy_for(empty_database_url) as proxy:
        connection = await asyncpg.connect(proxy.url(empty_database_url))
        proxy.slow(0.05)
        began = time.monotonic()
        big = await connection.fetchval("SELECT repeat('x', 3000000)")
        assert time.monotonic() - began >= 0.1
        proxy.heal()
        assert (len(big), await connection.fetchval("SELECT 1")) == (3_000_000, 1)
        await connection.close()


async def test_a_half_closed_link_says_its_end_and_carries_the_other_way_still() -> None:
    on_outcome = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            on_outcome.put_nowait(data)
        writer.close()
        await writer.wait_closed()
        on_outcome.put_nowait(b"")

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    async with server, open_proxy(LOOPBACK, server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"before")
        assert await on_outcome.get() == b"before"
        proxy.half_close()
        async with asyncio.timeout(SOON_S):
            assert await reader.read() == b""
            writer.write(b"after")
            assert await on_outcome.get() == b"after"
            writer.close()
            assert await on_outcome.get() == b""
