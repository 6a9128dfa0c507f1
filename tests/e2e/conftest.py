"""Systems of real processes, each with its client."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from harness.client import Client, open_client
from harness.system import System, running_system, urls
from notifier.adapters.postgres.migrate import migrate
from notifier.embedded.postgres import PostgresServer
from tests.conftest import execute
from tests.granted import granted_by_the_deploy_guide

NUMBERS = itertools.count(1)
OWNER: Final = "owner"
DATABASE: Final = "granted"


@pytest.fixture(scope="session")
def e2e_folder(session_folder: Path) -> Path:
    """Where all systems live."""
    folder = session_folder / "e2e"
    folder.mkdir(mode=0o711)
    return folder


@pytest.fixture
def system_folder(e2e_folder: Path) -> Path:
    """Where the test's own system will live; not made yet."""
    return e2e_folder / f"system-{next(NUMBERS)}"


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    """A system on the session's servers; nothing runs yet."""
    with running_system(system_folder, urls(database_url, vhost_url)) as system:
        yield system


@pytest.fixture
async def client(system: System) -> AsyncIterator[Client]:
    async with open_client(system.api_url, system.sandbox_url) as client:
        yield client


@pytest.fixture
def owner_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database as the role sees it that will own its tables, and is no superuser."""
    execute(postgres_server, f"CREATE ROLE {OWNER} LOGIN")
    execute(postgres_server, f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0")
    yield as_role(OWNER, postgres_server.url(DATABASE))
    execute(postgres_server, f"DROP DATABASE {DATABASE} WITH (FORCE)")
    execute(postgres_server, f"DROP ROLE {OWNER}")


@pytest.fixture
async def app_url(owner_url: str, app_role: str, postgres_server: PostgresServer) -> str:
    """The database as the processes' role sees it, once the owner has migrated and granted."""
    await asyncio.to_thread(migrate, owner_url)
    connection = await asyncpg.connect(owner_url)
    await connection.execute(granted_by_the_deploy_guide())
    await connection.close()
    return as_role(app_role, postgres_server.url(DATABASE))


def as_role(role: str, url: str) -> str:
    return url.replace("postgres@", f"{role}@")
