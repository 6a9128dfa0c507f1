"""Loads the files of notifications, which are blobs, within a limit of bytes.

A file that several sends need is held once. One that no send needs any longer is kept while there
is room, for the next mail of the same newsletter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from notifier.domain.blobs import BlobId, blobs_of, is_blob_id
from notifier.domain.errors import StoreError, StoreRejected
from notifier.domain.outcome import Outcome, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.domain.notification import Claimed, NotificationId
    from notifier.ports.blobs import BlobReader

log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(dict[str, object]).decode
ENTRY_BYTES: Final = 1024
"""About what a file in memory takes beside its bytes."""
NO_ROOM: Final = Unavailable(
    code="no_memory", detail="files of other mails fill worker.max_held_bytes", is_local=True
)


class FileMissing(Exception):
    """A notification refers to a blob that its tenant does not have."""


class _Entry:
    """A file in memory, and how many sends use it."""

    __slots__ = ("data", "users")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.users = 0


class HeldFiles:
    """The files of one notification, to be released once."""

    def __init__(self, loader: FileLoader, data: Mapping[str, bytes], copies: int) -> None:
        self._loader = loader
        self.data = data
        self._copies = copies

    def release(self) -> None:
        """Let the files go."""
        self._loader.release(self.data, self._copies)


class FileLoader:
    """Holds at most `max_bytes` of files; a notification that needs more is loaded alone."""

    def __init__(self, store: BlobReader, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._entries: dict[str, _Entry] = {}
        """The one that was used last is last."""
        self._bytes = 0
        self._sends = 0
        self._loading = asyncio.Lock()
        self._released = asyncio.Event()

    async def load(self, claimed: Claimed, *, copies: int, timeout_s: float) -> HeldFiles | Outcome:
        """Return the files of a notification, or the outcome of a send without them.

        `copies` is how many copies of them the provider's call holds. Waits up to `timeout_s` for
        room and for the store. Every HeldFiles must be released.
        """
        try:
            names = _names(claimed)
            async with asyncio.timeout(timeout_s):
                return await self._held(claimed.id, names, copies)
        except TimeoutError:
            return NO_ROOM
        except (FileMissing, StoreRejected) as error:
            return Refused(code="blob_missing", detail=str(error), is_local=True)
        except StoreError as error:
            log.warning("files_not_loaded", id=str(claimed.id), reason=str(error))
            detail = "Postgres did not return the files"
            return Unavailable(code="files_unavailable", detail=detail, is_local=True)

    def release(self, data: Mapping[str, bytes], copies: int) -> None:
        """See HeldFiles.release."""
        for name in data:
            self._entries[name].users -= 1
        self._bytes -= copies * _size(data)
        self._sends -= 1
        self._forget_unused(self._max_bytes)
        self._released.set()
        self._released = asyncio.Event()

    async def _held(
        self, notification: NotificationId, names: Sequence[BlobId], copies: int
    ) -> HeldFiles:
        if copies or not self._entries.keys() >= set(names):
            async with self._loading:  # one at a time: others would take the room in between
                await self._load(notification, names, copies)
                return self._hold(names, copies)
        return self._hold(names, copies)

    def _hold(self, names: Sequence[BlobId], copies: int) -> HeldFiles:
        for name in names:
            entry = self._entries[name] = self._entries.pop(name)
            entry.users += 1
        data: dict[str, bytes] = {name: self._entries[name].data for name in names}
        self._bytes += copies * _size(data)
        self._sends += 1
        return HeldFiles(self, data, copies)

    async def _load(
        self, notification: NotificationId, names: Sequence[BlobId], copies: int
    ) -> None:
        missing = [name for name in names if name not in self._entries]
        sizes = await self._store.sizes(notification, missing) if missing else {}
        for name in missing:
            if name not in sizes:
                raise FileMissing(name)
        present = [name for name in names if name in self._entries]
        # What is there already must not be removed to make room for the rest.
        for name in present:
            self._entries[name].users += 1
        try:
            in_memory = sum(len(self._entries[name].data) for name in present)
            new_bytes = sum(sizes.values())
            await self._make_room(new_bytes + copies * (in_memory + new_bytes))
            for name in missing:
                data = await self._store.read(notification, name)
                if data is None:
                    raise FileMissing(name)
                self._entries[name] = _Entry(data)
                self._bytes += len(data) + ENTRY_BYTES
        finally:
            for name in present:
                self._entries[name].users -= 1

    async def _make_room(self, wanted: int) -> None:
        while not self._forget_unused(self._max_bytes - wanted) and self._sends:
            await self._released.wait()

    def _forget_unused(self, max_bytes: int) -> bool:
        """Forget files that no send needs while more is held; returns whether that sufficed."""
        while self._bytes > max_bytes:
            unused = next((name for name, entry in self._entries.items() if not entry.users), None)
            if unused is None:
                return False
            self._bytes -= len(self._entries.pop(unused).data) + ENTRY_BYTES
        return True


def _names(claimed: Claimed) -> Sequence[BlobId]:
    """Return the blobs that a content refers to. Raises FileMissing for what is no id."""
    try:
        named = blobs_of(_decode(claimed.content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []  # the attempt refuses it
    for name in named:
        if not is_blob_id(name):
            raise FileMissing("a name of a blob that is no id")
    return sorted(map(BlobId, named))


def _size(data: Mapping[str, bytes]) -> int:
    return sum(map(len, data.values()))
