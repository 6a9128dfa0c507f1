"""The files of notifications in a worker's memory: loaded once, bounded, shared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping

import pytest

from notifier.delivery.files import ENTRY_BYTES, FileLoader, HeldFiles
from notifier.domain.blobs import BlobId, blob_id
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.notification import Claimed, NotificationId
from notifier.domain.outcome import Refused, Unavailable
from tests.builders import EMAIL_HIGH, new_id

SIZE = 10_000
ROOM = 3 * (SIZE + ENTRY_BYTES)


class Blobs:
    """Implements ports.blobs.BlobReader. Reads wait until `may_read` is set."""

    def __init__(self, *datas: bytes) -> None:
        self.datas = {blob_id(data): data for data in datas}
        self.reads: list[BlobId] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.error: Exception | None = None

    async def sizes(
        self, notification: NotificationId, ids: Collection[BlobId]
    ) -> Mapping[BlobId, int]:
        del notification
        if self.error:
            raise self.error
        return {id_: len(self.datas[id_]) for id_ in ids if id_ in self.datas}

    async def read(self, notification: NotificationId, id: BlobId) -> bytes | None:  # noqa: A002 the port's name
        del notification
        await self.may_read.wait()
        self.reads.append(id)
        return self.datas.get(id)


def datas(count: int) -> list[bytes]:
    return [bytes([n]) * SIZE for n in range(count)]


def claimed(*files: bytes, **content: object) -> Claimed:
    document = {"attachments": [{"blob": blob_id(data)} for data in files], **content}
    return Claimed(
        id=new_id(),
        claim=1,
        queue=EMAIL_HIGH,
        recipient="a@example.com",
        content=json.dumps(document).encode(),
        tries=0,
        max_tries=None,
        waited_s=0.0,
    )


async def held(loader: FileLoader, item: Claimed, copies: int = 0) -> HeldFiles:
    files = await loader.load(item, copies=copies, timeout_s=5.0)
    assert isinstance(files, HeldFiles)
    return files


async def refused(loader: FileLoader, item: Claimed, copies: int = 0) -> bool:
    """Whether there is no room now."""
    files = await loader.load(item, copies=copies, timeout_s=0.01)
    if isinstance(files, HeldFiles):
        files.release()
        return False
    assert isinstance(files, Unavailable)
    assert files.is_local
    assert files.code == "no_memory"
    return True


async def test_a_file_that_many_sends_use_is_read_and_held_once() -> None:
    data, *others = datas(3)
    store = Blobs(data, *others)
    loader = FileLoader(store, ROOM)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(held(loader, claimed(data, data))) for _ in range(50)]
    assert all(task.result().data == {blob_id(data): data} for task in tasks)
    assert len(store.reads) == 1
    assert not await refused(loader, claimed(*others)), "they find the rest of the room"
    for task in tasks:
        task.result().release()
    assert (await held(loader, claimed(data))).data[blob_id(data)] is data
    assert store.reads.count(blob_id(data)) == 1


async def test_sends_wait_while_others_fill_the_room_and_old_files_make_room() -> None:
    files = datas(5)
    loader = FileLoader(Blobs(*files), ROOM)
    holding = [await held(loader, claimed(data)) for data in files[:3]]
    assert await refused(loader, claimed(files[3]))
    assert not await refused(loader, claimed(files[0]))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(held(loader, claimed(files[3])))
        await asyncio.sleep(0)
        holding[1].release()
    assert waiting.result().data[blob_id(files[3])] == files[3]
    assert await refused(loader, claimed(files[1]))


async def test_what_needs_more_than_the_whole_room_is_loaded_alone() -> None:
    files = datas(5)
    loader = FileLoader(Blobs(*files), ROOM)
    first = await held(loader, claimed(files[0]))
    assert await refused(loader, claimed(*files))
    first.release()
    everything = await held(loader, claimed(*files))
    assert len(everything.data) == 5
    everything.release()
    for data in files[:3]:
        await held(loader, claimed(data))
    assert await refused(loader, claimed(files[3])), "the others were forgotten"


async def test_the_copies_of_a_call_count_too() -> None:
    files = datas(2)
    loader = FileLoader(Blobs(*files), ROOM)
    first = await held(loader, claimed(files[0]), copies=1)
    assert await refused(loader, claimed(files[1]), copies=1)
    assert await refused(loader, claimed(files[0]), copies=2)
    first.release()
    assert not await refused(loader, claimed(files[1]), copies=1)


@pytest.mark.parametrize(
    "item",
    [
        claimed(b"unknown"),
        claimed(mime=blob_id(b"unknown")),
        claimed(attachments=[{"blob": "sha256:"}]),
        claimed(mime="sha256:" + "g" * 64),
        claimed(attachments=[{"blob": "x" * 10_000}]),
    ],
)
async def test_a_missing_file_ends_its_notification(item: Claimed) -> None:
    files = await FileLoader(Blobs(), ROOM).load(item, copies=0, timeout_s=5.0)
    assert isinstance(files, Refused)
    assert (files.code, files.is_local) == ("blob_missing", True)


async def test_a_file_that_vanishes_while_it_is_loaded_is_missing() -> None:
    first, second = datas(2)
    store = Blobs(first, second)
    store.may_read.clear()
    loader = FileLoader(store, ROOM)
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(loader.load(claimed(first, second), copies=0, timeout_s=5.0))
        await asyncio.sleep(0)
        store.datas.clear()
        store.may_read.set()
    assert isinstance(loading.result(), Refused)
    store.datas = {blob_id(first): first, blob_id(second): second}
    assert len((await held(loader, claimed(first, second))).data) == 2


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), StoreRejected("odd")])
async def test_errors_of_the_store_are_outcomes(error: Exception) -> None:
    store = Blobs(*datas(1))
    store.error = error
    files = await FileLoader(store, ROOM).load(claimed(*datas(1)), copies=0, timeout_s=5.0)
    assert isinstance(files, Refused if isinstance(error, StoreRejected) else Unavailable)
    assert files.is_local


async def test_a_content_that_only_looks_as_if_it_had_files_has_none() -> None:
    item = claimed(attachments=[], body='say "sha256:x"')
    assert (await held(FileLoader(Blobs(), ROOM), item)).data == {}


async def test_a_cancelled_load_leaves_room_for_others() -> None:
    first, second = datas(2)
    store = Blobs(first, second)
    store.may_read.clear()
    loader = FileLoader(store, ROOM)
    task = asyncio.get_running_loop().create_task(held(loader, claimed(first)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.may_read.set()
    assert (await held(loader, claimed(second))).data[blob_id(second)] == second
    others = claimed(*datas(4)[2:])
    store.datas |= {blob_id(data): data for data in datas(4)}
    assert not await refused(loader, others), "they find the rest of the room"
