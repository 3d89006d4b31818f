"""Limiters whose server sentinels tell: where a client of our own is needed, it asks the same sentinels."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis.asyncio.sentinel
import redis.sentinel
from support.children import ends_well_in_a_child
from support.semaphores import fresh_name
from support.servers import HOST, PATIENCE, Server, free_port, valkey_binary

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.backends.redis.connection import twin_of


@pytest.fixture(scope="module")
def sentinel(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one that watches the server, whom it calls "limits"."""
    folder, port = tmp_path_factory.mktemp("sentinel"), free_port()
    written = folder / "sentinel.conf"
    written.write_text(f'bind {HOST}\nport {port}\ndir "{folder}"\nsentinel monitor limits {HOST} {valkey.port} 1\n')
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([valkey_binary(), written, "--sentinel"], stdout=log, stderr=log)
    try:
        wait_for_master(port)
        yield port
    finally:
        process.kill()
        process.wait()


def wait_for_master(port: int) -> None:
    end = time.monotonic() + PATIENCE
    with redis.Redis(HOST, port) as client:
        asked = redis.sentinel.Sentinel([])
        asked.sentinels = [client]
        while time.monotonic() < end:
            try:
                asked.discover_master("limits")
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
            else:
                return
    pytest.fail("the sentinel does not know its master")


def test_a_child_uses_the_limiters_of_its_parent(sentinel: int) -> None:
    client = redis.sentinel.Sentinel([(HOST, sentinel)], socket_timeout=5).master_for("limits", socket_timeout=5)
    name = fresh_name()
    bucket, semaphore = SyncTokenBucket(name, connection=client), SyncSemaphore(name, capacity=1, connection=client)

    def use() -> None:
        with bucket, semaphore:
            pass

    use()
    assert ends_well_in_a_child(use)
    client.close()


def test_one_event_loop_after_another_uses_them(sentinel: int) -> None:
    found = redis.asyncio.sentinel.Sentinel([(HOST, sentinel)], socket_timeout=5)
    client = found.master_for("limits", socket_timeout=5)
    name = fresh_name()
    bucket, semaphore = AsyncTokenBucket(name, connection=client), AsyncSemaphore(name, capacity=1, connection=client)

    async def use() -> None:
        async with bucket, semaphore:
            pass

    async def use_and_close() -> None:
        await use()
        for each in (client, *found.sentinels):
            await each.aclose()

    asyncio.run(use_and_close())
    for _ in range(2):
        asyncio.run(use())


@pytest.mark.parametrize("role", ["master", "slave"])
def test_a_twin_asks_the_same_sentinels_for_the_same_kind_of_server(role: str) -> None:
    found = redis.sentinel.Sentinel([(HOST, 1), (HOST, 2)], sentinel_kwargs={"password": "hush"})
    client = getattr(found, f"{role}_for")("limits", db=3, max_connections=7)
    own, pool = twin_of(client).connection_pool, client.connection_pool
    assert own is not pool
    assert (own.service_name, own.is_master, own.max_connections) == ("limits", role == "master", 7)
    assert own.connection_kwargs["db"] == 3
    assert len(own.sentinel_manager.sentinels) == 2
    for mine, theirs in zip(own.sentinel_manager.sentinels, found.sentinels, strict=True):
        assert mine.connection_pool is not theirs.connection_pool
        assert address_of(mine) == address_of(theirs)


def address_of(client: redis.Redis) -> tuple[object, ...]:
    settings = client.connection_pool.connection_kwargs
    return tuple(settings[name] for name in ("host", "port", "password"))
