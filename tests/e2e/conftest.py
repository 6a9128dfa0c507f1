"""Systems of real processes, each with its client."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from harness.client import Client, open_client
from harness.system import System, running_system, urls

NUMBERS = itertools.count(1)


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
