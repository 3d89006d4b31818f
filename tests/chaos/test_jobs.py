"""Workers of each queue while something fails: the short form of ``make chaos``."""

from __future__ import annotations

import pytest

from chaos import jobs

SHORT = {"celery": "pool processes killed", "dramatiq": "worker killed", "arq": "limits' server: CLIENT KILL"}


@pytest.mark.parametrize("queue", list(SHORT))
def test_no_job_is_lost_or_doubled_and_none_starts_above_the_limit(queue: str) -> None:
    [row] = jobs.play(queue, [SHORT[queue]], starting=200, holding=100)
    assert row.calls == 300
    assert row.is_right, row
