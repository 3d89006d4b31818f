"""A permit on its way from a worker's main process to a pool process."""

from __future__ import annotations

import pickle
import uuid
from typing import Any

import pytest
from support.servers import Server

from steindamm import AlreadySettledError, SyncSemaphore, SyncTokenBucket, all_of
from steindamm.integrations.bookings import Booking
from steindamm.integrations.celery.passing import Passing


def travelled(permit: Any, limiter: Any) -> Any:
    passing = pickle.loads(pickle.dumps(Passing(Booking(), permit=permit)))
    again: Passing = pickle.loads(pickle.dumps(passing))
    return again.permit_at(limiter)


@pytest.fixture
def bucket(valkey: Server) -> SyncTokenBucket:
    name = f"travelling {uuid.uuid4().hex}"
    return SyncTokenBucket(name, capacity=1_000, refill_frequency=3_600, connection=valkey.url)


def test_a_bucket_s_permit_is_settled_where_it_arrives(bucket: SyncTokenBucket) -> None:
    permit = travelled(bucket(500).acquire(), bucket)
    assert (permit.name, permit.cost) == (bucket.name, 500)
    permit.settle(900)
    with pytest.raises(AlreadySettledError):
        permit.settle(900)
    assert bucket.state().tokens == pytest.approx(100, abs=1)


@pytest.mark.parametrize("several", [False, True], ids=["one limit", "several"])
def test_what_cost_nothing_is_settled_as_well(bucket: SyncTokenBucket, several: bool) -> None:
    limiter = all_of(bucket(0)) if several else bucket(0)
    permit = travelled(limiter.acquire(), limiter)
    (of_bucket,) = permit.permits if several else (permit,)
    of_bucket.settle(100)
    assert bucket.state().tokens == pytest.approx(900, abs=1)


def test_of_several_limits_each_has_its_own(bucket: SyncTokenBucket, valkey: Server) -> None:
    slots = SyncSemaphore(f"{bucket.name} slots", connection=valkey.url)
    both = all_of(slots, (bucket, 500))
    got = both.acquire()
    permit = travelled(got, both)
    by_name = {part.name: part for part in permit.permits}
    assert by_name[slots.name].fence == {part.name: part for part in got.permits}[slots.name].fence > 0
    by_name[bucket.name].settle(100)
    assert bucket.state().tokens == pytest.approx(900, abs=1)
    both.release(permit)
    assert len(slots.state().holders) == 1, "its slot is the main process's to give back"
    both.release(got)
    assert slots.state().holders == ()


def test_what_was_given_without_the_server_is_settled_with_nobody() -> None:
    gone: dict[str, Any] = {"connection": "redis://127.0.0.1:1", "on_unavailable": "allow"}
    bucket, slots = SyncTokenBucket("gone", **gone), SyncSemaphore("gone slots", **gone)
    permit = travelled(bucket.acquire(), bucket)
    assert permit.without_backend
    permit.settle(3)
    both = all_of(bucket, slots)
    several = travelled(both.acquire(), both)
    assert [part.without_backend for part in several.permits] == [True, True]


def test_a_permit_is_few_bytes(bucket: SyncTokenBucket) -> None:
    without, with_permit = (len(pickle.dumps(Passing(Booking(), permit=permit))) for permit in (None, bucket.acquire()))
    assert with_permit - without < 40


def test_a_function_that_tells_other_limits_each_time_loses_the_permit(bucket: SyncTokenBucket) -> None:
    with pytest.raises(LookupError, match="the permit is lost"):
        travelled(bucket.acquire(), all_of(bucket, SyncTokenBucket("another", connection=bucket.connection)))
