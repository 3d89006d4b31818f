"""Tells monitors that a job which waits for its turn has not begun.

A monitor takes a state that it does not know for one that comes after all but the last two. So it would show a job that
has waited as waiting until it has ended, and one that was revoked, meanwhile or later, for ever.
"""

from __future__ import annotations

from celery import states

THROTTLED = "THROTTLED"
"""The state of a job whose last event is `task-throttled`."""


def rank_throttled() -> None:
    """Let it count as much as a start: each of the two may follow the other, and all that ends a job follows both."""
    states.PRECEDENCE_LOOKUP.setdefault(THROTTLED, states.PRECEDENCE_LOOKUP[states.STARTED])
