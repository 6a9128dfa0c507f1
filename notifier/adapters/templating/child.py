"""The renderer's process: reads requests from its input, and answers them on its output.

An empty answer before the first request says that it is ready.

A template may ask for endless work or memory, or hit an error of a library that ends the process.
Time and memory are limited by the operating system, and only this process ends. It has no secret:
no environment, no connection, no file of the process that started it.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from notifier.adapters.templating import documents, engine, schemas
from notifier.adapters.templating.messages import (
    BYTE_ORDER,
    HEADER_BYTES,
    Compile,
    Render,
    Reply,
    Request,
    decode_request,
    framed,
)
from notifier.domain.templates import FaultKind, TemplateFault


class Limits(NamedTuple):
    """What a request may use: time of the processor, and memory beside that at the start."""

    cpu_s: float
    memory_bytes: int


CHECK_LIMITS: Final = Limits(0.15, 192 * 1024 * 1024)
SEND_LIMITS: Final = Limits(0.6, 320 * 1024 * 1024)
"""Higher: what has passed the check is rendered, on a machine that is slower or busier, too."""
COMPILE_LIMITS: Final = Limits(2.0, 192 * 1024 * 1024)
_UNRENDERABLE: Final = TemplateFault(
    kind=FaultKind.ERROR, part="template", detail="it cannot be rendered with these variables"
)
_UNCOMPILABLE: Final = TemplateFault(
    kind=FaultKind.SYNTAX, part="locales", detail="one of the texts ends the compiler by an error"
)
_UNKNOWN_SIZE: Final = 256 * 1024 * 1024


def main() -> None:
    """Answer requests until the input ends."""
    size_at_start = _size_bytes()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    _write(replies, Reply())
    while (body := _read(requests)) is not None:
        request = decode_request(body)
        with _limited(_limits_of(request), size_at_start):
            reply = _answer(request)
        _write(replies, reply)


def _limits_of(request: Request) -> Limits:
    if isinstance(request, Render):
        return SEND_LIMITS if request.is_accepted else CHECK_LIMITS
    return COMPILE_LIMITS


def _answer(request: Request) -> Reply:
    try:
        match request:
            case Render():
                if request.schema:
                    schemas.check(request.schema, request.variables)
                return Reply(engine.render(request.parts, request.variables, request.max_bytes))
            case Compile():
                return Reply(documents.compiled(request.document))
    except engine.Faulty as error:
        return Reply(faults=error.faults)
    except BaseException as error:
        # Whatever a template or its variables are: also out of memory, and a panic of a library in
        # Rust, which is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return Reply(faults=[_UNRENDERABLE if isinstance(request, Render) else _UNCOMPILABLE])


def _read(stream: BinaryIO) -> bytes | None:
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    return stream.read(int.from_bytes(header, BYTE_ORDER))


def _write(stream: BinaryIO, reply: Reply) -> None:
    stream.write(framed(reply))
    stream.flush()


@contextlib.contextmanager
def _limited(limits: Limits, size_at_start: int) -> Iterator[None]:
    """End this process if the block takes more time than it may, and refuse it more memory."""
    _limit_memory(size_at_start + limits.memory_bytes)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(size_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)  # it cannot be raised
    soft = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size_bytes() -> int:
    """The address space that this process has."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return _UNKNOWN_SIZE
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
