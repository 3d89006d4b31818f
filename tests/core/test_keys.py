"""What a token bucket keeps on a server, and for how long."""

from __future__ import annotations

import asyncio
from struct import unpack
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot
from support.buckets import Kind, call

HOUR = 3_600.0


async def test_a_bucket_is_one_key_whose_slot_hangs_on_its_name_alone(redis_buckets: Kind) -> None:
    bucket = redis_buckets()
    await call(bucket.acquire)
    (key,) = redis_buckets.keys(bucket.name)
    assert key == f"steindamm:{{{bucket.name}}}:bucket".encode()
    assert key_slot(key) == key_slot(bucket.name.encode())


@pytest.mark.parametrize("name", ["", ":bucket", "*", " ", "ä", "{"])
async def test_no_name_reaches_another_limiters_key(redis_buckets: Kind, name: str) -> None:
    bucket = redis_buckets(capacity=2, refill_frequency=HOUR)
    await call(bucket(2).acquire)
    if "{" in name:
        with pytest.raises(ValueError, match=r"^name must"):
            redis_buckets(bucket.name + "}:" + name)
        return
    other = redis_buckets(bucket.name + ":bucket" + name, capacity=2, refill_frequency=HOUR)
    assert await call(other(2).try_acquire)
    assert not await call(bucket.try_acquire)


async def test_it_takes_no_more_than_160_bytes(redis_buckets: Kind) -> None:
    for name in ("api", "customer-4711", "crm.example:user:1234567"):
        bucket = redis_buckets(name, capacity=1e9)
        await call(bucket(1e8 / 3).acquire)
        ((key, admin),) = redis_buckets.keys(bucket.name).items()
        assert admin.memory_usage(key) <= 160


async def test_it_lives_until_it_is_full_again(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=100, refill_frequency=36, expiry=60)
    await call(bucket(100).acquire)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    assert HOUR - 60 < admin.ttl(key) <= HOUR + 1


async def test_it_lives_for_its_expiry_at_least(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=100, refill_frequency=0.01, expiry=500)
    await call(bucket.acquire)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    assert 440 < admin.ttl(key) <= 501


async def test_an_idle_bucket_leaves_nothing_behind(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=5, refill_frequency=0.05, expiry=0.05)
    await call(bucket(2).acquire)
    assert redis_buckets.keys(bucket.name)
    await asyncio.sleep(0.3)
    assert not redis_buckets.keys(bucket.name)


async def test_who_sleeps_and_who_has_booked_keep_it_alive(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=1, refill_frequency=100, expiry=1, max_sleep=0)
    await call(bucket.acquire)
    await call(bucket.reserve)
    await call(bucket.ask, horizon=HOUR)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    assert 240 < admin.ttl(key) <= 301


async def test_the_counters_ride_along(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=1, refill_frequency=100, max_sleep=150)
    await call(bucket.acquire)
    await call(bucket.reserve)
    await call(bucket.ask, horizon=HOUR)
    await call(bucket.try_acquire)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    *_, granted, deferred, refused, waited = unpack("<7d", admin.get(key))
    assert (granted, deferred, refused) == (2, 1, 1)
    assert waited / 1e6 == pytest.approx(300, abs=30)


async def test_an_acquire_is_one_command(redis_buckets: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = redis_buckets(capacity=100)
    await call(bucket.acquire)
    sent: list[bytes] = []
    for connection in (redis.connection.AbstractConnection, redis.asyncio.connection.AbstractConnection):
        keep_what_is_sent(connection, sent, monkeypatch)
    for _ in range(10):
        await call(bucket.acquire)
    of_the_bucket = [command for command in sent if bucket.name.encode() in command]
    assert [command.count(b"EVALSHA") for command in of_the_bucket] == [1] * 10


def keep_what_is_sent(connection: Any, sent: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the bytes of each command that such connections send."""
    send = connection.send_packed_command

    def keep(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(command if isinstance(command, bytes) else b"".join(command))
        return send(self, command, *args, **kwargs)

    monkeypatch.setattr(connection, "send_packed_command", keep)
