"""What the pool forgets of the jobs that it was given, as its consumer closes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from billiard import Process
from billiard.pool import ApplyResult

from steindamm.integrations.celery.on_its_way import known_on_its_way


class Job:
    """A job that the pool was given."""

    def __init__(self) -> None:
        self.releases = 0
        self.cache: dict[int, Any] = {}
        self.result = known_on_its_way(ApplyResult(self.cache, None), self.release)

    def release(self) -> None:
        self.releases += 1


@pytest.fixture
def process() -> Iterator[Any]:
    """A process that has begun and will not end by itself."""
    process = Process(target=time.sleep, args=(600,))
    process.start()
    yield process
    process.terminate()
    process.join()


def test_a_job_that_is_not_written_is_forgotten_and_gives_its_slot_back() -> None:
    job = Job()
    job.result.discard()
    assert (job.cache, job.releases) == ({}, 1)


def test_one_that_a_process_has_is_kept(process: Any) -> None:
    job = Job()
    job.result._write_to = process
    job.result.discard()
    assert (list(job.cache.values()), job.releases) == ([job.result], 0)


def test_one_whose_process_is_dead_is_forgotten(process: Any) -> None:
    job = Job()
    job.result._write_to = process
    process.terminate()
    process.join()
    job.result.discard()
    assert (job.cache, job.releases) == ({}, 1)


def test_what_other_pools_return_stays_what_it_is() -> None:
    other = object()
    assert known_on_its_way(other, Job().release) is other
    assert known_on_its_way(None, Job().release) is None
