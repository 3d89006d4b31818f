"""What limiters do while their server is killed, hangs, or is back: raise, let through, or ask a local one."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from support.buckets import call
from support.mortals import Limiters, back
from support.semaphores import keys_of, until, within
from support.servers import Cluster, Server

from steindamm import (
    AlreadySettledError,
    AsyncSemaphore,
    AsyncTokenBucket,
    LimiterUnavailableError,
    MaxSleepExceededError,
    SyncSemaphore,
    SyncTokenBucket,
    all_of,
    outages,
)
from steindamm.backends import terms

HOUR = 3_600.0
NUMBERS = iter(range(1_000_000))


class TestRaise:
    async def test_is_what_a_limiter_does_that_was_told_nothing(self, mortals: Limiters, server: Server) -> None:
        limiters = [mortals.bucket(), mortals.semaphore()]
        server.kill()
        for limiter in (*limiters, all_of(*limiters)):
            with pytest.raises(LimiterUnavailableError):
                await call(limiter.acquire)
            assert limiter.uses_without_backend == 0


class TestAllow:
    async def test_lets_everything_through_and_says_so(self, mortals: Limiters, server: Server) -> None:
        bucket, semaphore = mortals.bucket("allow", capacity=1), mortals.semaphore("allow", capacity=1)
        assert not (await call(bucket.acquire)).without_backend
        assert not await within(semaphore, lambda permit: permit.without_backend)
        server.kill()
        for limiter in (bucket, semaphore, all_of(bucket, semaphore)):
            for ask in (limiter.acquire, limiter.try_acquire):
                assert (await call(ask)).without_backend
            reservation = await call(limiter.reserve)
            assert (reservation.delay, reservation.permit.without_backend) == (0, True)
            await call(reservation.cancel)
            answer = await call(limiter.ask)
            assert (answer.wait, answer.permit.without_backend) == (0, True)
            await call(limiter.give_back, answer)
            assert limiter.uses_without_backend >= 4

    async def test_gives_permits_that_can_be_settled_and_released(self, mortals: Limiters, server: Server) -> None:
        bucket, semaphore = mortals.bucket("allow", capacity=9), mortals.semaphore("allow")
        server.kill()
        permit = await call(bucket(5).acquire)
        assert (permit.name, permit.cost, permit.waited) == (bucket.name, 5, 0)
        await call(permit.settle, 7)
        with pytest.raises(AlreadySettledError):
            await call(permit.settle, 7)
        slot = await call(semaphore.acquire)
        assert (slot.name, slot.lost, slot.waited) == (semaphore.name, False, 0)
        assert slot.fence < time.time()
        await call(semaphore.release, slot)
        await call(semaphore.release, slot)
        both = all_of((bucket, 5), semaphore)
        of_both = await call(both.acquire)
        await call(next(each for each in of_both.permits if each.cost == 5).settle, 2)
        await call(both.release, of_both)

    async def test_runs_blocks(self, mortals: Limiters, server: Server) -> None:
        semaphore = mortals.semaphore("allow", capacity=1)
        server.kill()
        for _ in range(3):
            assert await within(semaphore, lambda permit: permit.without_backend)

    async def test_lets_a_cost_unsettled_that_redis_had_given(self, mortals: Limiters, server: Server) -> None:
        permit = await call(mortals.bucket("allow", capacity=9)(5).acquire)
        server.kill()
        await call(permit.settle, 7)
        with pytest.raises(AlreadySettledError):
            await call(permit.settle, 7)

    async def test_ends_when_the_server_is_back(
        self, mortals: Limiters, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        for limiter in (mortals.bucket("allow", capacity=100), mortals.semaphore("allow")):
            server.kill()
            caplog.clear()
            for _ in range(3):
                assert (await call(limiter.acquire)).without_backend
            with pytest.raises(LimiterUnavailableError):
                await call(limiter.state)
            await back(server, limiter)
            assert (await call(limiter.state)).without_backend == limiter.uses_without_backend >= 3
            assert [record.message for record in caplog.records if "backend is" in record.message] == [
                f"limiter {limiter.name!r}: its backend is unavailable (ConnectionError); all is let through for now",
                f"limiter {limiter.name!r}: its backend is back; it did without {limiter.uses_without_backend} times",
            ]

    async def test_does_not_wait_for_a_server_that_hangs(
        self, mortals: Limiters, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket = mortals.bucket("allow", capacity=1_000)
        await call(bucket.acquire)
        monkeypatch.setattr(outages, "PAUSE", 60.0)
        with server.standing_still():
            began = time.monotonic()
            permits = [await call(bucket.acquire) for _ in range(50)]
            assert time.monotonic() - began < 15
        assert all(permit.without_backend for permit in permits)

    async def test_goes_on_asking_a_server_that_hung(self, mortals: Limiters, server: Server) -> None:
        bucket = mortals.bucket("allow", capacity=1_000)
        with server.standing_still():
            assert (await call(bucket.acquire)).without_backend
        for _ in range(100):
            if not (await call(bucket.acquire)).without_backend:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it never asks again")

    async def test_lets_those_start_who_stood_in_line_when_the_server_died(
        self, mortals: Limiters, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(terms, "PRESENCE", 0.6)
        semaphore, tokens = mortals.semaphore("allow", capacity=1, max_sleep=0), mortals.bucket("allow")
        holding = await call(semaphore.acquire)
        waiting = [asyncio.create_task(call(limiter.acquire)) for limiter in (semaphore, all_of(semaphore, tokens))]
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 2)
        server.kill()
        for permit in await asyncio.wait_for(asyncio.gather(*waiting), 20):
            assert permit.without_backend
        await call(semaphore.release, holding)

    async def test_is_told_where_only_those_in_line_meet_it(
        self, mortals: Limiters, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also the second time, when outages are known, and not as if a slot that nobody gave were an answer."""
        monkeypatch.setattr(terms, "PRESENCE", 0.6)
        semaphore = mortals.semaphore("allow", capacity=1, max_sleep=0)
        for _ in range(2):
            holding = await call(semaphore.acquire)
            waiting = asyncio.create_task(call(semaphore.acquire))
            await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 1)
            caplog.clear()
            server.kill()
            assert (await asyncio.wait_for(waiting, 20)).without_backend
            assert [record.message for record in caplog.records if "backend is" in record.message] == [
                f"limiter {semaphore.name!r}: its backend is unavailable (no answer); all is let through for now"
            ]
            await back(server, semaphore)
            await call(semaphore.release, holding)

    async def test_is_told_once_however_many_limiters_there_are(
        self, mortals: Limiters, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        limiters = [mortals.bucket("allow") for _ in range(20)]
        server.kill()
        for limiter in limiters:
            await call(limiter.acquire)
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


class TestALocalLimiter:
    async def test_is_asked_meanwhile(self, mortals: Limiters, server: Server) -> None:
        local = mortals.local_bucket(capacity=2)
        bucket = mortals.bucket(local, capacity=100)
        await call(bucket(50).acquire)
        server.kill()
        permit = await call(bucket.acquire)
        assert (permit.without_backend, permit.name) == (True, bucket.name)
        assert await call(bucket.try_acquire)
        assert await call(bucket.try_acquire) is None
        with pytest.raises(MaxSleepExceededError) as error:
            await call(bucket.acquire)
        assert error.value.name == local.name

    async def test_has_its_tokens_back_where_they_are_not_used(self, mortals: Limiters, server: Server) -> None:
        local = mortals.local_bucket(capacity=10)
        bucket = mortals.bucket(local, capacity=10)
        server.kill()
        await call((await call(bucket(10).reserve)).cancel)
        await call(bucket.give_back, await call(bucket(10).ask))
        permit = await call(bucket(10).acquire)
        await call(permit.settle, 4)
        assert (await call(local.state)).tokens == 6

    async def test_is_asked_for_all_it_ever_has_where_a_cost_is_above_that(
        self, mortals: Limiters, server: Server
    ) -> None:
        local = mortals.local_bucket(capacity=2)
        bucket = mortals.bucket(local, capacity=10)
        server.kill()
        assert (await call(bucket(7).acquire)).cost == 2
        assert (await call(local.state)).tokens == 0
        assert (await call(bucket.ask, cost=9)).permit is None

    async def test_books_turns_for_jobs(self, mortals: Limiters, server: Server) -> None:
        bucket = mortals.bucket(mortals.local_bucket(capacity=1, refill_frequency=0.1), capacity=10)
        server.kill()
        await call(bucket.acquire)
        booked = await call(bucket.ask, horizon=HOUR)
        assert booked.permit is None
        await asyncio.sleep(booked.wait)
        assert (await call(bucket.ask, turn=booked.turn, accept=1.0)).permit

    async def test_gives_slots_and_takes_them_back(self, mortals: Limiters, server: Server) -> None:
        local = mortals.local_semaphore(capacity=1)
        semaphore = mortals.semaphore(local, capacity=9)
        server.kill()
        permit = await call(semaphore.acquire)
        assert permit.without_backend
        assert await call(semaphore.try_acquire) is None
        await call(semaphore.release, permit)
        assert await within(semaphore, lambda permit: permit.without_backend)
        reservation = await call(semaphore.reserve)
        assert await call(semaphore.try_acquire) is None
        await call(reservation.cancel)
        await call(semaphore.give_back, await call(semaphore.ask))
        assert (await call(local.state)).held == 0

    async def test_wakes_jobs_that_wait_for_a_slot(self, mortals: Limiters, server: Server) -> None:
        local = mortals.local_semaphore(capacity=1)
        semaphore, woken = mortals.semaphore(local), []
        server.kill()
        permit = await call(semaphore.acquire)
        answer = await call(semaphore.ask, wake=lambda: woken.append(1), job="waiting")
        assert semaphore.permit_of(answer) is None
        await call(semaphore.release, permit)
        assert woken == [1]
        await call(semaphore.release, semaphore.permit_of(answer))
        assert (await call(local.state)).held == 0

    async def test_holds_what_it_gave_when_the_server_is_back(self, mortals: Limiters, server: Server) -> None:
        local = mortals.local_semaphore(capacity=1)
        semaphore = mortals.semaphore(local, capacity=3)
        server.kill()
        permit = await call(semaphore.acquire)
        await back(server, semaphore)
        assert (await call(local.state)).held == 1
        await call(semaphore.release, permit)
        assert (await call(local.state)).held == (await call(semaphore.state)).held == 0

    async def test_gives_its_slots_to_those_who_stood_in_line_when_the_server_died(
        self, mortals: Limiters, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(terms, "PRESENCE", 0.6)
        local = mortals.local_semaphore(capacity=1)
        semaphore = mortals.semaphore(local, capacity=1, max_sleep=0)
        holding = await call(semaphore.acquire)
        waiting = [asyncio.create_task(call(semaphore.acquire)) for _ in range(2)]
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 2)
        server.kill()
        for count in (2, 1):
            done, waiting = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) + len(waiting) == count
            (permit,) = [task.result() for task in done]
            assert permit.without_backend
            assert (await call(local.state)).held == 1
            await call(semaphore.release, permit)
        assert (await call(local.state)).held == 0
        await call(semaphore.release, holding)

    async def test_refuses_those_who_stood_in_line_in_the_end(
        self, mortals: Limiters, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(terms, "PRESENCE", 0.3)
        local = mortals.local_semaphore(capacity=1)
        semaphore = mortals.semaphore(local, capacity=1, max_sleep=3)
        holding = await call(semaphore.acquire)
        await call(local.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 1)
        server.kill()
        with pytest.raises(MaxSleepExceededError):
            await asyncio.wait_for(waiting, 30)
        seen = await call(local.state)
        assert (seen.held, seen.waiters) == (1, 0)
        await call(semaphore.release, holding)

    @pytest.mark.usefixtures("looks_often")
    async def test_has_no_place_for_a_task_that_was_cancelled(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(terms, "PRESENCE", 0.3)
        mortals = Limiters(asynchronous=True, url=f"{server.url}?socket_timeout=0.5")
        local = mortals.local_semaphore(capacity=1)
        semaphore = mortals.semaphore(local, capacity=1, max_sleep=0)
        holding = await semaphore.acquire()
        permit = await local.acquire()
        waiting = asyncio.create_task(semaphore.acquire())
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 1)
        server.kill()
        for _ in range(1_000):
            if (await local.state()).waiters == 1:
                break
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await local.state()).waiters == 0
        await local.release(permit)
        assert (await local.state()).held == 0
        await semaphore.release(holding)


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_cluster_that_is_gone_is_done_without(tmp_path: Path, *, asynchronous: bool) -> None:
    with Cluster(tmp_path) as cluster:
        mortals = Limiters(asynchronous, f"{cluster.url}?socket_timeout=1")
        limiters = [mortals.bucket("allow"), mortals.semaphore("allow")]
        for limiter in limiters[1], all_of(*limiters):
            await call(limiter.release, await call(limiter.try_acquire))
        for node in cluster.nodes:
            node.kill()
        for limiter in (*limiters, all_of(*limiters)):
            assert (await call(limiter.acquire)).without_backend
        await until(lambda: not limiters[1].backend.link.watch._watched, patience=30)


class TestTheArgument:
    @pytest.mark.parametrize("kind", [SyncTokenBucket, AsyncTokenBucket, SyncSemaphore, AsyncSemaphore])
    @pytest.mark.parametrize("connection", [None, "redis://localhost:1/0"])
    def test_is_checked_with_and_without_a_connection(self, kind: Any, connection: str | None) -> None:
        for wrong in ("Raise", "", "redis://secret@host"):
            with pytest.raises(ValueError, match='on_unavailable must be "raise", "allow" or a ') as error:
                kind("n", connection=connection, on_unavailable=wrong)
            assert "secret" not in str(error.value)
        others = {SyncTokenBucket, AsyncTokenBucket, SyncSemaphore, AsyncSemaphore} - {kind}
        on_redis = kind("other", connection="redis://localhost:1/0")
        for wrong in (None, 5, on_redis, *(other("other") for other in others)):
            with pytest.raises(TypeError, match='on_unavailable must be "raise", "allow" or a '):
                kind("n", connection=connection, on_unavailable=wrong)
        for right in ("raise", "allow", kind("other")):
            limiter = kind("n", connection=connection, on_unavailable=right)
            assert limiter.on_unavailable is right
            assert limiter.uses_without_backend == all_of(limiter).uses_without_backend == 0

    def test_reaches_a_bucket_that_is_made_from_a_rate(self) -> None:
        bucket = SyncTokenBucket.from_rate("5/s", "n", connection="redis://localhost:1/0", on_unavailable="allow")
        assert bucket.on_unavailable == bucket(1).on_unavailable == "allow"
