"""What can be seen of a limiter, in every kind; and that looking changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from support.bucket_and_clock import US, Bucket
from support.buckets import LIVE, STATE, call
from support.buckets import Kind as Buckets
from support.holder import Holder as HoldingProcess
from support.semaphores import Kind as Semaphores
from support.semaphores import fresh_name, keys_of
from support.servers import Server, valkey_binary
from support.several import Kind as Several

from steindamm import Adapt, LimiterUnavailableError, SyncSemaphore, SyncTokenBucket, all_of
from steindamm.backends.redis import semaphore as redis_semaphore
from steindamm.rules.bucket import copied
from steindamm.state import SemaphoreState, TokenBucketState, seen_bucket

HOUR = 3_600.0


class TestABucket:
    def seen(self, bucket: Bucket) -> TokenBucketState:
        return seen_bucket("seen", bucket.terms, copied(bucket.state), bucket.now, clock_ahead=0.0)

    def test_tells_its_tokens_and_when_the_next_one_comes(self) -> None:
        bucket = Bucket(capacity=5)
        assert (self.seen(bucket).tokens, self.seen(bucket).next_token_in) == (5, None)
        bucket.take(2)
        bucket.now = 0.25 * US
        assert (self.seen(bucket).tokens, self.seen(bucket).next_token_in) == (3, 0.75)
        bucket.now = 1.5 * US
        assert (self.seen(bucket).tokens, self.seen(bucket).next_token_in) == (4, 0.5)

    def test_tells_how_long_its_line_is_and_when_the_last_turn_comes(self) -> None:
        bucket = Bucket(capacity=1)
        assert (self.seen(bucket).line_length, self.seen(bucket).last_turn_in) == (0, 0)
        for _ in range(3):
            bucket.take()
        bucket.book()
        seen = self.seen(bucket)
        assert (seen.tokens, seen.line_length, seen.last_turn_in) == (0, 3, 3)

    def test_that_is_closed_tells_for_how_long_and_moves_the_turns(self) -> None:
        bucket = Bucket(capacity=1)
        bucket.take()
        bucket.take()
        bucket.close(10)
        bucket.now = 4 * US
        seen = self.seen(bucket)
        assert (seen.closed_for, seen.next_token_in, seen.last_turn_in) == (6, 7, 7)

    def test_that_adapts_tells_its_share(self) -> None:
        bucket = Bucket(capacity=1)
        bucket.back_off(0, recovery=100)
        assert self.seen(bucket).share == 0.5
        bucket.now = 20 * US
        assert self.seen(bucket).share == pytest.approx(0.7)
        bucket.now = 100 * US
        assert self.seen(bucket).share == 1

    def test_that_is_overridden_tells_the_settings_in_force(self) -> None:
        bucket = Bucket(capacity=10)
        bucket.override(capacity=4, amount=2, step=0.5 * US)
        seen = self.seen(bucket)
        assert (seen.capacity, seen.refill_amount, seen.refill_frequency, seen.tokens) == (4, 2, 0.5, 4)

    def test_that_is_a_spent_quota_never_has_a_next_one(self) -> None:
        bucket = Bucket(capacity=2, amount=0, step=0)
        bucket.take(2)
        bucket.settle(3)
        seen = self.seen(bucket)
        assert (seen.tokens, seen.next_token_in, seen.line_length, seen.last_turn_in) == (0, None, 3, None)

    async def test_that_nobody_has_used_is_full(self, buckets: Buckets) -> None:
        bucket = buckets(capacity=7, refill_amount=2, refill_frequency=3, initial_tokens=5)
        seen = await call(bucket.state)
        assert (seen.name, seen.capacity, seen.refill_amount, seen.refill_frequency) == (bucket.name, 7, 2, 3)
        assert (seen.tokens, seen.line_length, seen.closed_for, seen.share, seen.override) == (5, 0, 0, 1, None)
        assert dataclasses.astuple(seen.counters) == (0, 0, 0, 0)

    async def test_is_seen_alike_by_all_who_share_it(self, buckets: Buckets) -> None:
        bucket = buckets(capacity=10, refill_frequency=HOUR, max_sleep=0)
        await call(bucket(7).acquire)
        await call(bucket(5).reserve)
        await call(bucket.ask, horizon=10 * HOUR)
        await call(bucket.try_acquire)
        seen = await call(buckets(bucket.name, capacity=10, refill_frequency=HOUR, expiry=99).state)
        assert (seen.tokens, seen.line_length) == (0, 3)
        assert seen.last_turn_in == pytest.approx(3 * HOUR, rel=0.01)
        counters = seen.counters
        assert (counters.granted, counters.deferred, counters.refused) == (2, 1, 1)
        assert counters.waited == pytest.approx(5 * HOUR, rel=0.01)

    async def test_tells_who_overrides_what_and_since_when(self, buckets: Buckets) -> None:
        bucket = buckets(capacity=10)
        await call(bucket.override, capacity=4, by="on call: Zoë")
        override = (await call(bucket.state)).override
        assert (override.by, override.settings["capacity"]) == ("on call: Zoë", 4)
        assert abs(override.at - datetime.now(UTC)) < timedelta(minutes=1)
        await call(bucket.clear_override)
        assert (await call(bucket.state)).override is None

    async def test_that_backs_off_is_seen_to(self, buckets: Buckets) -> None:
        bucket = buckets(refill_frequency=0.1, adapt=Adapt(factor=0.25, recovery=HOUR))
        await call(bucket.back_off, 60)
        seen = await call(bucket.state)
        assert (seen.closed_for, seen.share) == (pytest.approx(60, abs=5), 0.25)

    async def test_is_as_it_was_after_it_was_looked_at(self, redis_buckets: Buckets) -> None:
        bucket = redis_buckets(refill_frequency=HOUR, expiry=1)
        await call(bucket.state)
        assert redis_buckets.keys(bucket.name) == {}
        await call(bucket.acquire)
        ((key, admin),) = redis_buckets.keys(bucket.name).items()
        before = admin.get(key), admin.pexpiretime(key)
        await call(bucket.state)
        assert (admin.get(key), admin.pexpiretime(key)) == before


async def waits(semaphore: Any, count: int) -> SemaphoreState:
    """Look until so many wait."""
    for _ in range(1_000):
        seen: SemaphoreState = await call(semaphore.state)
        if seen.waiters == count:
            return seen
        await asyncio.sleep(0.01)
    raise AssertionError("they do not wait")


class TestASemaphore:
    async def test_that_nobody_uses_is_free(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=3)
        seen = await call(semaphore.state)
        assert (seen.name, seen.capacity, seen.held, seen.holders, seen.waiters) == (semaphore.name, 3, 0, (), 0)
        assert (seen.closed_for, seen.override) == (0, None)

    async def test_tells_who_holds_its_slots_and_for_which_job(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=3)
        await call(semaphore.acquire)
        await asyncio.sleep(0.05)
        await call(semaphore.ask, job="job:of a queue/1 ✓")
        seen = await call(semaphore.state)
        assert seen.held == 2
        assert [holder.job_id for holder in seen.holders] == [None, "job:of a queue/1 ✓"]
        assert {(holder.host, holder.pid) for holder in seen.holders} == {(socket.gethostname(), os.getpid())}
        assert seen.holders[0].age > seen.holders[1].age >= 0

    async def test_tells_how_old_a_lease_is_that_was_renewed_and_its_number(self, redis_semaphores: Semaphores) -> None:
        semaphore = redis_semaphores(capacity=1, expiry=0.6)
        permit = await call(semaphore.acquire)
        assert (await call(semaphore.state)).holders[0].fence is None
        await asyncio.sleep(1)
        (holder,) = (await call(semaphore.state)).holders
        assert holder.fence == permit.fence
        assert 0.9 < holder.age < 20

    async def test_tells_it_at_once_in_memory(self) -> None:
        semaphore = SyncSemaphore(fresh_name())
        permit = semaphore.acquire()
        assert semaphore.state().holders[0].fence == permit.fence

    async def test_tells_how_old_one_is_that_was_just_handed_over(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=1)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await waits(semaphore, 1)
        await call(semaphore.release, permit)
        await waiting
        seen = await call(semaphore.state)
        assert (seen.held, seen.waiters) == (1, 0)
        assert seen.holders[0].age < 6

    async def test_tells_how_many_wait_here_and_in_queues(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=1, max_sleep=0)
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await call(semaphore.ask, slack=100)
        seen = await waits(semaphore, 2)
        assert (seen.counters.granted, seen.counters.deferred) == (1, 1)
        await call(semaphore.release, permit)
        await waiting

    async def test_names_a_process_that_was_killed_until_its_lease_ends(self, valkey: Server) -> None:
        semaphore = SyncSemaphore(fresh_name(), expiry=1.5, connection=valkey.url)
        with HoldingProcess(valkey.url) as process:
            process.acquires(semaphore.name, 1.5, 5)
            assert process.says() == "holds"
            process.process.kill()
            process.process.wait()
            seen = semaphore.state()
            assert [holder.pid for holder in seen.holders] == [process.process.pid]
        await asyncio.sleep(2)
        assert (semaphore.state().held, semaphore.state().holders) == (0, ())

    async def test_that_is_closed_and_overridden_is_seen_to_be(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=2)
        permits = [await call(semaphore.acquire) for _ in range(2)]
        await call(semaphore.close_for, 60)
        await call(semaphore.override, capacity=1)
        seen = await call(semaphores(semaphore.name, capacity=9).state)
        assert (seen.capacity, seen.held) == (1, 2)
        assert seen.closed_for == pytest.approx(60, abs=5)
        assert (seen.override.settings, seen.override.by.split("/")[1]) == ({"capacity": 1}, str(os.getpid()))
        assert abs(seen.override.at - datetime.now(UTC)) < timedelta(minutes=1)
        for permit in permits:
            await call(semaphore.release, permit)

    async def test_with_very_many_holders_lists_some_and_counts_all(
        self, semaphores: Semaphores, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_semaphore, "MOST_LISTED", 3)
        monkeypatch.setattr("steindamm.backends.memory.MOST_LISTED", 3)
        semaphore = semaphores(capacity=5)
        for _ in range(5):
            await call(semaphore.acquire)
        seen = await call(semaphore.state)
        assert (seen.held, len(seen.holders)) == (5, 3)

    async def test_is_as_it_was_after_it_was_looked_at(self, redis_semaphores: Semaphores) -> None:
        semaphore = redis_semaphores(capacity=1)
        await call(semaphore.state)
        assert redis_semaphores.keys(semaphore.name) == []
        await call(semaphore.acquire)
        await call(semaphore.ask)
        node = redis_semaphores.node(semaphore.name)
        keys = [key for key in keys_of(semaphore.name) if node.exists(key)]
        before = [(node.dump(key), node.pexpiretime(key)) for key in keys]
        await call(semaphore.state)
        assert [(node.dump(key), node.pexpiretime(key)) for key in keys] == before


class TestValuesFromStrangers:
    @pytest.mark.parametrize("job", ["", ":", "a:b:c", "{x}", "a\nb\x00\x1b[2J", "ü€\U0001f600", "\ud800", "x" * 5_000])
    async def test_in_a_jobs_id_break_nothing(self, semaphores: Semaphores, job: str) -> None:
        semaphore = semaphores()
        answer = await call(semaphore.ask, job=job)
        (holder,) = (await call(semaphore.state)).holders
        assert len(holder.job_id or "") <= 100
        assert (holder.job_id or "x").isprintable()
        await call(semaphore.give_back, answer)
        assert (await call(semaphore.state)).held == 0

    @pytest.mark.parametrize("member", [b"", b"\xff\xfe", b":::", b"a/b/c/d:x:\xff", b"a/" + b"9" * 5_000])
    async def test_among_the_holders_are_shown_as_they_can_be(
        self, redis_semaphores: Semaphores, member: bytes
    ) -> None:
        semaphore = redis_semaphores()
        permit = await call(semaphore.acquire)
        node = redis_semaphores.node(semaphore.name)
        node.zadd(keys_of(semaphore.name)[1], {member: 9e15})
        assert (await call(semaphore.state)).held == 2
        node.zrem(keys_of(semaphore.name)[1], member)
        await call(semaphore.release, permit)

    @pytest.mark.parametrize(
        "garbage",
        [b"x", b"\xff" * 56, b"\xff" * 128, b"\x00" * 200, b"\x7f\xf0" * 100, b"", b"\x01" * 300],
    )
    async def test_in_a_state_are_an_error_at_the_most(
        self, redis_buckets: Buckets, redis_semaphores: Semaphores, garbage: bytes
    ) -> None:
        bucket, semaphore = redis_buckets(), redis_semaphores()
        for admin in redis_buckets.admins:
            for key in (f"steindamm:{{{bucket.name}}}:bucket", keys_of(semaphore.name)[0]):
                with suppress(redis.ResponseError):
                    admin.set(key, garbage, ex=5)
        for limiter in (bucket, semaphore):
            with suppress(LimiterUnavailableError):
                await call(limiter.state)

    async def test_in_a_state_that_was_cut_off_are_an_error_that_names_the_limiter(
        self, redis_buckets: Buckets, redis_semaphores: Semaphores
    ) -> None:
        bucket, semaphore = redis_buckets(), redis_semaphores()
        for kind, limiter, kept in ((redis_buckets, bucket, 100), (redis_semaphores, semaphore, 140)):
            await call(limiter.override, capacity=2)
            for admin in kind.admins:
                for key in admin.scan_iter(f"steindamm:{{{limiter.name}}}:*"):
                    with suppress(redis.ResponseError):
                        admin.set(key, admin.getrange(key, 0, kept - 1), ex=5)
            with pytest.raises(LimiterUnavailableError, match="malformed state") as error:
                await call(limiter.state)
            assert error.value.name == limiter.name

    @pytest.mark.parametrize("note", [b"", b"\xff", b"[1]", b'{"by": {"x": 1}}', b'{"settings": 5}', b"x" * 1_000])
    async def test_in_place_of_who_overrides_are_left_out(self, valkey: Server, note: bytes) -> None:
        bucket = SyncTokenBucket(fresh_name(), connection=valkey.url)
        bucket.override(capacity=2, by="me")
        key = f"steindamm:{{{bucket.name}}}:bucket"
        valkey.admin.set(key, (valkey.admin.get(key) or b"")[: STATE.size + LIVE.size] + note, ex=5)
        override: Any = bucket.state().override
        assert isinstance(override.settings, dict)
        assert isinstance(override.by, str)


@pytest.mark.parametrize("told", [{}, {"decode_responses": True}, {"decode_responses": True, "protocol": 3}])
async def test_a_client_may_decode_what_it_reads(valkey: Server, told: dict[str, Any]) -> None:
    client = redis.Redis.from_url(valkey.url, **told)
    semaphore, bucket = SyncSemaphore(fresh_name(), connection=client), SyncTokenBucket(fresh_name(), connection=client)
    bucket.override(capacity=2, by="ü")
    with semaphore, bucket:
        assert semaphore.state().held == 1
        assert bucket.state().tokens == 1
    client.close()


async def test_several_limits_are_seen_one_by_one(several: Several) -> None:
    bucket, semaphore = several.bucket(capacity=4), several.semaphore(capacity=2)
    both = all_of((bucket, 3), semaphore)
    permit = await call(both.acquire)
    seen = {state.name: state for state in await call(both.state)}
    assert (seen[bucket.name].tokens, seen[semaphore.name].held) == (1, 1)
    await call(both.release, permit)
    answer = await call(both.ask, job="job 7")
    assert answer.permit is None or [holder.job_id for holder in (await call(semaphore.state)).holders] == ["job 7"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_server_that_is_gone_is_an_error(tmp_path: Path, *, asynchronous: bool) -> None:
    with Server(valkey_binary(), tmp_path) as server:
        url = f"{server.url}?socket_timeout=1"
        bucket, semaphore = Buckets(asynchronous, url, [])(), Semaphores(asynchronous, url, [])()
        server.kill()
        for limiter in (bucket, semaphore):
            for ask, *args in ((limiter.state,), (limiter.close_for, 60)):
                with pytest.raises(LimiterUnavailableError) as error:
                    await call(ask, *args)
                assert error.value.name == limiter.name


def test_what_is_seen_can_not_be_changed() -> None:
    seen = SyncTokenBucket(fresh_name()).state()
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.tokens = 5  # type: ignore[misc]
