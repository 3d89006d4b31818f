"""The server goes away, hangs, forgets everything, comes back: nobody hangs, and what was held comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
import redis
from support.buckets import call
from support.gates import AsyncGatedClient, GatedClient
from support.semaphores import Kind, fresh_name, held, keys_of, until, within
from support.servers import Server

from steindamm import AsyncSemaphore, LimiterUnavailableError, SyncSemaphore
from steindamm.backends.redis import hearing
from steindamm.tickets import PROCESS

HOUR = 3_600.0


@pytest.fixture(params=["sync", "async"])
def mortal_semaphores(request: pytest.FixtureRequest, server: Server) -> Kind:
    """Makes semaphores on a server that the test may end; its clients wait half a second for an answer."""
    return Kind(request.param == "async", f"{server.url}?socket_timeout=0.5", [server.admin])


class TestAServerThatIsGone:
    async def test_is_an_error_for_whoever_asks(self, mortal_semaphores: Kind, server: Server) -> None:
        semaphore = mortal_semaphores()
        await call(semaphore.release, await call(semaphore.acquire))
        server.kill()
        for ask in (semaphore.acquire, semaphore.try_acquire, semaphore.reserve, semaphore.ask):
            with pytest.raises(LimiterUnavailableError) as error:
                await call(ask)
            assert (error.value.name, error.value.reason) == (semaphore.name, "ConnectionError")
            assert isinstance(error.value.__cause__, redis.exceptions.ConnectionError)

    async def test_is_not_asked_for_ever_about_what_it_may_have_given(
        self, mortal_semaphores: Kind, server: Server
    ) -> None:
        semaphore = mortal_semaphores(expiry=0.5)
        server.kill()
        for ask in (semaphore.acquire, semaphore.try_acquire, semaphore.ask):
            with pytest.raises(LimiterUnavailableError):
                await call(ask)
        await until(lambda: not semaphore.backend.link.watch._watched)

    async def test_is_logged_by_whoever_releases(
        self, mortal_semaphores: Kind, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        semaphore = mortal_semaphores()
        permit = await call(semaphore.acquire)
        server.kill()
        await call(semaphore.release, permit)
        assert [record.levelno for record in caplog.records if "not given back" in record.message] == [logging.WARNING]

    async def test_hides_no_error_of_a_block(self, mortal_semaphores: Kind, server: Server) -> None:
        def fail(_: object) -> None:
            server.kill()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await within(mortal_semaphores(), fail)

    async def test_is_an_error_for_whoever_gives_up(self, mortal_semaphores: Kind, server: Server) -> None:
        semaphore = mortal_semaphores(capacity=1, max_sleep=0.3)
        await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 1)
        server.kill()
        with pytest.raises(LimiterUnavailableError):
            await waiting


class TestAServerThatCannotBeReached:
    """For a while; it lives on, and so do the leases that it knows of."""

    @pytest.mark.parametrize("kind", [GatedClient, AsyncGatedClient])
    async def test_is_given_back_what_was_released_as_soon_as_it_can(self, server: Server, kind: Any) -> None:
        client = kind.from_url(server.url)
        face = AsyncSemaphore if kind is AsyncGatedClient else SyncSemaphore
        semaphore = face(name=fresh_name(), connection=client, capacity=1, expiry=HOUR)
        permit = await call(semaphore.acquire)
        client.is_cut = True
        await call(semaphore.release, permit)
        with pytest.raises(LimiterUnavailableError):
            await call(semaphore.try_acquire)
        assert server.admin.zcard(keys_of(semaphore.name)[1]) == 1
        client.is_cut = False
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[1]) == 0)
        await call(client.aclose if kind is AsyncGatedClient else client.close)

    @pytest.mark.parametrize("kind", [GatedClient, AsyncGatedClient])
    async def test_for_longer_than_a_lease_lasts_takes_it_away_and_the_holder_knows(
        self, server: Server, kind: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = kind.from_url(server.url)
        face = AsyncSemaphore if kind is AsyncGatedClient else SyncSemaphore
        semaphore = face(name=fresh_name(), connection=client, capacity=1, expiry=0.6)
        permit = await call(semaphore.acquire)
        client.is_cut = True
        await until(lambda: permit.lost)
        await until(lambda: "ran out before it could be renewed" in caplog.text)
        client.is_cut = False
        await asyncio.sleep(0.3)
        assert permit.lost
        await call(semaphore.release, permit)
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[1]) == 0)
        await call(client.aclose if kind is AsyncGatedClient else client.close)


class TestAServerThatHangs:
    async def test_takes_back_what_was_released_meanwhile_long_before_the_lease_ends(
        self, mortal_semaphores: Kind, server: Server
    ) -> None:
        semaphore = mortal_semaphores(capacity=1, expiry=HOUR)
        permit = await call(semaphore.acquire)
        with server.standing_still():
            await call(semaphore.release, permit)
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[1]) == 0)
        assert await held(semaphore) == 0

    async def test_gives_nothing_to_those_who_were_told_that_it_hangs(
        self, mortal_semaphores: Kind, server: Server
    ) -> None:
        """It has their requests, and answers them when nobody listens any more."""
        semaphore = mortal_semaphores(capacity=2, expiry=HOUR)
        await call(semaphore.release, await call(semaphore.acquire))
        with server.standing_still():
            asking = [asyncio.create_task(call(ask)) for ask in (semaphore.acquire, semaphore.try_acquire)]
            for error in await asyncio.gather(*asking, return_exceptions=True):
                assert isinstance(error, LimiterUnavailableError)
        await asyncio.sleep(0.5)
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[1]) == 0)
        assert await held(semaphore) == 0

    async def test_and_does_not_even_end_its_connections_is_noticed(
        self, mortal_semaphores: Kind, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a connection that a firewall has forgotten would be listened to for ever."""
        monkeypatch.setattr(hearing, "LISTEN", 0.05)
        semaphore = mortal_semaphores(capacity=1, max_sleep=0)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(lambda: listeners(server) == 1)
        monkeypatch.setattr(hearing, "QUIET", 1.0)
        hears = semaphore._backend.link.hearing
        await asyncio.sleep(2.5)
        assert not hears._complained
        with server.standing_still():
            await until(lambda: hears._complained)
        await until(lambda: listeners(server) == 1)
        await call(semaphore.release, permit)
        await call(semaphore.release, await asyncio.wait_for(waiting, 10))


def listeners(server: Server) -> int:
    return int(server.admin.pubsub_numsub(f"steindamm:{PROCESS.name}")[0][1])


class TestAServerThatForgetsEverything:
    async def test_lets_those_who_wait_in_and_tells_those_who_hold(
        self, mortal_semaphores: Kind, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        semaphore = mortal_semaphores(capacity=2, max_sleep=0, expiry=3)
        holding = [await call(semaphore.acquire) for _ in range(2)]
        waiting = [asyncio.create_task(call(semaphore.acquire)) for _ in range(4)]
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 4)
        await asyncio.sleep(0.2)  # the last of them may not have read that it waits
        server.kill()
        await asyncio.sleep(0.2)
        server.start()
        done, rest = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: all(permit.lost for permit in holding))
        assert "ran out before it could be renewed" in caplog.text
        for permit in holding:
            await call(semaphore.release, permit)
        for _ in range(4):
            for task in done:
                await call(semaphore.release, await task)
            if rest:
                done, rest = await asyncio.wait(rest, timeout=20, return_when=asyncio.FIRST_COMPLETED)
                assert done
        assert not rest
        assert await held(semaphore) == 0

    async def test_the_line_too_keeps_its_order(self, server: Server) -> None:
        """An arrival number is a time: it means the same to a server that has never heard of it."""
        semaphore = SyncSemaphore(name=fresh_name(), connection=server.url, capacity=1, max_sleep=0, expiry=3)
        permit = await call(semaphore.acquire)
        waiting, order = [], []

        async def wait(number: int) -> None:
            permit = await call(semaphore.acquire)
            order.append(number)
            await call(semaphore.release, permit)

        for number in range(5):
            waiting.append(asyncio.create_task(wait(number)))
            await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == len(waiting))
        server.kill()
        server.start()
        blocking = SyncSemaphore(name=semaphore.name, connection=server.url, capacity=1, expiry=3)
        blocker: Any = blocking.try_acquire()
        await until(lambda: server.admin.zcard(keys_of(semaphore.name)[4]) == 5)
        blocking.release(blocker)
        await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert order == sorted(order)
        await call(semaphore.release, permit)

    async def test_scripts_are_given_to_it_again(self, redis_semaphores: Kind) -> None:
        semaphore = redis_semaphores(capacity=1, max_sleep=10)
        permit = await call(semaphore.acquire)
        for admin in redis_semaphores.admins:
            admin.script_flush()
        waiting = asyncio.create_task(call(semaphore.acquire))
        await asyncio.sleep(0.05)
        for admin in redis_semaphores.admins:
            admin.script_flush()
        await call(semaphore.release, permit)
        await call(semaphore.release, await asyncio.wait_for(waiting, 10))
        assert await held(semaphore) == 0

    async def test_a_state_that_is_none_of_ours_is_an_error_and_no_slot(self, redis_semaphores: Kind) -> None:
        semaphore = redis_semaphores()
        await call(semaphore.release, await call(semaphore.acquire))
        for admin in redis_semaphores.admins:
            if redis_semaphores.keys(semaphore.name):
                try:
                    admin.set(keys_of(semaphore.name)[0], b"nonsense", px=60_000)
                except redis.exceptions.ResponseError:
                    continue
        with pytest.raises(LimiterUnavailableError, match="ResponseError"):
            await call(semaphore.acquire)


async def test_waiting_ends_when_the_time_is_up_though_nothing_is_heard(server: Server) -> None:
    semaphore = SyncSemaphore(name=fresh_name(), connection=server.url, capacity=1, max_sleep=0.5)
    permit = semaphore.acquire()
    server.admin.acl_setuser("default", enabled=True, reset_channels=True)
    server.admin.client_kill_filter(_type="pubsub")
    began_at = time.monotonic()
    with pytest.raises(Exception, match="the wait is"):
        await call(semaphore.acquire)
    assert time.monotonic() - began_at < 5
    semaphore.release(permit)
