"""The load generator: its notifications, due times and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice, pairwise
from random import Random
from typing import TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.cli.failures import CommandFailed
from notifier.cli.load.follow import End, Follower
from notifier.cli.load.pace import due_times
from notifier.cli.load.plan import DIGITS, Plan, read_fates, read_mix, recipient
from notifier.cli.load.report import make_report, quantiles
from notifier.cli.load.submit import Submitted
from notifier.domain import fates
from notifier.domain.errors import ConfigError

T = TypeVar("T")

ADDRESSES = {"email": "email", "sms": "phone", "push": "token"}


class TestPlan:
    def test_without_a_mix_all_nine_queues_have_equal_shares(self) -> None:
        assert len(read_mix(None, ADDRESSES)) == 9
        assert set(read_mix(None, ADDRESSES).values()) == {1.0}

    def test_a_mix_names_queues_and_shares(self) -> None:
        assert read_mix("email.high=1, sms.low=3", ADDRESSES) == {"email.high": 1, "sms.low": 3}
        assert read_mix("email.high", ADDRESSES) == {"email.high": 1}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("emial.high=1", 'did you mean "email.high"?'),
            ("email.high=x", "email.high=x, expected a number from 0 up"),
            ("email.high=-1", "expected a number from 0 up"),
            ("email.high=nan", "expected a number from 0 up"),
            ("email.high=0", "a share above 0"),
        ],
    )
    def test_an_invalid_mix_is_explained(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=f"--mix: .*{message}"):
            read_mix(text, ADDRESSES)

    def test_an_unknown_fate_is_explained(self) -> None:
        with pytest.raises(ConfigError, match=r'--fates: .*did you mean "flaky-2"'):
            read_fates("ok=1,flaky=2")

    def test_equal_seeds_give_equal_bodies(self) -> None:
        plan = Plan(read_mix(None, ADDRESSES), read_fates("ok=9,refuse=1"), ADDRESSES)
        assert list(plan.bodies(50, Random(7))) == list(plan.bodies(50, Random(7)))

    def test_the_shares_of_many_bodies_follow_the_mix(self) -> None:
        mix = {"email.high": 1.0, "sms.low": 3.0}
        bodies = Plan(mix, {"ok": 1.0}, ADDRESSES).bodies(4000, Random(1))
        counted = Counter(f"{body['channel']}.{body['priority']}" for body in bodies)
        assert counted["sms.low"] / counted["email.high"] == pytest.approx(3, rel=0.1)

    @pytest.mark.parametrize("fate", DIGITS)
    @pytest.mark.parametrize("count", [0, 9, 10_000])
    def test_the_sandbox_reads_the_fate_of_every_recipient(self, fate: str, count: int) -> None:
        assert fates.fate_of_address(recipient("email", fate, count)) == fate
        assert fates.fate_of_phone(recipient("phone", fate, count)) == fate
        assert fates.fate_of_token(recipient("token", fate, count)) == fate


class TestPace:
    def test_a_rate_gives_even_steps_of_whole_batches(self) -> None:
        assert list(islice(due_times(100.0, 10, None), 4)) == pytest.approx([0, 0.1, 0.2, 0.3])

    def test_without_a_rate_everything_is_due_at_once(self) -> None:
        assert list(islice(due_times(0.0, 1, Random(1)), 3)) == [0, 0, 0]

    def test_random_gaps_keep_the_rate(self) -> None:
        times = list(islice(due_times(100.0, 1, Random(1)), 10_001))
        gaps = [after - before for before, after in pairwise(times)]
        mean = sum(gaps) / len(gaps)
        assert mean == pytest.approx(0.01, rel=0.05)
        deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
        assert deviation == pytest.approx(mean, rel=0.1)  # as of an exponential distribution


def id_of(name: str) -> str:
    return str(UUID(bytes=name.encode().rjust(16, b"\0")))


class Api:
    """A list endpoint in pages of two, newest first.

    Each read of the first page marks one more notification as sent, the oldest first.
    """

    def __init__(self, names: list[str], *, outages: int = 0) -> None:
        self.status_of = dict.fromkeys(map(id_of, names), "queued")
        self.pages, self.outages = 0, outages

    async def get(self, path: str, into: type[T], params: Mapping[str, str] | None = None) -> T:
        assert path == "/v1/notifications"
        assert params is not None
        self.pages += 1
        if self.outages:
            self.outages -= 1
            raise CommandFailed("503")
        if "cursor" not in params:
            self._send_one()
        newest_first = list(reversed(self.status_of))
        begin = int(params.get("cursor", "0"))
        rows = [self._row(id_) for id_ in newest_first[begin : begin + 2]]
        more = begin + 2 < len(newest_first)
        page = {"items": rows, "next_cursor": str(begin + 2) if more else None}
        return msgspec.json.decode(msgspec.json.encode(page), type=into)

    def _send_one(self) -> None:
        for id_, status in self.status_of.items():
            if status == "queued":
                self.status_of[id_] = "sent"
                return

    def _row(self, id_: str) -> dict[str, object]:
        return {
            "id": id_,
            "status": self.status_of[id_],
            "tenant": "default",
            "mode": "live",
            "channel": "email",
            "priority": "high",
            "queue": "email.high",
            "recipient": "ada@example.com",
            "replaced_by": None,
            "tag": None,
            "topic": None,
            "provider": None,
            "reference": None,
            "result": None,
            "tries": 1,
            "max_tries": None,
            "last_error": None,
            "metadata": {},
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:01.5Z",
            "due_at": None,
            "expires_at": "2026-01-02T00:00:00Z",
        }


class RecordedProgress:
    """Implements notifier.cli.load.progress.Progress: the total after each call."""

    def __init__(self) -> None:
        self.totals: list[int] = []

    def advance(self, count: int) -> None:
        self.totals.append(count + (self.totals[-1] if self.totals else 0))


def follower(api: Api, *names: str, progress: RecordedProgress | None = None) -> Follower:
    ids = set(map(id_of, names))
    return Follower(api, ids, "2026-01-01T00:00:00Z", progress or RecordedProgress())


class TestFollower:
    async def test_all_are_followed_until_they_are_final(self) -> None:
        api, progress = Api(["a", "b", "c"]), RecordedProgress()
        ends = await follower(api, "a", "b", "c", progress=progress).run(60)
        assert ends == dict.fromkeys(map(id_of, "abc"), End("sent", 1.5))
        assert progress.totals == [1, 2, 3]

    async def test_pages_of_other_notifications_are_skipped(self) -> None:
        api = Api(["mine", "x1", "x2", "x3"])
        ends = await follower(api, "mine").run(60)
        assert set(ends) == {id_of("mine")}

    async def test_reading_stops_at_the_page_of_the_last_unfinished_notification(self) -> None:
        api = Api([f"old{number}" for number in range(100)] + ["mine"])
        api.status_of[id_of("mine")] = "sent"
        await follower(api, "mine").run(60)
        assert api.pages == 1

    async def test_when_the_time_is_up_the_last_known_states_are_returned(self) -> None:
        api = Api(["a", "b"])
        ends = await follower(api, "a", "b").run(0)
        assert [ends[id_of(name)].status for name in "ab"] == ["sent", "queued"]

    async def test_an_outage_of_the_api_does_not_end_the_wait(self) -> None:
        api = Api(["a"], outages=1)
        ends = await follower(api, "a").run(60)
        assert ends[id_of("a")].is_final


class TestReport:
    def test_a_quantile_is_one_of_the_values(self) -> None:
        result = quantiles([float(value) for value in range(1, 101)])
        assert (result.p50, result.p90, result.p99, result.max) == (50, 90, 99, 100)

    @given(st.lists(st.floats(min_value=0, max_value=1000), min_size=1))
    def test_quantiles_never_decrease(self, values: list[float]) -> None:
        result = quantiles(values)
        shown = [result.p50, result.p90, result.p99, result.max]
        assert shown == sorted(shown, key=lambda value: value or 0.0)

    def test_without_values_every_quantile_is_none(self) -> None:
        assert quantiles([]).p50 is None

    def test_statuses_are_counted_by_queue_and_only_sent_ones_are_timed(self) -> None:
        submitted = Submitted(
            queue_of={"a": "email.high", "b": "email.high", "c": "sms.low"},
            responses=Counter({"202": 3, "503": 1}),
            duration_s=2.0,
        )
        ends = {"a": End("sent", 1.0), "b": End("failed", 9.0)}

        report = make_report(submitted, ends)

        email, sms = report.queues
        assert email.statuses == {"failed": 1, "sent": 1}
        assert email.end_to_end_s.max == 1.0
        assert sms.statuses == {"unknown": 1}
        assert report.rate_per_s == 1.5
        assert not report.is_complete

    def test_a_report_is_complete_if_all_were_accepted_and_are_final(self) -> None:
        submitted = Submitted(
            queue_of={"a": "email.high"}, responses=Counter({"202": 1}), duration_s=1
        )
        assert make_report(submitted, {"a": End("failed", 1.0)}).is_complete
        assert make_report(submitted, None).is_complete
        assert not make_report(submitted, {"a": End("sending", 1.0)}).is_complete
