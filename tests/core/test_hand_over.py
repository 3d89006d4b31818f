"""A slot that is freed goes to the first in line, by a message: what may happen to the message, and around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.buckets import call
from support.gates import AsyncGatedClient, GatedClient, Stop
from support.semaphores import STATE, Kind, fresh_name, held, keys_of, until
from support.servers import Server, valkey_binary

from steindamm import AsyncSemaphore, SyncSemaphore
from steindamm.backends.redis.scripts import semaphore_script
from steindamm.backends.redis.semaphore import REQUEST, TERMS
from steindamm.rules.semaphore import Stay, What
from steindamm.tickets import PROCESS

SHORT = 0.9
"""Seconds of a lease; what is not renewed is soon over."""


@pytest.fixture(params=["sync", "async"])
async def gated(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[Any]:
    """Makes semaphores on a client with stops; the client itself is the attribute `client`."""

    class Gated:
        client = (GatedClient if request.param == "sync" else AsyncGatedClient).from_url(valkey.url)

        def __call__(self, name: str, **settings: Any) -> Any:
            kind = SyncSemaphore if request.param == "sync" else AsyncSemaphore
            return kind(name=name, connection=self.client, **settings)

    gated = Gated()
    yield gated
    await call(gated.client.close if request.param == "sync" else gated.client.aclose)


def holder_of(valkey: Server, name: str, **settings: Any) -> Any:
    return SyncSemaphore(name=name, connection=valkey.url, **settings)


async def waiting_at(valkey: Server, name: str, count: int = 1) -> None:
    """Until so many stand in line at the server."""
    await until(lambda: waiters_of(valkey, name) == count)


def waiters_of(valkey: Server, name: str) -> int:
    return int(valkey.admin.zcard(keys_of(name)[4]))


class TestTheMessage:
    async def test_comes_before_the_reply_that_says_that_there_is_no_slot(self, gated: Any, valkey: Server) -> None:
        name = fresh_name()
        holder, semaphore = holder_of(valkey, name, capacity=1), gated(name, capacity=1, expiry=SHORT)
        permit = await call(holder.acquire)
        warm_up = asyncio.create_task(call(gated(name, capacity=1, max_sleep=0.05).acquire))
        with pytest.raises(Exception, match="the wait is"):
            await warm_up
        await until(lambda: valkey.admin.pubsub_numsub(f"steindamm:{PROCESS.name}")[0][1] >= 1)
        stop = gated.client.stop_at(What.ENTER, before=False)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(stop.reached.is_set)
        await call(holder.release, permit)
        await asyncio.sleep(0.05)
        stop.go.set()
        handed = await asyncio.wait_for(waiting, 5)
        await asyncio.sleep(2 * SHORT)
        assert not handed.lost
        assert await held(holder) == 1
        await call(semaphore.release, handed)
        assert await held(holder) == 0

    async def test_comes_when_its_waiter_is_just_about_to_give_up(self, gated: Any, valkey: Server) -> None:
        name = fresh_name()
        holder, semaphore = holder_of(valkey, name, capacity=1), gated(name, capacity=1, max_sleep=0.1)
        permit = await call(holder.acquire)
        stop = gated.client.stop_at(What.GIVE_UP, before=True)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(stop.reached.is_set)
        await call(holder.release, permit)
        await asyncio.sleep(0.05)
        stop.go.set()
        await call(semaphore.release, await waiting)
        assert await held(holder) == 0

    async def test_comes_when_its_waiter_has_given_up_but_not_heard_so(self, gated: Any, valkey: Server) -> None:
        name = fresh_name()
        holder, semaphore = holder_of(valkey, name, capacity=1), gated(name, capacity=1, max_sleep=0.1)
        permit = await call(holder.acquire)
        stop = gated.client.stop_at(What.GIVE_UP, before=False)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(stop.reached.is_set)
        await call(holder.release, permit)
        stop.go.set()
        with pytest.raises(Exception, match="the wait is"):
            await waiting
        assert await held(holder) == 0

    async def test_is_missed_while_the_subscription_is_cut(self, redis_semaphores: Kind) -> None:
        semaphore = redis_semaphores(capacity=1, max_sleep=20)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(lambda: listeners(redis_semaphores.admins) >= 1)
        for admin in redis_semaphores.admins:
            admin.client_kill_filter(_type="pubsub")
        await call(semaphore.release, permit)
        handed = await asyncio.wait_for(waiting, 5)
        await call(semaphore.release, handed)
        assert await held(semaphore) == 0

    @pytest.mark.parametrize("rubbish", [b"", b"x", b"\xff\xfe", b"a b c", b" ", b"nobody:1 5", b"nobody:1 -5"])
    async def test_is_rubbish(self, redis_semaphores: Kind, rubbish: bytes) -> None:
        semaphore = redis_semaphores(capacity=1, max_sleep=20)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(lambda: listeners(redis_semaphores.admins) >= 1)
        for admin in redis_semaphores.admins:
            admin.publish(f"steindamm:{PROCESS.name}", rubbish)
        await call(semaphore.release, permit)
        await call(semaphore.release, await asyncio.wait_for(waiting, 5))


def listeners(admins: list[redis.Redis]) -> int:
    return sum(admin.pubsub_numsub(f"steindamm:{PROCESS.name}")[0][1] for admin in admins)


async def brought_back_and_left(client: Any, renewal: Stop) -> None:
    """Let a renewal go on that brings a waiter back who has gone, and who then leaves."""
    leaving = client.stop_at(What.LEAVE, before=True)
    renewal.go.set()
    await until(leaving.reached.is_set)
    leaving.go.set()
    await until(leaving.answered.is_set)


class TestRenewals:
    async def test_one_that_comes_after_the_release_leaves_nobody_in_line(self, gated: Any, valkey: Server) -> None:
        name = fresh_name()
        holder, semaphore = holder_of(valkey, name, capacity=1), gated(name, capacity=1, expiry=SHORT)
        permit = await call(holder.acquire)
        stop = gated.client.stop_at(What.RENEW, before=True)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(stop.reached.is_set)
        await call(holder.release, permit)
        handed = await asyncio.wait_for(waiting, 5)
        await call(semaphore.release, handed)
        permit = await call(holder.acquire)
        await brought_back_and_left(gated.client, stop)
        assert waiters_of(valkey, name) == 0
        await call(holder.release, permit)
        assert await held(holder) == 0

    async def test_one_that_comes_after_its_waiter_gave_up_does_not_either(self, gated: Any, valkey: Server) -> None:
        name = fresh_name()
        holder = holder_of(valkey, name, capacity=1)
        semaphore = gated(name, capacity=1, max_sleep=0.5, expiry=SHORT)
        permit = await call(holder.acquire)
        stop = gated.client.stop_at(What.RENEW, before=True)
        with pytest.raises(Exception, match="the wait is"):
            await call(semaphore.acquire)
        assert stop.reached.is_set()
        await brought_back_and_left(gated.client, stop)
        assert waiters_of(valkey, name) == 0
        await call(holder.release, permit)
        assert await held(holder) == 0

    async def test_one_that_is_answered_before_but_came_after_does_not_either(self, gated: Any, valkey: Server) -> None:
        """The server answers that the waiter has given up, and then the renewal; the answers are read the other way."""
        name = fresh_name()
        holder = holder_of(valkey, name, capacity=1)
        semaphore = gated(name, capacity=1, max_sleep=0.5, expiry=SHORT)
        permit = await call(holder.acquire)
        renewal = gated.client.stop_at(What.RENEW, before=True)
        giving_up = gated.client.stop_at(What.GIVE_UP, before=False)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(giving_up.reached.is_set)
        assert renewal.reached.is_set()
        renewal.go.set()
        await until(lambda: waiters_of(valkey, name) == 1)
        await asyncio.sleep(0.05)
        giving_up.go.set()
        with pytest.raises(Exception, match="the wait is"):
            await waiting
        assert waiters_of(valkey, name) == 0
        await call(holder.release, permit)
        assert await held(holder) == 0


class TestThoseInLine:
    async def test_one_whom_nobody_hears_is_passed_over_at_once(self, valkey: Server) -> None:
        name = fresh_name()
        holder = holder_of(valkey, name, capacity=1, max_sleep=20)
        permit = await call(holder.acquire)
        enter(valkey, name, "nobody:1")
        waiting = asyncio.create_task(call(holder.acquire))
        await waiting_at(valkey, name, 2)
        await until(lambda: listeners([valkey.admin]) >= 1)
        await call(holder.release, permit)
        await call(holder.release, await asyncio.wait_for(waiting, 2))
        assert await held(holder) == 0

    async def test_they_cost_nothing_but_a_renewal_now_and_then(self, tmp_path: Path) -> None:
        """No polling: a third of their presence is two seconds."""
        with Server(valkey_binary(), tmp_path) as server:
            semaphore = SyncSemaphore(name=fresh_name(), connection=server.url, capacity=1, max_sleep=0)
            permit = await call(semaphore.acquire)
            waiting = [asyncio.create_task(call(semaphore.acquire)) for _ in range(20)]
            await waiting_at(server, semaphore.name, 20)
            await asyncio.sleep(0.2)
            server.admin.config_resetstat()
            await asyncio.sleep(1.0)
            calls = server.admin.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
            assert calls <= 20
            await released_by_each(semaphore, permit, waiting)

    async def test_a_released_slot_takes_one_call_of_the_script_however_many_wait(self, tmp_path: Path) -> None:
        with Server(valkey_binary(), tmp_path) as server:
            semaphore = SyncSemaphore(name=fresh_name(), connection=server.url, capacity=1, max_sleep=0)
            permit = await call(semaphore.acquire)
            waiting = [asyncio.create_task(call(semaphore.acquire)) for _ in range(20)]
            await waiting_at(server, semaphore.name, 20)
            await asyncio.sleep(0.2)
            server.admin.config_resetstat()
            await released_by_each(semaphore, permit, waiting)
            calls = server.admin.info("commandstats")["cmdstat_evalsha"]["calls"]
            assert 21 <= calls <= 41

    async def test_leases_go_on_where_the_state_was_evicted(self, valkey: Server) -> None:
        name = fresh_name()
        semaphore = holder_of(valkey, name, capacity=2, max_sleep=20, expiry=SHORT)
        permits = [await call(semaphore.acquire) for _ in range(2)]
        waiting = asyncio.create_task(call(semaphore.acquire))
        await waiting_at(valkey, name)
        valkey.admin.delete(keys_of(name)[0])
        assert await call(semaphore.try_acquire) is None
        await asyncio.sleep(SHORT)
        assert not any(permit.lost for permit in permits)
        await call(semaphore.release, permits[0])
        await call(semaphore.release, await asyncio.wait_for(waiting, 5))
        await call(semaphore.release, permits[1])
        assert await held(semaphore) == 0

    async def test_a_set_of_waiters_that_was_evicted_stops_nothing(self, valkey: Server) -> None:
        name = fresh_name()
        semaphore = holder_of(valkey, name, capacity=1, max_sleep=20, expiry=SHORT)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await waiting_at(valkey, name)
        for key in keys_of(name)[2:]:
            valkey.admin.delete(key)
            assert await call(semaphore.try_acquire) is None
        await call(semaphore.release, permit)
        await call(semaphore.release, await asyncio.wait_for(waiting, 5))
        assert await held(semaphore) == 0


async def released_by_each(semaphore: Any, permit: Any, waiting: list[asyncio.Task[Any]]) -> None:
    """One after another is handed the slot, and gives it back."""
    while waiting:
        await call(semaphore.release, permit)
        done, _ = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        (task,) = done
        waiting.remove(task)
        permit = task.result()
    await call(semaphore.release, permit)


def enter(server: Server, name: str, asker: str) -> None:
    """Stand in line as somebody who is not there."""
    args = TERMS.pack(1, 60e6, 6e6, 1), REQUEST.pack(What.ENTER, 0, Stay.LISTENING, 0), asker
    server.admin.eval(semaphore_script().text, 6, *keys_of(name), *args)
    packed = server.admin.get(keys_of(name)[0])
    assert STATE.unpack(packed)[3] >= 1
