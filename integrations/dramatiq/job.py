"""One delivery of a job to a worker thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dramatiq import Actor, MessageProxy
from dramatiq.common import q_name

from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Start, release
from steindamm.integrations.dramatiq.gate import give_back
from steindamm.integrations.job_limits import Claim, JobLimit


@dataclass
class Job:
    """What is known of a job while its thread is busy with it.

    Parameters:
        message: The message as this worker holds it.
        actor: The actor whose function it runs.
        limit: The limit of all jobs of this actor.
        booking: What it carried.
        claim: What it asked for; None where it is not limited.
        start: What it was given.
        error: What to raise instead of running it.
        entered: Whether the function was called.
        bypassed: Whether it ran all the same, by another way than the actor's `fn`.
    """

    message: MessageProxy
    actor: Actor[..., Any]
    limit: JobLimit
    booking: Booking
    claim: Claim | None = None
    start: Start | None = None
    error: Exception | None = None
    entered: bool = False
    bypassed: bool = False

    def __post_init__(self) -> None:
        self._home = self.message.queue_name

    def begin(self) -> None:
        """It runs from now on, as a job of the queue that it was sent to, from wherever it came."""
        self._call_queue(q_name(self._home))

    def end(self) -> None:
        """Give back what it held, or was given for nothing; it is acknowledged where it came from."""
        if self.claim is not None and self.start is not None:
            if self.entered or self.bypassed:
                release(self.claim, self.start)
            else:
                give_back(self.claim, self.start.answer)
        self._call_queue(self._home)

    def _call_queue(self, name: str) -> None:
        if self.message.queue_name != name:
            self.message._message = self.message.copy(queue_name=name)
