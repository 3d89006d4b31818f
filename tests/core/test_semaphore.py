"""The face of the semaphore, in every kind: sync and async, in memory, on Valkey, on the cluster."""

from __future__ import annotations

import asyncio
import pickle
import time
from typing import Any

import pytest
import redis
import redis.asyncio
from support.buckets import call
from support.semaphores import Kind, fresh_name, held, until, within
from support.servers import Server

import steindamm
from steindamm import (
    AsyncLocalSemaphore,
    AsyncRedisSemaphore,
    AsyncSemaphore,
    MaxSleepExceededError,
    SyncLocalSemaphore,
    SyncRedisSemaphore,
    SyncSemaphore,
)

URL = "redis://localhost:1/0"


class TestTheClasses:
    @pytest.mark.parametrize(
        ("made", "kind", "base"),
        [
            (SyncSemaphore(name="n"), SyncLocalSemaphore, SyncSemaphore),
            (SyncSemaphore(name="n", connection=URL), SyncRedisSemaphore, SyncSemaphore),
            (SyncSemaphore.create(name="n"), SyncLocalSemaphore, SyncSemaphore),
            (SyncSemaphore.create(name="n", connection=URL), SyncRedisSemaphore, SyncSemaphore),
            (SyncRedisSemaphore.create(name="n", connection=URL), SyncRedisSemaphore, SyncSemaphore),
            (AsyncSemaphore(name="n"), AsyncLocalSemaphore, AsyncSemaphore),
            (AsyncSemaphore(name="n", connection=URL), AsyncRedisSemaphore, AsyncSemaphore),
            (AsyncSemaphore.create(name="n"), AsyncLocalSemaphore, AsyncSemaphore),
            (AsyncSemaphore.create(name="n", connection=URL), AsyncRedisSemaphore, AsyncSemaphore),
            (AsyncLocalSemaphore("n"), AsyncLocalSemaphore, AsyncSemaphore),
        ],
    )
    def test_the_connection_chooses_the_class(self, made: Any, kind: type, base: type) -> None:
        assert type(made) is kind
        assert isinstance(made, base)

    @pytest.mark.parametrize("kind", [SyncLocalSemaphore, AsyncLocalSemaphore])
    def test_a_local_one_takes_no_connection(self, kind: type) -> None:
        with pytest.raises(TypeError, match="connection must be None"):
            kind(name="n", connection=URL)

    @pytest.mark.parametrize("kind", [SyncRedisSemaphore, AsyncRedisSemaphore])
    def test_one_in_redis_needs_one(self, kind: type) -> None:
        with pytest.raises(TypeError, match="connection must be"):
            kind(name="n")

    def test_a_sync_one_refuses_an_async_client_and_the_other_way_round(self) -> None:
        with pytest.raises(TypeError, match=r"connection must be a sync .* take an Async"):
            SyncSemaphore(name="n", connection=redis.asyncio.Redis())
        with pytest.raises(TypeError, match=r"connection must be an async .* take a Sync"):
            AsyncSemaphore(name="n", connection=redis.Redis())

    @pytest.mark.parametrize("kind", [SyncSemaphore, AsyncSemaphore])
    @pytest.mark.parametrize("connection", ["http://localhost", "localhost", 5, object()])
    def test_other_connections_are_refused(self, kind: type, connection: object) -> None:
        with pytest.raises((ValueError, TypeError), match="connection must be"):
            kind(name="n", connection=connection)

    @pytest.mark.parametrize("kind", [SyncSemaphore, AsyncSemaphore])
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("capacity", 0),
            ("capacity", -1),
            ("capacity", 1.5),
            ("capacity", float("nan")),
            ("capacity", float("inf")),
            ("capacity", 2**40),
            ("max_sleep", -0.1),
            ("max_sleep", float("nan")),
            ("max_sleep", float("inf")),
            ("expiry", 0),
            ("expiry", -1),
            ("expiry", 1e-6),
            ("expiry", float("inf")),
            ("name", ""),
            ("name", "x" * 201),
            ("name", "a{b"),
            ("name", "a}b"),
            ("name", "a\nb"),
        ],
    )
    def test_wrong_settings_are_named(self, kind: type, argument: str, value: object) -> None:
        with pytest.raises(ValueError, match=f"{argument} must"):
            kind(**{"name": "n", argument: value})

    @pytest.mark.parametrize("kind", [SyncSemaphore, AsyncSemaphore])
    @pytest.mark.parametrize(
        ("argument", "value"),
        [("capacity", "5"), ("capacity", True), ("max_sleep", None), ("expiry", "60"), ("name", 5)],
    )
    def test_settings_of_the_wrong_kind_are_named(self, kind: type, argument: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"{argument} must"):
            kind(**{"name": "n", argument: value})

    def test_what_it_is_called_is_shown_and_no_password(self) -> None:
        made = SyncSemaphore(name="writers", connection="redis://:secret@localhost:1/0")
        assert repr(made) == "SyncRedisSemaphore(name='writers')"

    def test_the_package_offers_them_all(self) -> None:
        assert {name for name in dir(steindamm) if name.endswith("Semaphore")} == {
            f"{way}{kind}Semaphore" for way in ("Sync", "Async") for kind in ("", "Local", "Redis")
        }


class TestAcquiring:
    async def test_a_block_holds_a_slot(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=2)
        async_or_sync = []
        if semaphores.asynchronous:
            async with semaphore:
                async_or_sync.append(await held(semaphore))
        else:
            with semaphore:
                async_or_sync.append(await held(semaphore))
        assert async_or_sync == [1]
        assert await held(semaphore) == 0

    async def test_an_error_in_the_block_frees_the_slot(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        with pytest.raises(ZeroDivisionError):
            await within(semaphore, lambda _: 1 / 0)
        assert await held(semaphore) == 0

    async def test_the_permit_tells_of_its_lease(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        first = await within(semaphore, lambda permit: (permit.name, permit.cost, permit.lost, permit.fence))
        second = await within(semaphore, lambda permit: (permit.name, permit.cost, permit.lost, permit.fence))
        assert first[:3] == second[:3] == (semaphore.name, 1.0, False)
        assert second[3] > first[3] > 0

    async def test_acquire_and_release(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        permit = await call(semaphore.acquire)
        assert await held(semaphore) == 1
        assert 0 <= permit.waited < 5
        await call(semaphore.release, permit)
        assert await held(semaphore) == 0
        assert not permit.lost

    async def test_releasing_twice_frees_nobody_elses_slot(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=2)
        permit, other = await call(semaphore.acquire), await call(semaphore.acquire)
        await call(semaphore.release, permit)
        await call(semaphore.release, permit)
        assert await held(semaphore) == 1
        await call(semaphore.release, other)

    async def test_another_limiters_permit_is_refused(self, semaphores: Kind) -> None:
        semaphore, other = semaphores(capacity=1), semaphores(capacity=1)
        permit = await call(other.acquire)
        with pytest.raises(ValueError, match="permit must be of the semaphore"):
            await call(semaphore.release, permit)
        assert await held(other) == 1
        await call(other.release, permit)

    @pytest.mark.parametrize("permit", [None, 5, "permit"])
    async def test_what_is_no_permit_is_refused(self, semaphores: Kind, permit: object) -> None:
        with pytest.raises(TypeError, match="permit must be what acquire returned"):
            await call(semaphores().release, permit)

    async def test_two_objects_of_one_name_share_the_limit(self, semaphores: Kind) -> None:
        name = fresh_name()
        one, other = semaphores(name, capacity=1), semaphores(name, capacity=1)
        permit = await call(one.acquire)
        assert await call(other.try_acquire) is None
        await call(other.release, permit)
        assert await held(one) == 0

    async def test_two_names_do_not(self, semaphores: Kind) -> None:
        one, other = semaphores(capacity=1), semaphores(capacity=1)
        permits = [await call(one.acquire), await call(other.acquire)]
        await call(one.release, permits[0])
        await call(other.release, permits[1])

    async def test_threads_and_tasks_share_it(self, semaphores: Kind) -> None:
        other = Kind(not semaphores.asynchronous, semaphores.connection, semaphores.admins)
        name = fresh_name()
        one, twin = semaphores(name, capacity=1), other(name, capacity=1, max_sleep=0)
        permit = await call(one.acquire)
        waiting = asyncio.create_task(call(twin.acquire))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await call(one.release, permit)
        await call(twin.release, await waiting)

    async def test_names_may_be_of_any_language(self, semaphores: Kind) -> None:
        semaphore = semaphores(f"Grüße an 世界 {fresh_name()}", capacity=1)
        assert await within(semaphore, lambda permit: permit.name) == semaphore.name


class TestWaiting:
    async def test_beyond_max_sleep_it_is_refused_and_holds_nothing(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1, max_sleep=0.05)
        permit = await call(semaphore.acquire)
        asked_at = time.monotonic()
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(semaphore.acquire)
        assert 0.05 <= time.monotonic() - asked_at < 10
        assert refused.value.name == semaphore.name
        assert refused.value.max_sleep == 0.05
        assert refused.value.retry_after > 0
        copy = pickle.loads(pickle.dumps(refused.value))
        assert (copy.name, copy.retry_after, copy.max_sleep) == refused.value.args
        await call(semaphore.release, permit)
        assert await held(semaphore) == 0

    async def test_a_slot_that_is_freed_meanwhile_is_handed_over(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1, max_sleep=20)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await call(semaphore.release, permit)
        handed = await waiting
        assert 0.05 < handed.waited < 20
        assert handed.fence > permit.fence
        await call(semaphore.release, handed)

    async def test_max_sleep_0_waits_without_end(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1, max_sleep=0)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await call(semaphore.release, permit)
        await call(semaphore.release, await waiting)

    async def test_it_is_told_how_long_holders_took_so_far(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=2, max_sleep=0.001)
        others = await call(semaphore.acquire)
        permit = await call(semaphore.acquire)
        await asyncio.sleep(0.4)
        await call(semaphore.release, permit)
        permit = await call(semaphore.acquire)
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(semaphore.acquire)
        assert 0.4 / 2 <= refused.value.retry_after < 2 / 2
        await call(semaphore.release, permit)
        await call(semaphore.release, others)

    async def test_a_reservation_that_was_cancelled_tells_nothing_of_how_long_slots_are_held(
        self, semaphores: Kind
    ) -> None:
        semaphore = semaphores(capacity=2, max_sleep=0.001)
        reservation = await call(semaphore.reserve)
        await asyncio.sleep(2)
        permits = [await call(semaphore.acquire)]
        await call(reservation.cancel)
        permits.append(await call(semaphore.acquire))
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(semaphore.acquire)
        assert refused.value.retry_after < 2 / 2
        for permit in permits:
            await call(semaphore.release, permit)


class TestNeverWaiting:
    async def test_try_acquire(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        permit = await call(semaphore.try_acquire)
        assert permit.fence > 0
        assert await call(semaphore.try_acquire) is None
        await call(semaphore.release, permit)
        assert await held(semaphore) == 0

    async def test_a_reservation_holds_a_slot_until_it_is_cancelled(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        reservation = await call(semaphore.reserve)
        assert reservation.delay == 0
        assert await held(semaphore) == 1
        await call(reservation.cancel)
        await call(reservation.cancel)
        assert await held(semaphore) == 0

    async def test_or_its_permit_is_released(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        reservation = await call(semaphore.reserve)
        await call(semaphore.release, reservation.permit)
        await call(reservation.cancel)
        assert await held(semaphore) == 0

    async def test_where_no_slot_is_free_nothing_is_reserved(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        permit = await call(semaphore.acquire)
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(semaphore.reserve)
        assert refused.value.retry_after > 0
        await call(semaphore.release, permit)


class TestAskingForJobs:
    async def test_a_free_slot_is_given_at_once_and_nobody_is_woken(self, semaphores: Kind) -> None:
        semaphore, woken = semaphores(capacity=1), []
        answer = await call(semaphore.ask, wake=lambda: woken.append(1))
        assert answer.permit.fence > 0
        assert semaphore.permit_of(answer).fence == answer.permit.fence
        await call(semaphore.release, answer.permit)
        assert woken == []

    async def test_one_who_waits_is_woken_and_then_has_a_permit(self, semaphores: Kind) -> None:
        semaphore, woken = semaphores(capacity=1), []
        first = await call(semaphore.ask)
        answer = await call(semaphore.ask, wake=lambda: woken.append(1))
        assert answer.permit is None
        assert answer.turn > 0
        assert semaphore.permit_of(answer) is None
        await call(semaphore.give_back, first)
        await until(lambda: bool(woken))
        permit = semaphore.permit_of(answer)
        assert permit.fence > first.permit.fence
        assert permit.waited > 0
        await call(semaphore.release, permit)
        assert woken == [1]
        assert await held(semaphore) == 0

    async def test_one_who_goes_away_is_told_when_to_come_back_and_keeps_its_place(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        first = await call(semaphore.ask)
        away = await call(semaphore.ask, slack=1.0)
        assert away.permit is None
        assert 0 < away.wait < 60
        later = await call(semaphore.ask, wake=lambda: woken.append("later"))
        woken: list[str] = []
        back = await call(semaphore.ask, turn=away.turn, wake=lambda: woken.append("back"))
        assert back.turn == away.turn < later.turn
        await call(semaphore.give_back, first)
        await until(lambda: bool(woken))
        assert woken == ["back"]
        await call(semaphore.give_back, back)
        await until(lambda: len(woken) == 2)
        await call(semaphore.give_back, later)
        assert await held(semaphore) == 0

    async def test_a_place_that_is_given_back_is_not_waited_for(self, semaphores: Kind) -> None:
        semaphore, woken = semaphores(capacity=1), []
        first = await call(semaphore.ask)
        given_up = await call(semaphore.ask, wake=lambda: woken.append("given up"))
        second = await call(semaphore.ask, wake=lambda: woken.append("second"))
        await call(semaphore.give_back, given_up)
        await call(semaphore.give_back, first)
        await until(lambda: bool(woken))
        assert woken == ["second"]
        await call(semaphore.give_back, second)
        assert await held(semaphore) == 0

    async def test_one_that_cannot_be_woken_is_passed_over(self, semaphores: Kind) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        semaphore, woken = semaphores(capacity=1, expiry=3), []
        first = await call(semaphore.ask)
        await call(semaphore.ask, wake=fail)
        answer = await call(semaphore.ask, wake=lambda: woken.append(1))
        await call(semaphore.give_back, first)
        await until(lambda: bool(woken))
        await call(semaphore.give_back, answer)
        assert await held(semaphore) == 0

    @pytest.mark.parametrize("wrong", [{"turn": -1}, {"turn": float("nan")}, {"slack": -1}, {"slack": float("inf")}])
    async def test_wrong_arguments_are_named(self, semaphores: Kind, wrong: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            await call(semaphores().ask, **wrong)


def test_it_can_be_used_from_the_first_line_of_a_program(valkey: Server) -> None:
    with SyncSemaphore(name=fresh_name(), connection=valkey.url) as permit:
        assert not permit.lost
