"""What `connection=` may be, and what it costs: clients, pools, URLs, event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from support.buckets import NUMBERS, THREADS, call
from support.servers import HOST, Cluster, Server, free_port, valkey_binary

from steindamm import AsyncTokenBucket, LimiterUnavailableError, SyncTokenBucket
from steindamm.backends.redis import links

SECRET = "p4ssw0rd"


def name() -> str:
    return f"connection-{next(NUMBERS)}"


async def acquired(connection, count: int = 3) -> int:
    """How many of so many can be acquired through a connection."""
    limiter = AsyncTokenBucket(name=name(), connection=connection, capacity=count)
    return len([await limiter.acquire() for _ in range(count)])


# Kinds of connection


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}, {"encoding": "latin-1"}])
async def test_clients_may_be_configured_in_any_way(valkey: Server, options: dict[str, object]) -> None:
    the_name = f"kunde ü {next(NUMBERS)}"
    with redis.Redis(HOST, valkey.port, **options) as client:
        assert SyncTokenBucket(name=the_name, connection=client, capacity=2).try_acquire()
    async with redis.asyncio.Redis(host=HOST, port=valkey.port, **options) as client:
        assert await AsyncTokenBucket(name=the_name, connection=client, capacity=2).try_acquire()
        assert not await AsyncTokenBucket(name=the_name, connection=client, capacity=2).try_acquire()


async def test_clients_of_a_cluster_will_do(cluster: Cluster) -> None:
    the_name, port = name(), cluster.nodes[1].port
    with redis.cluster.RedisCluster(HOST, port) as client:
        assert SyncTokenBucket(name=the_name, connection=client, capacity=2).try_acquire()
    async with redis.asyncio.cluster.RedisCluster(HOST, port) as client:
        assert await AsyncTokenBucket(name=the_name, connection=client, capacity=2).try_acquire()
        assert not await AsyncTokenBucket(name=the_name, connection=client, capacity=2).try_acquire()


def test_each_url_is_a_backend_of_its_own(valkey: Server) -> None:
    the_name, urls = name(), [f"redis://{HOST}:{valkey.port}/{database}" for database in range(3)]

    async def of_tasks() -> list[bool]:
        limiters = [AsyncTokenBucket(name=the_name, capacity=2, connection=url) for url in urls]
        return [bool(await limiter.try_acquire()) for limiter in limiters * 2]

    of_threads = [SyncTokenBucket(name=the_name, capacity=2, connection=url) for url in urls]
    assert all(limiter.try_acquire() for limiter in of_threads)
    assert asyncio.run(of_tasks()) == [True] * 3 + [False] * 3


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_urls_of_one_server(valkey: Server, scheme: str) -> None:
    assert SyncTokenBucket(name=name(), connection=f"{scheme}://{HOST}:{valkey.port}/0").try_acquire()


@pytest.mark.parametrize("scheme", ["redis+cluster", "valkey+cluster"])
def test_urls_of_a_cluster(cluster: Cluster, scheme: str) -> None:
    assert SyncTokenBucket(name=name(), connection=f"{scheme}://{HOST}:{cluster.nodes[2].port}").try_acquire()


async def test_urls_of_a_socket(tmp_path: Path) -> None:
    with Server(valkey_binary(), tmp_path, f'unixsocket "{tmp_path}/socket"'):
        url = f"unix://{tmp_path}/socket"
        the_name = name()
        assert SyncTokenBucket(name=the_name, connection=url, capacity=2).try_acquire()
        assert await AsyncTokenBucket(name=the_name, connection=url, capacity=2).try_acquire()


def test_redis_itself_will_do(redis_url: str) -> None:
    limiter = SyncTokenBucket(name=name(), connection=redis_url, capacity=2, refill_frequency=60)
    assert [bool(limiter.try_acquire()) for _ in range(3)] == [True, True, False]
    assert asyncio.run(acquired(redis_url)) == 3


@pytest.mark.parametrize(
    ("limiter", "client", "message"),
    [
        (SyncTokenBucket, redis.asyncio.Redis(), "must be a sync redis-py client.*take an Async… limiter"),
        (AsyncTokenBucket, redis.Redis(), "must be an async redis-py client.*take a Sync… limiter"),
        (SyncTokenBucket, redis.Redis().pipeline(), "must be a client that answers at once, not Pipeline"),
        (AsyncTokenBucket, redis.asyncio.Redis().pipeline(), "must be a client that answers at once, not Pipeline"),
        (SyncTokenBucket, redis.ConnectionPool(), "must be a redis-py client .* or a URL, not ConnectionPool"),
    ],
)
def test_the_wrong_kind_of_client_is_refused_and_the_right_limiter_named(limiter, client, message: str) -> None:
    with pytest.raises(TypeError, match=f"^connection {message}"):
        limiter(name="wrong", connection=client)


async def test_the_wrong_kind_of_cluster_client_is_refused(cluster: Cluster) -> None:
    with (
        redis.cluster.RedisCluster(HOST, cluster.nodes[0].port) as client,
        pytest.raises(TypeError, match=r"take a Sync… limiter"),
    ):
        AsyncTokenBucket(name="wrong", connection=client)
    with pytest.raises(TypeError, match=r"take an Async… limiter"):
        SyncTokenBucket(name="wrong", connection=redis.asyncio.cluster.RedisCluster(HOST, cluster.nodes[0].port))


# Pools


def test_twenty_limiters_share_a_pool_of_one_connection(valkey: Server) -> None:
    with redis.Redis(HOST, valkey.port, max_connections=1) as client:
        limiters = [SyncTokenBucket(name=name(), connection=client, capacity=5) for _ in range(20)]
        permits = list(THREADS.map(SyncTokenBucket.try_acquire, limiters * 5))
    assert all(permits)


async def test_twenty_limiters_of_tasks_share_a_pool_of_one_connection(valkey: Server) -> None:
    async with redis.asyncio.Redis(host=HOST, port=valkey.port, max_connections=1) as client:
        limiters = [AsyncTokenBucket(name=name(), connection=client, capacity=5) for _ in range(20)]
        assert all(await asyncio.gather(*(limiter.try_acquire() for limiter in limiters * 5)))


@pytest.fixture(params=["sync", "async"])
async def pool_of_one(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[tuple[Any, redis.Redis]]:
    """A limiter, and its client, whose pool has one connection."""
    if request.param == "sync":
        with redis.Redis(HOST, valkey.port, max_connections=1) as client:
            yield SyncTokenBucket(name=name(), connection=client), client
    else:
        async with redis.asyncio.Redis(host=HOST, port=valkey.port, max_connections=1) as client:
            yield AsyncTokenBucket(name=name(), connection=client), client


@asynccontextmanager
async def only_connection_of(client: Any) -> AsyncIterator[None]:
    """Hold it for as long as the block goes on."""
    listening = client.pubsub()
    await call(listening.subscribe, name())
    yield
    await call(listening.aclose if hasattr(listening, "aclose") else listening.close)


async def test_a_pool_that_is_empty_is_waited_for(pool_of_one: tuple[Any, Any]) -> None:
    limiter, client = pool_of_one
    async with only_connection_of(client):
        waiting = asyncio.create_task(call(limiter.try_acquire))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert await waiting


async def test_a_pool_that_stays_empty_is_an_error_in_the_end(
    pool_of_one: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "POOL_WAIT", 0.05)
    limiter, client = pool_of_one
    async with only_connection_of(client):
        with pytest.raises(LimiterUnavailableError, match=r"ConnectionsError|ConnectionError"):
            await call(limiter.try_acquire)
    assert await call(limiter.try_acquire)


def test_limiters_of_one_client_share_what_they_keep(valkey: Server) -> None:
    with redis.Redis(HOST, valkey.port) as client:
        one, other = (SyncTokenBucket(name="shared", connection=client) for _ in range(2))
        assert one._backend is other._backend
        assert one._backend is one(3)._backend
        assert one._backend is not SyncTokenBucket(name="shared", capacity=6, connection=client)._backend


# Event loops


def test_a_client_for_each_limiter_is_warned_of_once(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has connections of its own; a function that makes one for each job runs out of them."""
    links._warn_of_many.cache_clear()
    gc.collect()
    monkeypatch.setattr(links, "MANY", len(links._alive) + 3)
    clients = [redis.Redis.from_url(valkey.url) for _ in range(5)]
    for client in clients:
        assert SyncTokenBucket(name=name(), connection=client).try_acquire()
    assert [record.getMessage()[:8] for record in caplog.records] == ["limiters"]


@pytest.mark.parametrize("kind", ["url", "client", "blocking pool", "cluster url", "cluster client"])
def test_a_limiter_may_be_used_on_one_event_loop_after_another(kind: str, valkey: Server, cluster: Cluster) -> None:
    connections = {
        "url": lambda: valkey.url,
        "client": lambda: redis.asyncio.Redis(host=HOST, port=valkey.port),
        "blocking pool": lambda: redis.asyncio.Redis.from_pool(
            redis.asyncio.BlockingConnectionPool(host=HOST, port=valkey.port, max_connections=2)
        ),
        "cluster url": lambda: cluster.url,
        "cluster client": lambda: redis.asyncio.cluster.RedisCluster(HOST, cluster.nodes[0].port),
    }
    connection = connections[kind]()
    limiter = AsyncTokenBucket(name=name(), capacity=100, refill_frequency=60, connection=connection)

    async def twenty() -> int:
        return sum(permit is not None for permit in await asyncio.gather(*(limiter.try_acquire() for _ in range(20))))

    async def twenty_and_close() -> int:
        count = await twenty()
        if not isinstance(connection, str):
            await connection.aclose()
        return count

    assert asyncio.run(twenty_and_close()) == 20
    assert [asyncio.run(twenty()) for _ in range(5)] == [20, 20, 20, 20, 0]


def test_connections_that_a_url_stands_for_are_closed_with_their_loop(valkey: Server) -> None:
    asyncio.run(acquired(valkey.url))
    before = len(valkey.admin.client_list())
    for _ in range(5):
        asyncio.run(acquired(valkey.url))
    assert len(valkey.admin.client_list()) <= before


def test_a_client_is_left_open_when_its_loop_ends_and_its_twins_on_other_loops_are_closed(valkey: Server) -> None:
    closed = []

    class Client(redis.asyncio.Redis):
        async def aclose(self, *args: Any, **options: Any) -> None:
            closed.append(self)
            await super().aclose(*args, **options)

    client = Client(host=HOST, port=valkey.port)
    limiter = AsyncTokenBucket(name=name(), connection=client)

    async def used() -> None:
        assert await limiter.try_acquire()

    async def used_and_cut_off() -> None:
        await used()
        await client.connection_pool.disconnect()

    asyncio.run(used_and_cut_off())
    assert closed == []
    asyncio.run(used())
    assert len(closed) == 1
    assert client not in closed


def test_one_limiter_serves_loops_of_several_threads_at_once(valkey: Server) -> None:
    limiter = AsyncTokenBucket(name=name(), capacity=50, refill_frequency=60, connection=valkey.url)

    async def twenty() -> int:
        return sum(permit is not None for permit in await asyncio.gather(*(limiter.try_acquire() for _ in range(20))))

    assert sum(THREADS.map(lambda _: asyncio.run(twenty()), range(4))) == 50


# Secrets


def whole_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@localhost",
        f"redis//user:{SECRET}@localhost",
        f"redis://user:{SECRET}@localhost:port",
        f"redis://user:{SECRET}@localhost?socket_timeout=soon",
        f"redis://user:{SECRET}@localhost?socket_timout=1",
        f"redis://user:{SECRET}@localhost?ssl_cert_reqs=none",
        f"rediss://user:{SECRET}@localhost?ssl_cert_reqs=CERT_REQUIRED",
        f"redis+cluster://user:{SECRET}@localhost/7",
        SECRET,
    ],
)
@pytest.mark.parametrize("kind", [SyncTokenBucket, AsyncTokenBucket])
def test_a_url_that_is_refused_is_not_shown(kind, url: str) -> None:
    with pytest.raises(ValueError, match=r"^connection must") as refusal:
        kind(name="secret", connection=url)
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert SECRET not in str(refusal.value.__context__ or "")


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_no_error_and_no_log_shows_the_password(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{scheme}://user:{SECRET}@{HOST}:{free_port()}"
    limiters = SyncTokenBucket(name="secret", connection=url), AsyncTokenBucket(name="secret", connection=url)
    with pytest.raises(LimiterUnavailableError) as error:
        limiters[0].acquire()
    with pytest.raises(LimiterUnavailableError) as asynchronous_error:
        asyncio.run(limiters[1].acquire())
    for text in (whole_text(error.value), whole_text(asynchronous_error.value), repr(limiters), caplog.text):
        assert SECRET not in text


def test_a_wrong_password_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    with Server(valkey_binary(), tmp_path) as server:
        server.admin.config_set("requirepass", "another")
        limiter = SyncTokenBucket(name="secret", connection=f"redis://:{SECRET}@{HOST}:{server.port}")
        with pytest.raises(LimiterUnavailableError) as error:
            limiter.acquire()
    assert error.value.reason == "AuthenticationError"
    assert SECRET not in whole_text(error.value)


def test_the_right_password_in_a_url_is_used(tmp_path: Path) -> None:
    with Server(valkey_binary(), tmp_path) as server:
        server.admin.config_set("requirepass", SECRET)
        assert SyncTokenBucket(name="secret", connection=f"redis://:{SECRET}@{HOST}:{server.port}").try_acquire()


# Without Redis


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_importing_the_package_and_using_local_limiters_imports_no_redis() -> None:
    done = python(
        "import sys, steindamm\n"
        "steindamm.SyncTokenBucket(name='x').acquire()\n"
        "steindamm.SyncSemaphore(name='x').try_acquire()\n"
        "print([module for module in sys.modules if module.split('.')[0] in ('redis', 'celery', 'hiredis')])"
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("kind", ["SyncTokenBucket", "AsyncTokenBucket", "SyncSemaphore", "AsyncSemaphore"])
def test_without_redis_py_a_connection_says_what_to_install(kind: str) -> None:
    done = python(
        "import sys\nsys.modules['redis'] = None\nimport steindamm\n"
        f"steindamm.{kind}(name='x', connection='redis://localhost')"
    )
    assert 'ImportError: a limiter with a connection needs redis-py: pip install "steindamm[redis]"' in done.stderr
