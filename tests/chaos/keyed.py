"""Submits with idempotency keys: what is asked, and what the answers and rows must be. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from harness.client import Document, submit_body

MAX_TIMES: Final = 5
SHARE_WITH_ANOTHER_BODY: Final = 0.04
SHARE_OF_BATCHES: Final = 0.1
SHARE_AT_ONCE: Final = 0.5
BATCH: Final = 12
POISONED_RECIPIENT: Final = "poison@example.com"
STORED, REJECTED, REUSED = 202, 400, 422
"""The statuses of an answer: stored, refused by Postgres, a key of another body."""


class Body(StrEnum):
    """The bodies with which a key is submitted. Postgres refuses the poisoned one."""

    FIRST = "first"
    OTHER = "other"
    POISONED = "poisoned"


class Ask(NamedTuple):
    """One submit of a key."""

    key: str
    body: Body = Body.FIRST

    def document(self) -> Document:
        """The submit without its key. Bodies differ in what they say, and in nothing else."""
        is_poisoned = self.body is Body.POISONED
        return submit_body(
            content={"subject": self.key, "body": self.body},
            metadata={"key": self.key, "body": self.body},
            **({"recipient": POISONED_RECIPIENT} if is_poisoned else {}),
        )


class Answer(NamedTuple):
    """The final answer to one submit. `id` and `state` are those of a 202.

    `is_replay` is None of an item of a batch: only the response as a whole says it.
    """

    ask: Ask
    status: int
    id: str = ""
    state: str = ""
    is_replay: bool | None = None


def requests(submits: int, random: Random) -> Sequence[Sequence[Ask]]:
    """Return requests of one or several submits, each key in 1 to 5 of them, in a random order.

    Half of the keys come at once, so that processes store the same key at the same time. In each
    batch the last two are a poisoned submit of a new key and its good twin; and one key of
    it comes twice.
    """
    runs, count = list[Sequence[Ask]](), 0
    while count < submits:
        of_key = [Ask(f"k{count}")] * random.randint(1, MAX_TIMES)
        if random.random() < SHARE_WITH_ANOTHER_BODY:
            of_key.append(Ask(f"k{count}", Body.OTHER))
        count += len(of_key)
        runs += [of_key] if random.random() < SHARE_AT_ONCE else [[ask] for ask in of_key]
    random.shuffle(runs)
    return list(_grouped([ask for run in runs for ask in run], random))


def _grouped(asks: Sequence[Ask], random: Random) -> Iterable[Sequence[Ask]]:
    left = list(asks)
    while left:
        if random.random() >= SHARE_OF_BATCHES:
            yield [left.pop()]
            continue
        taken = [left.pop() for _ in range(min(BATCH, len(left)))]
        new = f"poisoned-{len(left)}"
        yield [*taken, taken[0], Ask(new, Body.POISONED), Ask(new)]


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Counts of what must not be, and of what a run must have had to prove anything."""

    keys: int
    answers: int
    replays: int
    reused: int
    doubled: int
    differing: int
    without_row: int
    wrong: int
    keys_without_row: int
    examples: list[str] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        broken = self.doubled + self.differing + self.without_row + self.wrong
        return not broken + self.keys_without_row


def judge(answers: Sequence[Answer], stored: Mapping[str, Sequence[str]], keys: int) -> Verdict:
    """Compare the answers with the ids of the rows of each key; `keys` is how many are stored."""
    by_key = defaultdict[str, list[Answer]](list)
    for answer in answers:
        by_key[answer.ask.key].append(answer)
    rows = {id_ for ids in stored.values() for id_ in ids}
    doubled = [key for key, ids in stored.items() if len(ids) > 1]
    differing = [key for key, given in by_key.items() if len(_results(given)) > 1]
    without_row = [each for each in answers if each.status == STORED and each.id not in rows]
    wrong = [each for given in by_key.values() for each in _wrong(given)]
    return Verdict(
        keys=len(by_key),
        answers=len(answers),
        replays=sum(each.is_replay is True for each in answers),
        reused=sum(each.status == REUSED for each in answers),
        doubled=len(doubled),
        differing=len(differing),
        without_row=len(without_row),
        wrong=len(wrong),
        keys_without_row=abs(keys - len(stored)),
        examples=[str(each) for each in [*doubled, *differing, *without_row, *wrong][:10]],
    )


def _results(answers: Iterable[Answer]) -> set[tuple[str, str, Body]]:
    return {(each.id, each.state, each.ask.body) for each in answers if each.status == STORED}


def _wrong(answers: Sequence[Answer]) -> Sequence[Answer]:
    """The answers of one key that no order of its submits explains.

    The body that was stored is accepted always, once as new at most; each other body is refused.
    """
    owners = {each.ask.body for each in answers if each.status == STORED}
    first_time = [each for each in answers if each.status == STORED and each.is_replay is False]
    explained = {
        Body.FIRST: {STORED} if Body.FIRST in owners else {REUSED},
        Body.OTHER: {STORED} if Body.OTHER in owners else {REUSED},
        Body.POISONED: {REJECTED, REUSED},
    }
    wrong = [each for each in answers if each.status not in explained[each.ask.body]]
    return [*wrong, *first_time[1:], *(answers if not owners else ())]
