"""The backend goes away, hangs, forgets its scripts, comes back."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.exceptions
from support.buckets import Kind, call
from support.semaphores import until
from support.servers import Cluster, Server

from steindamm import AsyncTokenBucket, LimiterUnavailableError, SyncTokenBucket, all_of, turns

HOUR = 3_600.0


@pytest.fixture(params=["sync", "async"])
def mortal_buckets(request: pytest.FixtureRequest, server: Server) -> Kind:
    """Makes buckets on a server that the test may end; its clients wait half a second for an answer."""
    return Kind(request.param == "async", f"{server.url}?socket_timeout=0.5", [server.admin])


async def test_a_server_that_is_gone_is_an_error_that_carries_the_clients(mortal_buckets: Kind, server: Server) -> None:
    bucket = mortal_buckets()
    await call(bucket.acquire)
    server.kill()
    for ask in (bucket.acquire, bucket.try_acquire, bucket.reserve, bucket.ask):
        with pytest.raises(LimiterUnavailableError) as error:
            await call(ask)
        assert (error.value.name, error.value.reason) == (bucket.name, "ConnectionError")
        assert isinstance(error.value.__cause__, redis.exceptions.ConnectionError)


async def test_a_server_that_hangs_is_an_error_after_the_clients_timeout(mortal_buckets: Kind, server: Server) -> None:
    bucket = mortal_buckets()
    await call(bucket.acquire)
    with server.standing_still(), pytest.raises(LimiterUnavailableError) as error:
        await call(bucket.acquire)
    assert isinstance(error.value.__cause__, redis.exceptions.TimeoutError)
    await call(bucket.acquire)


def connections_of(server: Server) -> int:
    """How many it has had."""
    return int(server.admin.info("stats")["total_connections_received"])


async def test_a_question_whose_answer_does_not_come_is_not_asked_again(mortal_buckets: Kind, server: Server) -> None:
    bucket = mortal_buckets(capacity=10, refill_frequency=HOUR)
    await call(bucket.acquire)
    before = connections_of(server)
    with server.standing_still(), pytest.raises(LimiterUnavailableError):
        await call(bucket.acquire)
    assert connections_of(server) == before
    assert (await call(bucket.state)).tokens == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_node_of_a_cluster_that_hangs_is_asked_once(cluster: Cluster, *, asynchronous: bool) -> None:
    buckets = Kind(asynchronous, f"{cluster.url}?socket_timeout=0.5", [node.admin for node in cluster.nodes])
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    await call(bucket.acquire)
    (admin,) = buckets.keys(bucket.name).values()
    node = next(node for node in cluster.nodes if node.admin is admin)
    before = connections_of(node)
    with node.standing_still(), pytest.raises(LimiterUnavailableError):
        await call(bucket.acquire)
    assert connections_of(node) < before + 5
    assert (await call(bucket.state)).tokens == pytest.approx(8, abs=0.1)


class InterruptionError(Exception):
    """What a signal's handler raises, as Celery's soft time limit does."""


@pytest.mark.parametrize("way", ["url", "client"])
def test_a_thread_interrupted_in_the_middle_of_its_question_leaves_its_answer_to_nobody(
    server: Server, way: str
) -> None:
    def interrupt(*_: object) -> None:
        raise InterruptionError

    connection = server.url if way == "url" else redis.Redis.from_url(server.url)
    free = SyncTokenBucket(name="free", capacity=100, connection=connection)
    spent = SyncTokenBucket(name="spent", capacity=1, refill_frequency=HOUR, connection=connection)
    assert spent.try_acquire()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with server.standing_still():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptionError):
                free.try_acquire()
    finally:
        signal.signal(signal.SIGALRM, before)
    for _ in range(5):
        assert not spent.try_acquire()
        assert free.try_acquire()
    free.backend.link.client.close()
    if isinstance(connection, redis.Redis):
        connection.close()


async def test_all_who_asked_together_are_told(mortal_buckets: Kind, server: Server) -> None:
    bucket = mortal_buckets(capacity=100)
    await call(bucket.acquire)
    server.kill()
    errors = await asyncio.gather(*(call(bucket.acquire) for _ in range(20)), return_exceptions=True)
    assert {type(error) for error in errors} == {LimiterUnavailableError}


async def test_a_limiter_works_on_after_its_server_was_restarted(mortal_buckets: Kind, server: Server) -> None:
    bucket = mortal_buckets(capacity=2, refill_frequency=HOUR)
    for _ in range(2):
        assert await call(bucket.try_acquire)
        server.kill()
        server.start()
    assert await call(bucket.try_acquire)
    assert await call(bucket.try_acquire)
    assert not await call(bucket.try_acquire)


async def test_who_sleeps_at_several_limits_of_which_one_is_closed_does_not_notice_that_the_server_is_gone(
    mortal_buckets: Kind, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks whether that one was opened, and keeps waiting where it is told nothing."""
    monkeypatch.setattr(turns, "NEWS", 0.05)
    closed, other = (mortal_buckets(max_sleep=0) for _ in range(2))
    await call(closed.close_for, HOUR)
    sleeper = asyncio.create_task(call(all_of(closed, other).acquire))
    await until(lambda: len(closed._backend.turns._sleepers) == 1)
    server.kill()
    await asyncio.sleep(0.5)
    assert not sleeper.done()
    server.start()
    await asyncio.wait_for(sleeper, 10)


async def test_who_sleeps_until_its_turn_does_not_notice_that_the_server_is_gone(
    mortal_buckets: Kind, server: Server
) -> None:
    bucket = mortal_buckets(capacity=1, refill_frequency=1)
    await call(bucket.acquire)
    sleeper = asyncio.create_task(call(bucket.acquire))
    await until(lambda: len(bucket._backend.turns._sleepers) == 1)
    server.kill()
    assert (await sleeper).waited > 0


async def test_a_cancelled_sleeper_whose_server_is_gone_is_only_cancelled(server: Server) -> None:
    bucket = Kind(asynchronous=True, connection=server.url, admins=[])(capacity=1, refill_frequency=HOUR, max_sleep=0)
    await bucket.acquire()
    sleeper = asyncio.create_task(bucket.acquire())
    await until(lambda: len(bucket._backend.turns._sleepers) == 1)
    server.kill()
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper


async def test_a_server_that_forgot_the_scripts_is_given_them_again(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=4, refill_frequency=HOUR)
    for _ in range(4):
        for admin in redis_buckets.admins:
            admin.script_flush()
        assert await call(bucket.try_acquire)
    assert not await call(bucket.try_acquire)


async def test_a_state_that_is_none_of_ours_is_an_error_and_no_token(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=4, refill_frequency=HOUR)
    await call(bucket.acquire)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    admin.set(key, b"short", ex=60)
    with pytest.raises(LimiterUnavailableError) as error:
        await call(bucket.acquire)
    assert isinstance(error.value.__cause__, redis.exceptions.ResponseError)
    admin.delete(key)
    await call(bucket.acquire)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_cluster_that_is_gone_is_the_same_error(tmp_path: Path, *, asynchronous: bool) -> None:
    with Cluster(tmp_path) as cluster:
        buckets = Kind(asynchronous, f"{cluster.url}?socket_timeout=1", [])
        bucket = buckets()
        await call(bucket.acquire)
        for node in cluster.nodes:
            node.kill()
        for limiter in (bucket, Kind(asynchronous, f"{cluster.url}?socket_timeout=2", [])()):
            with pytest.raises(LimiterUnavailableError) as error:
                await call(limiter.acquire)
            assert error.value.__cause__ is not None


@pytest.mark.parametrize("error", [AttributeError, TypeError])
async def test_a_connection_that_was_closed_by_a_task_beside_is_taken_anew(
    valkey: Server, error: type[Exception]
) -> None:
    """redis-py's own word for it, or asyncio's, is such an error, before anything was sent."""

    class Hasty(redis.asyncio.Redis):
        closed = 3

        async def execute_command(self, *args: Any, **options: Any) -> Any:
            if self.closed:
                self.closed -= 1
                raise error("of None")
            return await super().execute_command(*args, **options)

    async with Hasty.from_url(valkey.url) as client:
        permit = await AsyncTokenBucket(name=f"closed-beside-{error.__name__}", connection=client).acquire()
    assert permit.waited == 0
