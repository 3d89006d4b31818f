"""What several limits at once, and jobs, do while their server is away: raise, go through, or ask a local one."""

from __future__ import annotations

from typing import Any

import pytest
from support.buckets import call
from support.mortals import Limiters, back
from support.servers import Server

from steindamm import (
    LimiterUnavailableError,
    all_of,
)
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Defer, Start, Unavailable, adecide, decide, release
from steindamm.integrations.job_limits import ASYNC, SYNC, Claim, JobLimit

HOUR = 3_600.0
NUMBERS = iter(range(1_000_000))


class TestSeveralLimits:
    async def test_raise_where_one_of_them_does(self, mortals: Limiters, server: Server) -> None:
        both = all_of(mortals.bucket("allow"), mortals.semaphore("raise"), mortals.bucket(mortals.local_bucket()))
        server.kill()
        with pytest.raises(LimiterUnavailableError):
            await call(both.acquire)

    async def test_ask_the_local_ones_all_at_once_and_let_the_others_through(
        self, mortals: Limiters, server: Server
    ) -> None:
        tokens, slots = mortals.local_bucket(capacity=10), mortals.local_semaphore(capacity=1)
        open_, bucket, semaphore = mortals.bucket("allow"), mortals.bucket(tokens), mortals.semaphore(slots)
        several = all_of((bucket, 3), open_, semaphore)
        server.kill()
        permit = await call(several.acquire)
        assert [each.name for each in permit.permits if each.cost == 3] == [bucket.name]
        assert len(permit.permits) == 3
        assert all(each.without_backend for each in permit.permits)
        assert await call(several.try_acquire) is None
        assert (await call(several.ask)).permit is None
        await call(next(each for each in permit.permits if each.cost == 3).settle, 1)
        assert ((await call(tokens.state)).tokens, (await call(slots.state)).held) == (9, 1)
        await call(several.release, permit)
        await call(several.give_back, await call(several.ask))
        await call((await call(several.reserve)).cancel)
        assert ((await call(tokens.state)).tokens, (await call(slots.state)).held) == (9, 0)
        for limiter in (open_, bucket, semaphore):
            assert limiter.uses_without_backend >= 3

    async def test_ask_a_local_one_that_stands_in_for_two_once_for_both(
        self, mortals: Limiters, server: Server
    ) -> None:
        local = mortals.local_bucket(capacity=10)
        several = all_of((mortals.bucket(local), 3), (mortals.bucket(local), 4))
        server.kill()
        await call(several.acquire)
        assert (await call(local.state)).tokens == 3

    @pytest.mark.parametrize("actual", [1, 9])
    async def test_keep_locally_what_was_settled_when_a_reservation_is_cancelled(
        self, mortals: Limiters, server: Server, actual: int
    ) -> None:
        used, unused = mortals.local_bucket(capacity=10), mortals.local_bucket(capacity=10)
        several = all_of((mortals.bucket(used), 4), (mortals.bucket(unused), 3), mortals.bucket("allow"))
        server.kill()
        reservation = await call(several.reserve)
        await call(next(each for each in reservation.permit.permits if each.cost == 4).settle, actual)
        await call(reservation.cancel)
        assert [(await call(local.state)).tokens for local in (used, unused)] == [10 - actual, 10]

    async def test_are_asked_again_when_the_server_is_back(self, mortals: Limiters, server: Server) -> None:
        several = all_of(mortals.bucket("allow", capacity=100), mortals.semaphore("allow"))
        server.kill()
        assert (await call(several.acquire)).without_backend
        await back(server, several)


class TestAJob:
    @staticmethod
    async def decided(limiter: Any) -> Any:
        job = JobLimit(limiter, kinds=ASYNC if "Async" in type(limiter).__name__ else SYNC)
        if job.kinds is ASYNC:
            return await adecide(job, Claim(limiter), Booking(), accept=0.0)
        return await call(decide, job, Claim(limiter), Booking(), accept=0.0)

    async def test_waits_for_the_server_where_its_limiter_raises(self, mortals: Limiters, server: Server) -> None:
        limiters = [mortals.bucket(), mortals.semaphore()]
        server.kill()
        for limiter in (*limiters, all_of(*limiters)):
            assert isinstance(await self.decided(limiter), Unavailable)

    async def test_starts_where_its_limiter_lets_it(self, mortals: Limiters, server: Server) -> None:
        limiters = [mortals.bucket("allow"), mortals.semaphore("allow")]
        server.kill()
        for limiter in (*limiters, all_of(*limiters)):
            start = await self.decided(limiter)
            assert isinstance(start, Start)
            if not mortals.asynchronous:
                await call(release, Claim(limiter), start)

    async def test_is_held_to_a_local_limiter(self, mortals: Limiters, server: Server) -> None:
        limiters = [
            mortals.bucket(mortals.local_bucket(capacity=1, refill_frequency=10)),
            mortals.semaphore(mortals.local_semaphore(capacity=1)),
        ]
        server.kill()
        for limiter in limiters:
            assert isinstance(await self.decided(limiter), Start)
            assert type(await self.decided(limiter)) is Defer
