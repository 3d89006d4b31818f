"""A journal read as executions: who ran, where, from when to when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from chaos.journal import Event

NOTICED = 0.05
"""Seconds in which a holder sees at the latest that its lease is lost."""


class Execution(NamedTuple):
    """One run of a call, or of a job.

    Parameters:
        start: When it began.
        who: What ran.
        pid: Where.
        end: When it ended, in whatever way; where its process was stopped meanwhile, with the stop. None where nobody
            knows.
        how: ``end``; ``lost``, its lease; ``cut`` by the queue, which runs it again; ``killed``; or nothing.
    """

    start: float
    who: str
    pid: int
    end: float | None
    how: str

    @property
    def is_whole(self) -> bool:
        """Whether it ran to its end."""
        return self.how in {"end", "lost"}


class History:
    """What can be asked about a journal.

    Parameters:
        events: The journal's.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = sorted(events)
        self._of_process: dict[int, list[Event]] = defaultdict(list)
        for event in self.events:
            if event.what in {"killed", "ended", "stopped"}:
                self._of_process[event.pid].append(event)

    def of(self, *kinds: str, prefix: str = "") -> list[Event]:
        """The events of some kinds, about those whose names begin so."""
        return [event for event in self.events if event.what in kinds and event.who.startswith(prefix)]

    def when(self, what: str) -> float | None:
        """When something happened first."""
        return next((event.at for event in self.events if event.what == what), None)

    def death_of(self, pid: int) -> Event | None:
        """How and when a process was killed, or has ended by itself."""
        return next((event for event in self._of_process[pid] if event.what != "stopped"), None)

    def was_stopped(self, pid: int, before: float) -> bool:
        """Whether a process was stopped before some time."""
        return any(event.what == "stopped" and event.at < before for event in self._of_process[pid])

    def executions(self, prefix: str = "") -> list[Execution]:
        """All runs of those whose names begin so, in the order of their starts."""
        running: dict[tuple[str, int], Event] = {}
        runs = []
        for event in self.of("start", "end", "lost", "cut", prefix=prefix):
            key = event.who, event.pid
            if event.what == "start":
                running[key] = event
            elif begun := running.pop(key, None):
                runs.append(Execution(begun.at, event.who, event.pid, self._end_of(begun, event), event.what))
        return sorted([*runs, *map(self._without_end, running.values())])

    def _without_end(self, begun: Event) -> Execution:
        death = self.death_of(begun.pid)
        end, how = (None, "") if death is None else (death.at, "killed")
        return Execution(begun.at, begun.who, begun.pid, end, how)

    def _end_of(self, begun: Event, ended: Event) -> float:
        """When a run ended, as far as its lease goes: with the stop of its process, for it stood still beyond that.

        One that says that its lease is lost has noticed a little late, since it looks now and then.
        """
        stops = (event.at for event in self._of_process[ended.pid] if event.what == "stopped")
        noticed = max(begun.at, ended.at - NOTICED) if ended.what == "lost" else ended.at
        return next((at for at in stops if begun.at <= at <= ended.at), noticed)
