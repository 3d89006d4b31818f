"""People can ask where a job waits: at which limiter, until when, in which place."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from support.servers import Cluster, Server

from steindamm import (
    AsyncTokenBucket,
    LimiterUnavailableError,
    SyncSemaphore,
    SyncTokenBucket,
    Whereabouts,
    all_of,
    where_is,
    where_is_async,
)
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Defer, Start, Unavailable, adecide, decide
from steindamm.integrations.job_limits import ASYNC, Claim, JobLimit
from steindamm.integrations.waiting import note_end, note_wait

PATIENCE = 5.0


@pytest.fixture
def name() -> str:
    return f"limiter {uuid.uuid4().hex[:12]}"


def eventually(found: Callable[[], Any], wanted: Callable[[Any], bool] = bool) -> Any:
    """What is found when it is as it is wanted."""
    end = time.monotonic() + PATIENCE
    while not wanted(here := found()):
        assert time.monotonic() < end, f"it stayed {here!r}"
        time.sleep(0.02)
    return here


def defer(limiter: Any, job_id: str, booking: Booking = Booking()) -> Booking:  # noqa: B008
    """A worker defers a job."""
    claim = Claim(limiter, job_id=job_id)
    decision = decide(JobLimit(limiter), claim, booking, accept=0.0)
    assert isinstance(decision, Defer)
    note_wait(claim, decision.booking, decision)
    return decision.booking


def at(found: Whereabouts | None) -> tuple[str, float, int]:
    """The limiter, tens of seconds, and the place."""
    assert found is not None
    assert found.turn_in is not None
    assert found.place is not None
    return found.limiter, round(found.turn_in, -1), found.place


def wait_for(url: str, job_id: str) -> Whereabouts:
    found: Whereabouts = eventually(lambda: where_is(job_id, connection=url))
    return found


def slow_bucket(name: str, url: str, **settings: Any) -> SyncTokenBucket:
    """One each 10 s, and none now."""
    bucket = SyncTokenBucket(name, capacity=1, refill_frequency=10, connection=url, **settings)
    bucket.acquire()
    return bucket


def test_jobs_that_wait_for_a_bucket_are_found_with_turn_and_place(valkey: Server, name: str) -> None:
    bucket = slow_bucket(name, valkey.url)
    for number in range(3):
        defer(bucket, f"{name} {number}")
    assert [at(wait_for(valkey.url, f"{name} {number}")) for number in range(3)] == [
        (name, 10, 1), (name, 20, 2), (name, 30, 3),
    ]  # fmt: skip


def test_a_turn_that_moves_is_told_where_it_is_now(valkey: Server, name: str) -> None:
    bucket = slow_bucket(name, valkey.url)
    defer(bucket, name)
    wait_for(valkey.url, name)
    bucket.close_for(1_000)
    assert at(where_is(name, connection=valkey.url)) == (name, 1_010, 1)
    bucket.reopen()
    assert at(where_is(name, connection=valkey.url)) == (name, 10, 1)
    bucket.override(refill_frequency=100)
    found = where_is(name, connection=valkey.url)
    assert found is not None
    assert 50 < (found.turn_in or 0) <= 100


def test_a_job_that_starts_is_gone_and_the_others_move_up(valkey: Server, name: str) -> None:
    bucket = slow_bucket(name, valkey.url)
    bookings = [defer(bucket, f"{name} {number}") for number in range(3)]
    wait_for(valkey.url, f"{name} 2")
    note_end(Claim(bucket, job_id=f"{name} 0"), bookings[0])
    eventually(lambda: where_is(f"{name} 0", connection=valkey.url) is None)
    assert at(where_is(f"{name} 2", connection=valkey.url)) == (name, 30, 2)


def test_a_job_that_never_waited_leaves_no_note(valkey: Server, name: str) -> None:
    bucket = SyncTokenBucket(name, capacity=1, connection=valkey.url)
    claim = Claim(bucket, job_id=name)
    assert isinstance(decide(JobLimit(bucket), claim, Booking(), accept=0.0), Start)
    note_end(claim, Booking())
    assert where_is(name, connection=valkey.url) is None
    assert where_is("another", connection=valkey.url) is None


def test_at_a_semaphore_it_is_the_expected_wait(valkey: Server, name: str) -> None:
    slots = SyncSemaphore(name, capacity=1, connection=valkey.url)
    with slots:
        for number in range(2):
            defer(slots, f"{name} {number}")
        found = [wait_for(valkey.url, f"{name} {number}") for number in range(2)]
    assert [here.limiter for here in found] == [name, name]
    assert sorted(here.place or 0 for here in found) == [1, 2]


def test_of_several_limits_it_is_the_one_that_it_waits_for(valkey: Server, name: str) -> None:
    own, common = slow_bucket(f"{name} own", valkey.url), SyncTokenBucket(f"{name} all", connection=valkey.url)
    slots = SyncSemaphore(f"{name} slots", connection=valkey.url)
    booking = defer(all_of(own, (common, 0), slots), name)
    assert at(wait_for(valkey.url, name)) == (own.name, 10, 1)
    own.override(refill_frequency=0.001)
    common.acquire()
    held = [slots.acquire() for _ in range(5)]
    defer(all_of(own, common, slots), name, booking._replace(turn=None))
    eventually(lambda: where_is(name, connection=valkey.url), lambda here: here.limiter == slots.name)
    assert valkey.admin.zscore(f"steindamm:{{{own.name}}}:bucket:jobs", name) is None
    for permit in held:
        slots.release(permit)


def test_a_bucket_and_a_semaphore_of_one_name_have_lines_of_their_own(valkey: Server, name: str) -> None:
    bucket, slots = slow_bucket(name, valkey.url), SyncSemaphore(name, capacity=1, connection=valkey.url)
    with slots:
        defer(slots, f"{name} slot")
        defer(bucket, f"{name} token")
        assert at(wait_for(valkey.url, f"{name} token")) == (name, 10, 1)
        assert wait_for(valkey.url, f"{name} slot").place == 1


def test_a_job_that_was_told_no_turn_has_no_place(valkey: Server, name: str) -> None:
    bucket = SyncTokenBucket(name, connection=valkey.url)
    note_wait(Claim(bucket, job_id=f"{name} 1"), Booking(name))
    note_wait(Claim(bucket, job_id=f"{name} 2"), Booking("its own"), Defer(20.0, Booking("its own")))
    assert wait_for(valkey.url, f"{name} 1") == Whereabouts(f"{name} 1", name, None, None)
    found = wait_for(valkey.url, f"{name} 2")
    assert (found.limiter, round(found.turn_in or 0, -1), found.place) == ("its own", 20, None)


@pytest.mark.parametrize("server", ["valkey", "cluster"])
async def test_async_workers_note_and_people_ask_in_tasks(
    request: pytest.FixtureRequest, server: str, name: str
) -> None:
    url = request.getfixturevalue(server).url
    bucket = AsyncTokenBucket(name, capacity=1, refill_frequency=10, connection=url)
    await bucket.acquire()
    claim = Claim(bucket, job_id=name)
    decision = await adecide(JobLimit(bucket, kinds=ASYNC), claim, Booking(), accept=0.0)
    assert isinstance(decision, Defer)
    note_wait(claim, decision.booking, decision)
    end = time.monotonic() + PATIENCE
    while (found := await where_is_async(name, connection=url)) is None:
        assert time.monotonic() < end
        await AsyncTokenBucket("pause", capacity=1, refill_frequency=0.02).acquire()
    assert at(found) == (name, 10, 1)


@pytest.mark.parametrize("group", [None, "a group"])
def test_on_a_cluster_too(cluster: Cluster, name: str, group: str | None) -> None:
    url = cluster.url
    bucket = slow_bucket(name, url, group=group and f"{group} {name}")
    for number in range(5):
        defer(bucket, f"{name} {number}")
    assert at(wait_for(url, f"{name} 4")) == (name, 50, 5)


def test_what_is_noted_ends_with_its_turn(valkey: Server, name: str) -> None:
    bucket = slow_bucket(name, valkey.url)
    defer(bucket, name)
    wait_for(valkey.url, name)
    for key in (f"steindamm:waiting:{name}", f"steindamm:{{{name}}}:bucket:jobs"):
        assert 10 < valkey.admin.ttl(key) <= 71


def test_jobs_that_never_came_back_for_their_turn_hold_no_place(valkey: Server, name: str) -> None:
    bucket = slow_bucket(name, valkey.url)
    line = f"steindamm:{{{name}}}:bucket:jobs"
    seconds, _ = valkey.admin.time()
    valkey.admin.zadd(line, {"lost": (seconds - 100) * 1e6})
    defer(bucket, name)
    assert at(wait_for(valkey.url, name)) == (name, 10, 1)
    assert valkey.admin.zcard(line) == 1


def test_jobs_of_limiters_in_memory_are_not_noted(name: str) -> None:
    bucket = SyncTokenBucket(name, capacity=1, refill_frequency=10)
    bucket.acquire()
    defer(bucket, name)


def test_a_server_that_is_away_fails_no_job_and_is_told_to_who_asks(name: str) -> None:
    gone = "redis://127.0.0.1:1"
    bucket = SyncTokenBucket(name, connection=gone)
    note_wait(Claim(bucket, job_id=name), Booking(name), Defer(1.0, Booking(name)))
    note_wait(Claim(bucket, job_id=name), Booking(name), Unavailable(1.0, Booking(name)))
    with pytest.raises(LimiterUnavailableError):
        where_is(name, connection=gone)


@pytest.mark.parametrize(
    "garbage",
    ["", "[]", "x", "1", '{"limiter": 1}', '{"limiter": "a", "is_told": true, "line": ["bucket", "no key"]}',
     '{"limiter": "a", "is_told": true, "line": ["other", "{a}"]}', '{"limiter": "a", "is_told": true, "line": 7}'],
)  # fmt: skip
def test_what_strangers_have_written_is_nothing(valkey: Server, name: str, garbage: str) -> None:
    valkey.admin.set(f"steindamm:waiting:{name}", garbage, ex=60)
    assert where_is(name, connection=valkey.url) is None


@pytest.mark.parametrize(("kind", "key"), [("bucket", "elsewhere"), ("other", "{elsewhere}"), ("bucket", 7)])
def test_no_entry_leads_to_keys_that_are_no_limiters_line(valkey: Server, name: str, kind: str, key: Any) -> None:
    seconds, _ = valkey.admin.time()
    line = f"steindamm:{key}:{kind}:jobs"
    valkey.admin.zadd(line, {name: (seconds + 50) * 1e6})
    valkey.admin.expire(line, 60)
    entry = {"limiter": name, "is_told": True, "line": [kind, key]}
    valkey.admin.set(f"steindamm:waiting:{name}", json.dumps(entry), ex=60)
    assert where_is(name, connection=valkey.url) is None


def test_a_job_whose_turn_is_over_waits_no_more_time(valkey: Server, name: str) -> None:
    entry = {"limiter": name, "is_told": True, "line": None}
    valkey.admin.set(f"steindamm:waiting:{name}", json.dumps(entry), ex=5)
    assert where_is(name, connection=valkey.url) == Whereabouts(name, name, 0.0, None)


def test_a_job_that_stands_nowhere_is_not_found(valkey: Server, name: str) -> None:
    entry = {"limiter": name, "is_told": True, "line": ["bucket", f"{{{name}}}"]}
    valkey.admin.set(f"steindamm:waiting:{name}", json.dumps(entry), ex=60)
    assert where_is(name, connection=valkey.url) is None


class Meanwhile(redis.Redis):
    """A client between whose first two questions something happens."""

    happens: Callable[[], Any] | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        reply = super().execute_command(*args, **options)
        happens, self.happens = self.happens, None
        if happens:
            happens()
        return reply


def test_a_job_that_moves_on_while_it_is_looked_for_is_found_where_it_is_then(valkey: Server, name: str) -> None:
    first, second = slow_bucket(f"{name} first", valkey.url), slow_bucket(f"{name} second", valkey.url)
    for _ in range(3):
        second.reserve()
    booking = defer(first, name)
    wait_for(valkey.url, name)

    def move_on() -> None:
        defer(all_of(first, second), name, booking._replace(turn=None))
        eventually(lambda: where_is(name, connection=valkey.url), lambda here: here and here.limiter == second.name)

    with Meanwhile.from_url(valkey.url) as client:
        client.happens = move_on
        assert where_is(name, connection=client).limiter == second.name


def test_a_client_that_decodes_does_as_well(valkey: Server, name: str) -> None:
    bucket = slow_bucket(name, valkey.url)
    defer(bucket, name)
    wait_for(valkey.url, name)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        assert at(where_is(name, connection=client)) == (name, 10, 1)


def test_ids_are_strings(valkey: Server) -> None:
    with pytest.raises(TypeError, match="job_id must be a string"):
        where_is(7, connection=valkey.url)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="connection must be"):
        where_is("7", connection=7)


async def test_threads_ask_with_sync_clients_and_tasks_with_async_ones() -> None:
    with pytest.raises(TypeError, match="a sync redis-py client"):
        where_is("7", connection=redis.asyncio.Redis())
    with pytest.raises(TypeError, match="an async redis-py client"):
        await where_is_async("7", connection=redis.Redis())
