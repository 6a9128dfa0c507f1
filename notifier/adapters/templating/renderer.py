"""Starts the renderer's process, asks it, and starts it again if a template ended it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

import notifier
from notifier.adapters.templating.messages import (
    BYTE_ORDER,
    HEADER_BYTES,
    Compile,
    Render,
    Reply,
    Request,
    decode_reply,
    framed,
)
from notifier.adapters.templating.tenant_turns import TenantTurns
from notifier.domain.errors import RendererUnavailable
from notifier.domain.templates import FaultKind, Parts, TemplateFault
from notifier.domain.tenants import TenantId
from notifier.ports.templates import RenderJob

ANSWER_TIMEOUT_S: Final = 10.0
"""The process ends itself by its own limits long before, unless the machine stands still."""
CLOSE_TIMEOUT_S: Final = 2.0
TRIES: Final = 2
"""How often a request is made whose process was ended by somebody else."""
FAULTS_OF_REQUESTS: Final = frozenset(
    {
        -signal.SIGPROF,  # its limit of time
        -signal.SIGABRT,  # its limit of memory, in a library that cannot go on without
        -signal.SIGSEGV,  # its stack
        -signal.SIGBUS,
        -signal.SIGILL,
    }
)
"""The exit codes of a process that its request has ended."""
_MODULE: Final = "notifier.adapters.templating.child"
_ENDED: Final = TemplateFault(
    kind=FaultKind.LIMIT, part="template", detail="it needs more time or memory than a template may"
)

log = structlog.get_logger(__name__)


class ChildRenderer:
    """Implements ports.templates.TemplateRenderer. The process is started by the first request."""

    def __init__(self) -> None:
        self._turns = TenantTurns()
        self._process: Process | None = None

    async def render(self, job: RenderJob) -> Parts | Sequence[TemplateFault]:
        request = Render(job.parts, job.variables, job.max_bytes, job.schema, job.is_accepted)
        reply = await self._ask(job.tenant, request)
        if reply.faults:
            return reply.faults
        parts: Parts = msgspec.json.decode(reply.result)
        return parts

    async def compile(self, tenant: TenantId, document: bytes) -> bytes | Sequence[TemplateFault]:
        reply = await self._ask(tenant, Compile(document))
        return reply.faults or reply.result

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            await self._end(self._process)

    async def _end(self, process: Process) -> None:
        """Let a process end by itself, and kill it otherwise.

        A kill at once could take the exit code of a process that has just ended.
        """
        self._process = None
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            await self._kill(process)

    async def _ask(self, tenant: TenantId, request: Request) -> Reply:
        """Send a request at the tenant's turn. Cancelled, it ends the process."""
        message = framed(request)
        async with self._turns.turn(tenant):
            for _ in range(TRIES):
                process = await self._running()
                try:
                    with self._turns.charged(tenant):
                        async with asyncio.timeout(ANSWER_TIMEOUT_S):
                            return await _exchange(process, message)
                except TimeoutError as error:
                    await self._discard(process)
                    raise RendererUnavailable(
                        "the renderer of templates does not answer"
                    ) from error
                except (EOFError, OSError):  # EOFError: IncompleteReadError
                    await self._end(process)
                    log.warning("template_renderer_ended", returncode=process.returncode)
                    if process.returncode in FAULTS_OF_REQUESTS:
                        return Reply(faults=[_ENDED])
                except BaseException:
                    # Its answer would be taken for that of the next request.
                    await self._discard(process)
                    raise
        raise RendererUnavailable("the renderer of templates was ended twice")

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            try:
                self._process = await _start()
                # Its start is not charged: another tenant's template may have ended the one before.
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await _answer(self._process)
            except (EOFError, OSError) as error:  # OSError: TimeoutError
                await self.close()
                raise RendererUnavailable(
                    f"the renderer of templates does not start: {error}"
                ) from error
            except BaseException:
                if self._process is not None:
                    await self._discard(self._process)
                raise
        return self._process

    async def _discard(self, process: Process) -> None:
        """Kill a process."""
        self._process = None
        await self._kill(process)

    @staticmethod
    async def _kill(process: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _start() -> Process:
    # Its own session: Ctrl-C on a terminal must not end it while this process drains. It ends when
    # its input does.
    paths = [str(Path(notifier.__file__).parents[1]), *filter(None, sys.path)]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", _MODULE),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
        env={"PYTHONPATH": os.pathsep.join(paths)},
    )


async def _exchange(process: Process, message: bytes) -> Reply:
    assert process.stdin is not None  # noqa: S101 a pipe
    process.stdin.write(message)
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process: Process) -> Reply:
    assert process.stdout is not None  # noqa: S101 a pipe
    header = await process.stdout.readexactly(HEADER_BYTES)
    return decode_reply(await process.stdout.readexactly(int.from_bytes(header, BYTE_ORDER)))


@asynccontextmanager
async def open_renderer() -> AsyncIterator[ChildRenderer]:
    """A renderer whose process ends with the block."""
    renderer = ChildRenderer()
    try:
        yield renderer
    finally:
        await renderer.close()
