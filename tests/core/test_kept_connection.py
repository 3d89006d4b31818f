"""The connection that is kept at hand: one of the client's own, and nothing but quicker."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.exceptions
import redis.sentinel
from redis.connection import Connection
from redis.credentials import UsernamePasswordCredentialProvider
from support.buckets import call
from support.gates import PATIENCE
from support.outlived import outlive
from support.servers import HOST, Server

from steindamm import AsyncTokenBucket, LimiterUnavailableError, SyncTokenBucket
from steindamm.backends.redis.kept_connection import LEAST_POOL, keeps_one
from steindamm.background import ended_in_background

HOUR = 3_600.0
FACES = [(redis, SyncTokenBucket), (redis.asyncio, AsyncTokenBucket)]


class Face:
    """A kind of clients, and the limiters that take them."""

    def __init__(self, library: Any, limiter: Any, server: Server) -> None:
        self.library = library
        self.limiter = limiter
        self.server = server

    def client(self, **settings: Any) -> Any:
        return self.library.Redis(host=HOST, port=self.server.port, **settings)

    def bucket(self, client: Any, name: str = "api", capacity: int = 10) -> Any:
        return self.limiter(name, capacity=capacity, refill_frequency=HOUR, connection=client)

    def connections(self) -> set[str]:
        """Those that the server has now, but for the test's own."""
        own = self.server.admin.client_id()
        return {client["id"] for client in self.server.admin.client_list() if client["id"] != str(own)}


@pytest.fixture(params=FACES, ids=["sync", "async"])
def face(request: pytest.FixtureRequest, server: Server) -> Face:
    return Face(*request.param, server)


async def close(client: Any) -> None:
    await call(client.aclose if hasattr(client, "aclose") else client.close)


async def test_questions_one_after_the_other_go_over_one_connection_which_is_lent_to_nobody(face: Face) -> None:
    client = face.client()
    bucket = face.bucket(client)
    await call(bucket.acquire)
    (kept,) = face.connections()
    for _ in range(3):
        await call(bucket.acquire)
    assert face.connections() == {kept}
    await call(client.execute_command, "PING")
    assert len(face.connections()) == 2
    await close(client)


async def test_it_is_closed_with_the_client(face: Face) -> None:
    client = face.client()
    await call(face.bucket(client).acquire)
    await close(client)
    assert not face.connections()


async def test_of_a_small_pool_none_is_kept(face: Face) -> None:
    client = face.client(max_connections=LEAST_POOL - 1)
    await call(face.bucket(client).acquire)
    await call(client.execute_command, "PING")
    assert len(face.connections()) == 1
    await close(client)


async def test_where_it_broke_the_question_goes_another_way_and_the_next_one_has_one_again(face: Face) -> None:
    client = face.client()
    bucket = face.bucket(client)
    for left in (9, 8, 7):
        await call(bucket.acquire)
        assert (await call(bucket.state)).tokens == pytest.approx(left, abs=0.1)
        face.server.admin.client_kill_filter(_type="normal", skipme=True)
    for _ in range(2):
        await call(bucket.acquire)
    assert len(face.connections()) <= 2
    await close(client)


async def test_an_answer_that_comes_late_is_nobodys(face: Face) -> None:
    client = face.client(socket_timeout=0.5)
    free, spent = face.bucket(client, "free"), face.bucket(client, "spent", capacity=1)
    await call(spent.acquire)
    with face.server.standing_still(), pytest.raises(LimiterUnavailableError) as error:
        await call(free.acquire)
    assert error.value.reason == "TimeoutError"
    assert isinstance(error.value.__cause__, redis.exceptions.TimeoutError)
    for _ in range(3):
        assert not await call(spent.try_acquire)
        assert await call(free.try_acquire)
    await close(client)


async def test_an_answer_to_a_call_that_was_cancelled_is_nobodys(server: Server) -> None:
    face = Face(*FACES[1], server)
    client = face.client()
    free, spent = face.bucket(client, "free"), face.bucket(client, "spent", capacity=1)
    await spent.acquire()
    link = free._backend.link
    with server.standing_still(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await link._kept.execute("ECHO", "late")
    for _ in range(3):
        assert not await spent.try_acquire()
        assert await free.try_acquire()
    await close(client)


async def test_a_call_that_was_cancelled_costs_no_connection_and_gives_back_what_it_is_still_told(
    server: Server,
) -> None:
    face = Face(*FACES[1], server)
    client = face.client()
    bucket = face.bucket(client)
    await bucket.acquire()
    before = face.connections()
    with server.standing_still(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await bucket.acquire()
    await ended_in_background(PATIENCE)
    assert (await bucket.state()).tokens == pytest.approx(9, abs=0.1)
    assert face.connections() == before
    await close(client)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_one_is_kept_again_though_somebody_cancelled_all_tasks(server: Server, times: int) -> None:
    face = Face(*FACES[1], server)
    client = face.client()
    bucket = face.bucket(client)
    for _ in range(2):
        asking = asyncio.ensure_future(bucket.acquire())
        for _ in range(times):
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        await bucket.acquire()
    for _ in range(2):
        await bucket.acquire()
    assert len(face.connections()) == 1
    await close(client)


async def test_a_call_that_is_closed_gives_its_connection_up(server: Server) -> None:
    face = Face(*FACES[1], server)
    client = face.client()
    bucket = face.bucket(client)
    await bucket.acquire()
    before = face.connections()
    acquiring = bucket.acquire()
    acquiring.send(None)
    acquiring.close()
    await ended_in_background(PATIENCE)
    for _ in range(2):
        await bucket.acquire()
    assert len(face.connections()) == 1
    assert face.connections() != before
    await close(client)


def test_a_call_that_outlives_its_event_loop_is_given_up_with_it(server: Server) -> None:
    outlive(server.url)


async def test_one_that_the_pool_has_closed_meanwhile_is_made_anew(face: Face) -> None:
    client = face.client()
    bucket = face.bucket(client)
    await call(bucket.acquire)
    await call(client.connection_pool.disconnect)
    for _ in range(2):
        await call(bucket.acquire)
    assert len(face.connections()) == 1
    await close(client)


async def test_a_no_of_the_server_costs_no_connection(face: Face) -> None:
    client = face.client()
    bucket = face.bucket(client)
    await call(bucket.acquire)
    before = face.connections()
    face.server.admin.script_flush()
    await call(bucket.acquire)
    assert face.connections() == before
    await close(client)


@pytest.mark.skipif(not hasattr(Connection, "mark_for_reconnect"), reason="this redis-py does not hear of it")
async def test_one_that_is_told_that_the_server_moves_is_given_up(face: Face) -> None:
    client = face.client()
    bucket = face.bucket(client)
    await call(bucket.acquire)
    (before,) = face.connections()
    (kept,) = client.connection_pool._in_use_connections
    kept.mark_for_reconnect()
    for _ in range(2):
        await call(bucket.acquire)
    assert before not in face.connections()
    await close(client)


# Who has put something in the way of a client's commands sees them all


def counting(way: Any, seen: list[Any]) -> Any:
    """A function in the place of another, as tracers put it there."""

    @functools.wraps(way)
    def traced(*args: Any, **options: Any) -> Any:
        seen.append(args)
        return way(*args, **options)

    return traced


def on_the_class(face: Face, seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(face.library.Redis, "execute_command", counting(face.library.Redis.execute_command, seen))
    return face.client()


def on_the_client(face: Face, seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    client = face.client()
    monkeypatch.setattr(client, "execute_command", counting(client.execute_command, seen))
    return client


def in_a_subclass(face: Face, seen: list[Any], _: pytest.MonkeyPatch) -> Any:
    traced = {"execute_command": counting(face.library.Redis.execute_command, seen)}
    return type("Traced", (face.library.Redis,), traced)(host=HOST, port=face.server.port)


class Proxy:
    """A function in the place of another that looks like it, as wrapt makes them for OpenTelemetry."""

    def __init__(self, way: Any, seen: list[Any]) -> None:
        self._way = way
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._way, name)

    def __get__(self, client: Any, kind: type | None = None) -> Proxy:
        return Proxy(self._way.__get__(client, kind), self._seen)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._seen.append(args)
        return self._way(*args, **options)


def by_a_proxy(face: Face, seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(face.library.Redis, "execute_command", Proxy(face.library.Redis.execute_command, seen))
    return face.client()


@pytest.mark.parametrize("put", [on_the_class, on_the_client, in_a_subclass, by_a_proxy])
async def test_a_tracer_sees_every_question(
    face: Face, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    client = put(face, seen, monkeypatch)
    bucket = face.bucket(client)
    for _ in range(3):
        await call(bucket.acquire)
    assert len([args for args in seen if "EVALSHA" in args]) == 3
    await close(client)


async def test_a_tracer_that_comes_later_sees_every_question_from_then_on(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    client = face.client()
    bucket = face.bucket(client)
    await call(bucket.acquire)
    monkeypatch.setattr(face.library.Redis, "execute_command", counting(face.library.Redis.execute_command, seen))
    await call(bucket.acquire)
    assert len(seen) == 1
    await close(client)


async def test_a_tracer_of_connections_sees_every_question(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    kind = face.library.connection.Connection
    monkeypatch.setattr(kind, "send_command", counting(kind.send_command, seen))
    client = face.client()
    bucket = face.bucket(client)
    for _ in range(3):
        await call(bucket.acquire)
    assert len([args for args in seen if "EVALSHA" in args]) == 3
    await close(client)


# Where none is kept

UNKEPT = {
    "renewed credentials": lambda face: face.client(
        credential_provider=UsernamePasswordCredentialProvider("someone", "a password")
    ),
    "a client of one connection": lambda face: face.library.Redis(
        host=HOST, port=face.server.port, single_connection_client=True
    ),
    "sentinels": lambda face: face.library.sentinel.Sentinel([(HOST, 1)]).master_for("a master"),
}


@pytest.mark.parametrize("why", UNKEPT)
async def test_none_is_kept_where_the_pool_has_to_do_with_each(face: Face, why: str) -> None:
    client = UNKEPT[why](face)
    if "one connection" in why and hasattr(client, "initialize"):
        await client.initialize()
    assert not keeps_one(client)
    await close(client)


def test_one_of_a_usual_client_is_kept(face: Face) -> None:
    assert keeps_one(face.client())
