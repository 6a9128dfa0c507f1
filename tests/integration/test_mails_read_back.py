"""Mails with names, copies, headers and files, as real servers have stored them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.integration.read_back import ReadableServer, exim, postfix, read_back

COUNT = 60


@pytest.mark.parametrize("server", [exim, postfix])
async def test_mails_that_a_server_stored_have_no_defect_and_their_files_byte_equal(
    server: Callable[[], AbstractAsyncContextManager[ReadableServer]],
) -> None:
    assert await read_back(server(), COUNT) == COUNT
