"""Sends a job back to its queue as it is: the same id, arguments, callbacks, chords, headers and retries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import Celery, Task
from kombu.serialization import registry

from steindamm.integrations.bookings import HEADER, Booking
from steindamm.integrations.celery.confirming import confirmed_producer
from steindamm.integrations.celery.kept_headers import KeepingHeaders

VISIBILITY_TIMEOUT = 1_800.0
"""Seconds after which a broker that was told nothing else may deliver an unacknowledged message again: SQS and
RabbitMQ do after half an hour, Redis after an hour."""
LEAST_DELAY = 1.0
"""Seconds; Celery fails to send what RabbitMQ is to delay for less, and so a worker holds it for all of that time."""
DEATHS = ("x-death", "x-first-death-", "x-last-death-")
"""How headers begin in which RabbitMQ notes where it dead-lettered a message, which is how it delays one, too."""
SHARE = 4
"""A job waits for at most this part of that time in one go, so that it has the rest to run."""


def longest_hop(app: Celery) -> float:
    """Seconds that a job may be held, or delayed, in one go."""
    options = app.conf.broker_transport_options or {}
    return float(options.get("visibility_timeout") or VISIBILITY_TIMEOUT) / SHARE


def hand_back(
    task: Task,
    context: Any,
    booking: Booking,
    *,
    args: Any,
    kwargs: Any,
    countdown: float | None = None,
    content_type: str | None = None,
    **publishing: Any,
) -> None:
    """Publish a copy of a job that carries its booking; the original is acknowledged by the caller, after it.

    It goes past the task's `apply_async`, which may have its own mind about new jobs, and this is none: a task that
    refuses a job while there is one with the same arguments would refuse it.

    Parameters:
        task: The job's task.
        context: Its request, as the task sees it.
        booking: What it comes back with.
        args: Its arguments.
        kwargs: Its keyword arguments.
        countdown: Seconds until it is delivered; None for at once.
        content_type: How its arguments were written, where that is known.
        publishing: Further options of `Celery.send_task`.
    """
    own_parent = {"parent_id": context.parent_id}  # where a job runs, Celery takes it for the parent of what is sent
    kept = copied_headers(context)
    headers = {**kept, HEADER: booking.written(), **own_parent}
    if countdown is not None and countdown < LEAST_DELAY:
        headers["eta"], countdown = (task.app.now() + timedelta(seconds=countdown)).isoformat(), None
    options: dict[str, Any] = {**publishing, "headers": headers}
    if content_type in registry.type_to_name:
        options["serializer"] = registry.type_to_name[content_type]
    for shown in ("argsrepr", "kwargsrepr"):  # what the sender lets others see of the arguments
        if context.get(shown):
            options[shown] = context.get(shown)
    signature = task.signature_from_request(context, args, kwargs, countdown=countdown, **options)
    told = {"ignore_result": vars(context).get("ignore_result", task.ignore_result)}
    sending = {**task._get_exec_options(), **told, **signature.options}
    with confirmed_producer(task.app) as producer:
        sending |= {"task_type": task, "add_to_parent": False, "producer": KeepingHeaders(producer, kept)}
        task.app.send_task(task.name, signature.args, signature.kwargs, **sending)


def copied_headers(context: Any) -> dict[str, Any]:
    """The sender's headers of a job, for its copy; none where one that is named "headers" hides them.

    RabbitMQ drops a message, as a cycle, that it is told to have delayed before.
    """
    headers = context.headers if isinstance(context.headers, dict) else {}
    return {name: value for name, value in headers.items() if not name.startswith(DEATHS)}
