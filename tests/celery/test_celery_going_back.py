"""Jobs that go back to their queue, since their turn is too far away to be held until then, or their body says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.celery_workers import PATIENCE, Farm

from steindamm import SyncTokenBucket

HOP = 0.5


@pytest.fixture(scope="module")
def hops(make_farm: Callable[..., Farm]) -> Iterator[Farm]:
    """A worker that holds no job for longer than half a second."""
    farm = make_farm(broker_transport_options={"visibility_timeout": 4 * HOP})
    farm.start(concurrency=2)
    yield farm
    assert farm.workers[0].is_alive


@pytest.fixture
def far(hops: Farm, label: str) -> list[Any]:
    """A limit whose next turn is so far away that a job which waits for it goes back to its queue."""
    limiter = SyncTokenBucket.from_rate("1/s", name=label, capacity=1, connection=hops.limits.url)
    for _ in range(2):
        limiter.reserve()
    return [label, "1/s", 1]


def test_a_task_that_refuses_a_second_job_with_the_same_arguments_lets_the_first_go_back(
    hops: Farm, far: list[Any], label: str
) -> None:
    """It goes back from the worker's main process, for its turn is far, and from a pool process, for its server is."""
    hops.send("send_only_once", far, label)
    assert len(hops.wait_for("end", label)) == 1
    assert hops.deliveries("only_once") > 2


def test_a_job_stays_part_of_its_senders_trace(hops: Farm, far: list[Any], label: str) -> None:
    """It goes back from the worker's main process, for its turn is far, and from a pool process, for it says so."""
    assert hops.send("show_trace", far, label, headers={"trace": "of sender"}).get(timeout=PATIENCE) == "of sender"
    assert hops.deliveries("show_trace") > 2


def test_a_job_with_wrong_arguments_fails_at_its_turn(hops: Farm, far: list[Any], label: str) -> None:
    with pytest.raises(TypeError, match="positional arguments"):
        hops.send("work", far, label, "return", 0, "too", "many").get(timeout=PATIENCE)


def test_a_job_that_has_no_way_back_fails(hops: Farm, far: list[Any]) -> None:
    """The broker is there, so there is no use in trying for ever."""
    with pytest.raises(LookupError, match="no such way"):
        hops.send("work", far, "no way back").get(timeout=PATIENCE)


def test_a_result_that_the_caller_asked_to_ignore_is_not_stored(hops: Farm, far: list[Any], label: str) -> None:
    deliveries = hops.deliveries("work")
    ignored = hops.send("work", far, label, ignore_result=True)
    hops.workers[0].wait_until_it_says(f"[{ignored.id}] succeeded")
    assert hops.deliveries("work") > deliveries + 1
    assert hops.app.AsyncResult(ignored.id).state == "PENDING"
