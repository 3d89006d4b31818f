"""Eager tasks with the limiters of `steindamm.testing`, as docs/testing.md shows it."""

from __future__ import annotations

import pytest
from celery import Celery

from steindamm import MaxSleepExceededError, SyncTokenBucket
from steindamm.integrations.celery import RateLimitedTask
from steindamm.testing import instant_limiters, strict_limiters

NOWHERE = "redis://127.0.0.1:1"

app = Celery("eager tests", task_cls=RateLimitedTask)
app.conf.task_always_eager = True
mail = SyncTokenBucket.from_rate("1/h", name="mail api", connection=NOWHERE)


@app.task(limiter=mail)
def send(to: int) -> int:
    return to


@app.task
def send_within(to: int) -> int:
    with mail:
        return to


def test_an_eager_task_asks_no_limiter() -> None:
    with strict_limiters() as limits:
        assert [send.delay(number).get() for number in range(3)] == [0, 1, 2]
    assert limits.taken == {}


def test_a_limiter_in_its_body_is_instant_or_strict_as_the_test_says() -> None:
    with instant_limiters() as limits:
        assert [send_within.delay(number).get() for number in range(3)] == [0, 1, 2]
    assert limits.taken == {"mail api": 3}
    with strict_limiters():
        assert send_within(1) == 1
        with pytest.raises(MaxSleepExceededError):
            send_within(2)
