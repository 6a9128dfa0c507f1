"""The load generator: what it submits, when, and how it counts the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice, pairwise
from random import Random
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.cli.failures import CommandFailed
from notifier.cli.load.follow import End, Follower
from notifier.cli.load.pace import instants
from notifier.cli.load.plan import DIGITS, Plan, read_fates, read_mix, recipient
from notifier.cli.load.report import make_report, quantiles
from notifier.cli.load.submit import Submitted
from notifier.domain.errors import ConfigError
from notifier.sandbox import fates

T = TypeVar("T")

ADDRESSES = {"email": "email", "sms": "phone", "push": "token"}


class TestPlan:
    def test_without_a_mix_all_nine_queues_are_alike(self) -> None:
        assert len(read_mix(None, ADDRESSES)) == 9
        assert set(read_mix(None, ADDRESSES).values()) == {1.0}

    def test_a_mix_names_queues_and_shares(self) -> None:
        assert read_mix("email.high=1, sms.low=3", ADDRESSES) == {"email.high": 1, "sms.low": 3}
        assert read_mix("email.high", ADDRESSES) == {"email.high": 1}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("emial.high=1", 'did you mean "email.high"?'),
            ("email.high=x", "email.high=x, expected a number from 0 up"),
            ("email.high=-1", "expected a number from 0 up"),
            ("email.high=nan", "expected a number from 0 up"),
            ("email.high=0", "a share above 0"),
        ],
    )
    def test_a_mix_that_cannot_be_is_explained(self, text: str, says: str) -> None:
        with pytest.raises(ConfigError, match=f"--mix: .*{says}"):
            read_mix(text, ADDRESSES)

    def test_an_unknown_fate_is_explained(self) -> None:
        with pytest.raises(ConfigError, match=r'--fates: .*did you mean "flaky-2"'):
            read_fates("ok=1,flaky=2")

    def test_the_same_seed_submits_the_same(self) -> None:
        plan = Plan(read_mix(None, ADDRESSES), read_fates("ok=9,refuse=1"), ADDRESSES)
        assert list(plan.bodies(50, Random(7))) == list(plan.bodies(50, Random(7)))

    def test_shares_are_kept_in_the_long_run(self) -> None:
        mix = {"email.high": 1.0, "sms.low": 3.0}
        bodies = Plan(mix, {"ok": 1.0}, ADDRESSES).bodies(4000, Random(1))
        counted = Counter(f"{body['channel']}.{body['priority']}" for body in bodies)
        assert counted["sms.low"] / counted["email.high"] == pytest.approx(3, rel=0.1)

    @pytest.mark.parametrize("fate", DIGITS)
    @pytest.mark.parametrize("count", [0, 9, 10_000])
    def test_the_sandbox_knows_every_recipient_by_its_fate(self, fate: str, count: int) -> None:
        assert fates.fate_of_address(recipient("email", fate, count)) == fate
        assert fates.fate_of_phone(recipient("phone", fate, count)) == fate
        assert fates.fate_of_token(recipient("token", fate, count)) == fate


class TestPace:
    def test_a_rate_is_kept_in_even_steps_of_whole_batches(self) -> None:
        assert list(islice(instants(100.0, 10, None), 4)) == pytest.approx([0, 0.1, 0.2, 0.3])

    def test_without_a_rate_all_is_due_at_once(self) -> None:
        assert list(islice(instants(0.0, 1, Random(1)), 3)) == [0, 0, 0]

    def test_by_chance_the_gaps_differ_and_the_rate_holds(self) -> None:
        at = list(islice(instants(100.0, 1, Random(1)), 10_001))
        gaps = [after - before for before, after in pairwise(at)]
        mean = sum(gaps) / len(gaps)
        assert mean == pytest.approx(0.01, rel=0.05)
        deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
        assert deviation == pytest.approx(mean, rel=0.1)  # as of an exponential distribution


class Api:
    """A list endpoint in pages of two, newest first; with each look at its first page, one more
    notification is sent, the oldest first.
    """

    def __init__(self, ids: list[str], *, outages: int = 0) -> None:
        self.status_of = dict.fromkeys(ids, "queued")
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
        rows = [self._row(one) for one in newest_first[begin : begin + 2]]
        more = begin + 2 < len(newest_first)
        page = {"notifications": rows, "next_cursor": str(begin + 2) if more else None}
        return msgspec.convert(page, into)

    def _send_one(self) -> None:
        for one, status in self.status_of.items():
            if status == "queued":
                self.status_of[one] = "sent"
                return

    def _row(self, one: str) -> dict[str, str]:
        return {
            "id": one,
            "status": self.status_of[one],
            "channel": "email",
            "priority": "high",
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:01.5Z",
        }


class TestFollower:
    async def test_all_are_followed_until_they_are_final(self) -> None:
        api, told = Api(["a", "b", "c"]), list[int]()
        ends = await Follower(api, {"a", "b", "c"}, "2026-01-01T00:00:00Z", told.append).run(60)
        assert ends == dict.fromkeys("abc", End("sent", 1.5))
        assert told == [1, 2, 3]

    async def test_pages_of_others_are_read_over(self) -> None:
        api = Api(["mine", "x1", "x2", "x3"])
        ends = await Follower(api, {"mine"}, "2026-01-01T00:00:00Z", lambda _: None).run(60)
        assert set(ends) == {"mine"}

    async def test_reading_stops_where_the_last_unfinished_one_was_seen(self) -> None:
        api = Api([f"old{number}" for number in range(100)] + ["mine"])
        api.status_of["mine"] = "sent"
        await Follower(api, {"mine"}, "2026-01-01T00:00:00Z", lambda _: None).run(60)
        assert api.pages == 1

    async def test_when_the_time_is_up_what_is_known_is_told(self) -> None:
        api = Api(["a", "b"])
        ends = await Follower(api, {"a", "b"}, "2026-01-01T00:00:00Z", lambda _: None).run(0)
        assert (ends["a"].status, ends["b"].status) == ("sent", "queued")

    async def test_an_api_that_is_away_for_a_while_ends_nothing(self) -> None:
        api = Api(["a"], outages=1)
        ends = await Follower(api, {"a"}, "2026-01-01T00:00:00Z", lambda _: None).run(60)
        assert ends["a"].is_final


class TestReport:
    def test_quantiles_are_values_that_occurred(self) -> None:
        made = quantiles([float(value) for value in range(1, 101)])
        assert (made.p50, made.p90, made.p99, made.max) == (50, 90, 99, 100)

    @given(st.lists(st.floats(min_value=0, max_value=1000), min_size=1))
    def test_quantiles_never_fall(self, values: list[float]) -> None:
        made = quantiles(values)
        shown = [made.p50, made.p90, made.p99, made.max]
        assert shown == sorted(shown, key=lambda one: one or 0.0)

    def test_nothing_measured_gives_no_figure(self) -> None:
        assert quantiles([]).p50 is None

    def test_statuses_are_counted_by_queue_and_only_the_sent_are_timed(self) -> None:
        submitted = Submitted(
            queue_of={"a": "email.high", "b": "email.high", "c": "sms.low"},
            answers=Counter({"202": 3, "503": 1}),
            took_s=2.0,
        )
        ends = {"a": End("sent", 1.0), "b": End("failed", 9.0)}

        report = make_report(submitted, ends)

        email, sms = report.queues
        assert email.statuses == {"failed": 1, "sent": 1}
        assert email.end_to_end_s.max == 1.0
        assert sms.statuses == {"unknown": 1}
        assert report.rate_per_s == 1.5
        assert not report.is_complete

    def test_it_is_complete_when_all_were_accepted_and_are_final(self) -> None:
        submitted = Submitted(queue_of={"a": "email.high"}, answers=Counter({"202": 1}), took_s=1)
        assert make_report(submitted, {"a": End("failed", 1.0)}).is_complete
        assert make_report(submitted, None).is_complete
        assert not make_report(submitted, {"a": End("sending", 1.0)}).is_complete
