"""Where a job is that waits: `where_is`, for people. Nothing decides by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steindamm.errors import wrong_kind

SECOND = 1e6
LOOKS = 2
"""Times that a job is looked for which is no longer where its note says: it has moved on to another line meanwhile."""
Entry = tuple[str, bool, Any]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a job is that waits.

    Example:
        >>> from steindamm import Whereabouts
        >>> found = Whereabouts(job_id="4711", limiter="mail api", turn_in=12.3, place=21)
        >>> f"{found.job_id} waits for {found.limiter!r}, behind {found.place - 1} others"
        "4711 waits for 'mail api', behind 20 others"

    Parameters:
        job_id: The job.
        limiter: The name of the limiter that it waits for.
        turn_in: Seconds until its turn; 0 where that has come, and it waits for a worker; None where nobody can tell.
        place: Its place among the jobs that wait for the limiter, 1 for the next; None where nobody can tell.
    """

    job_id: str
    limiter: str
    turn_in: float | None
    place: int | None


def where_is(job_id: str, *, connection: Any) -> Whereabouts | None:
    """Where a job is that waits for its turn in Celery, Dramatiq or arq; None for one that does not, or is unknown.

    Workers note a job in the limiter's Redis half a second after they defer it, together with others. The note ends
    with the job's turn, or a minute later.

    Example:
        >>> from steindamm import where_is
        >>> where_is("4711", connection="redis://localhost")  # doctest: +SKIP
        Whereabouts(job_id='4711', limiter='mail api', turn_in=12.3, place=21)

    Parameters:
        job_id: A task id of Celery, a message id of Dramatiq, a job id of arq.
        connection: That of the job's limiter: a sync redis-py client, or a URL.

    Raises:
        LimiterUnavailableError: Redis did not answer.
        TypeError, ValueError: An argument is of the wrong kind, or no URL.
    """
    from steindamm.backends.redis import finding_jobs  # noqa: PLC0415

    link = finding_jobs.sync_link_of(connection)
    question = finding_jobs.question(checked_job(job_id))
    for _ in range(LOOKS):
        noted = finding_jobs.entry(link.ask(*question))
        if noted is None or noted.line is None:
            return noted and Whereabouts(job_id, noted.limiter, noted.turn_in, None)
        wait, place, *_ = link.run(*finding_jobs.question_at(noted.line, job_id))
        if place > 0:
            return Whereabouts(job_id, noted.limiter, wait / SECOND, place)
    return None


async def where_is_async(job_id: str, *, connection: Any) -> Whereabouts | None:
    """The twin of `where_is`, for tasks.

    Example:
        >>> import asyncio
        >>> from steindamm import where_is_async
        >>> asyncio.run(where_is_async("4711", connection="redis://localhost"))  # doctest: +SKIP
        Whereabouts(job_id='4711', limiter='mail api', turn_in=12.3, place=21)

    Parameters:
        job_id: A task id of Celery, a message id of Dramatiq, a job id of arq.
        connection: That of the job's limiter: an async redis-py client, or a URL.

    Raises:
        LimiterUnavailableError: Redis did not answer.
        TypeError, ValueError: An argument is of the wrong kind, or no URL.
    """
    from steindamm.backends.redis import finding_jobs  # noqa: PLC0415

    link = finding_jobs.async_link_of(connection)
    question = finding_jobs.question(checked_job(job_id))
    for _ in range(LOOKS):
        noted = finding_jobs.entry(await link.ask(*question))
        if noted is None or noted.line is None:
            return noted and Whereabouts(job_id, noted.limiter, noted.turn_in, None)
        wait, place, *_ = await link.run(*finding_jobs.question_at(noted.line, job_id))
        if place > 0:
            return Whereabouts(job_id, noted.limiter, wait / SECOND, place)
    return None


def checked_job(job_id: object) -> str:
    """A job's id."""
    if not isinstance(job_id, str):
        raise wrong_kind("job_id", "a string", job_id)
    return job_id
