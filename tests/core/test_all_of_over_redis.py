"""Several limits at once over Redis: calls, keys, outages, leases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.buckets import call
from support.several import HOUR, Kind, tokens_left

from steindamm import LimiterUnavailableError, all_of


def counted_calls(limiter: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For which limiters scripts are run from now on; renewals are no requests."""
    link, calls = limiter.backend.link, []
    run = link.run

    def counted(name: str, *args: Any) -> Any:
        if " + " in name:
            calls.append(name)
        return run(name, *args)

    monkeypatch.setattr(link, "run", counted)
    return calls


async def test_a_request_is_one_call_where_all_keys_are_on_one_node(
    several: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    if several.local or several.is_apart:
        pytest.skip("no call, or several")
    short = several.bucket(capacity=1, refill_frequency=0.2)
    limits = all_of(short, several.bucket(), several.semaphore())
    calls = counted_calls(short, monkeypatch)
    await call(limits.release, await call(limits.acquire))
    assert calls == [limits.name] * 2
    await call(limits.acquire)
    assert calls == [limits.name] * 4


async def test_callers_that_ask_together_share_a_call(several: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    if several.local or several.is_apart or not several.asynchronous:
        pytest.skip("tasks ask together for certain")
    limits = all_of(several.bucket(capacity=100), several.bucket(capacity=100))
    calls = counted_calls(limits.limiters[0], monkeypatch)
    await asyncio.gather(*(limits.acquire() for _ in range(50)))
    assert len(calls) <= 3


async def test_a_server_that_forgot_the_script_is_given_it_again(several: Kind) -> None:
    limits = all_of(several.bucket(), several.semaphore())
    await call(limits.acquire)
    for admin in several.admins:
        admin.script_flush()
    assert await call(limits.try_acquire)


async def test_limits_of_a_group_lie_in_one_slot_and_are_no_others(several: Kind) -> None:
    if several.group is None:
        pytest.skip("no group")
    bucket = several.bucket()
    await call(all_of(bucket, several.semaphore(bucket.name)).acquire)
    alone = type(bucket)(bucket.name, connection=several.connection, refill_frequency=HOUR)
    assert await tokens_left(alone) == 5
    pattern = f"steindamm:{{together}}:{{{bucket.name}}}:*"
    keys = {key for admin in several.admins for key in admin.scan_iter(pattern)}
    assert f"{pattern[:-1]}bucket".encode() in keys
    assert len({admin.cluster("keyslot", key.decode()) for admin in several.admins[:1] for key in keys}) == 1


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_server_that_is_gone_is_said_to_be(way: str) -> None:
    kind = Kind(asynchronous=way == "async", connection="redis://:secret@127.0.0.1:1", admins=[])
    limits = all_of(kind.bucket("one"), kind.semaphore("two"))
    for method in (limits.acquire, limits.try_acquire, limits.reserve, limits.ask):
        with pytest.raises(LimiterUnavailableError, match="one \\+ two") as error:
            await call(method)
        assert "secret" not in str(error.value)


async def test_a_holder_s_slots_are_renewed(several: Kind) -> None:
    if several.local:
        pytest.skip("leases in memory have no end")
    at_once = several.semaphore(capacity=1, expiry=1.5)
    limits = all_of(at_once, several.bucket())
    permit = await call(limits.acquire)
    await asyncio.sleep(2.5)
    assert not permit.lost
    assert await call(at_once.try_acquire) is None


async def test_what_is_left_to_a_killed_holder_s_lease_comes_back(several: Kind) -> None:
    if several.local:
        pytest.skip("leases in memory have no end")
    at_once = several.semaphore(capacity=1, expiry=0.3)
    limits = all_of(at_once, several.bucket())
    permit = await call(limits.acquire)
    backend = at_once.backend
    (ticket,) = [each for each in permit.permits if each.name == at_once.name]
    backend.link.watch.remove(ticket)  # nobody renews it any more
    assert await call(all_of(at_once, several.bucket(), max_sleep=5).acquire)
    assert permit.lost
