"""Reads the index of waiting jobs: the questions, and what the answers say."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

from steindamm.backends.redis.connection import checked_connection
from steindamm.backends.redis.links import AsyncLink, SyncLink, async_link, sync_link
from steindamm.backends.redis.scripts import Script, jobs_entry_script, jobs_find_script
from steindamm.backends.redis.waiting_jobs import GRACE, Line, job_key
from steindamm.backends.terms import MICROSECONDS
from steindamm.checks import printable

LONGEST_NAME = 1_000


class Entry(NamedTuple):
    """What is noted of a job.

    Parameters:
        limiter: The name of the limiter that it waits for.
        turn_in: Seconds until its turn, as it was told; None where it was not.
        line: Where it stands; None where it has no place.
    """

    limiter: str
    turn_in: float | None
    line: Line | None


def sync_link_of(connection: Any) -> SyncLink:
    """The way to a server."""
    checked_connection(connection, asynchronous=False)
    return sync_link(connection)


def async_link_of(connection: Any) -> AsyncLink:
    """The way to a server, for the running loop."""
    checked_connection(connection, asynchronous=True)
    return async_link(connection)


def question(job: str) -> tuple[str, Script, list[str], list[Any]]:
    """What is asked for a job's entry, in the words of a link."""
    return f"of job {printable(job, LONGEST_NAME)}", jobs_entry_script(), [job_key(job)], []


def question_at(line: Line, job: str) -> tuple[str, Script, tuple[str, str], list[Any], int]:
    """What is asked where the job stands."""
    return line.key, jobs_find_script(), line.keys, [line.kind, GRACE * MICROSECONDS, job], 2


def entry(reply: Any) -> Entry | None:
    """What the reply says; None where nothing is noted, or what makes no sense."""
    with suppress(ValueError, TypeError, KeyError):
        text, kept = reply
        noted = json.loads(text or "null")
        limiter, line = printable(noted["limiter"], LONGEST_NAME), noted["line"]
        turn_in = max(0.0, kept / 1000 - GRACE) if noted["is_told"] else None
        return Entry(limiter, turn_in, None if line is None else _line(*line))
    return None


def _line(kind: object, key: object) -> Line:
    if kind not in {"bucket", "semaphore"} or not isinstance(key, str) or not key.startswith("{"):
        raise ValueError("no line of ours")
    return Line(kind, key)
