"""What the sync and the async semaphore share: settings, and what a wait ends with."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

from steindamm.answers import Answer
from steindamm.by_connection import ByConnection
from steindamm.changing import Changing, signed
from steindamm.checks import checked_slots
from steindamm.clock import monotonic
from steindamm.entered import Blocks
from steindamm.errors import MaxSleepExceededError, wrong_kind
from steindamm.outages import RAISE, checked_on_unavailable
from steindamm.permits import SlotPermit
from steindamm.rules.changes import Change, Kind
from steindamm.rules.semaphore import Place, Standing
from steindamm.settings import SemaphoreSettings
from steindamm.sleepers import SECOND
from steindamm.tickets import Ticket

P = ParamSpec("P")
R = TypeVar("R")


class Semaphore(ByConnection, Changing):
    """The base of `SyncSemaphore` and `AsyncSemaphore`, which say how to use it."""

    _backend: Any
    _who: ClassVar[Callable[[], Hashable]]

    def __init__(
        self,
        name: str,
        *,
        capacity: int = 5,
        max_sleep: float = 30.0,
        expiry: float = 60,
        group: str | None = None,
        on_unavailable: Any = RAISE,
        connection: Any = None,
    ) -> None:
        self.settings = SemaphoreSettings(name, capacity, max_sleep, expiry, group)
        self._blocks: Blocks[SlotPermit] = Blocks(type(self)._who)
        self.on_unavailable = checked_on_unavailable(on_unavailable, self._stand_in_kind())
        self.connection = connection
        self._connect(connection)

    @classmethod
    def create(cls, name: str, **settings: Any) -> Self:
        """The same as calling the class."""
        return cls(name, **settings)

    def _connect(self, connection: Any) -> None:
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    def _stand_in_kind(self) -> type[Semaphore]:
        """What can be asked instead of it."""
        return Semaphore

    @property
    def uses_without_backend(self) -> int:
        """How often this process did without the backend, see `on_unavailable`; in memory never."""
        return 0

    def _ticket(self, wake: Callable[[], object] | None = None, job: str | None = None) -> Ticket:
        """One who may have to wait in line."""
        return Ticket(self.settings.name, wake, job)

    @property
    def name(self) -> str:
        """The name under which the limit is shared."""
        return self.settings.name

    @property
    def backend(self) -> Any:
        """What decides on its requests: on Redis one object for all limiters that share a line on a connection."""
        return self._backend

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """``@limiter``: a function that runs while it holds a slot."""
        if not callable(function):
            raise TypeError("a semaphore gives one slot at a time and takes no cost; it can decorate a function")
        return self._decorated(function)

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    def permit_of(self, answer: Answer) -> SlotPermit | None:
        """The permit of an answer, also of one that had to wait: from the moment at which it was woken; None before.

        Example:
            >>> from steindamm import SyncSemaphore
            >>> writers = SyncSemaphore(name="readme writers", capacity=1)
            >>> first, second = writers.ask(), writers.ask(wake=lambda: print("woken"))
            >>> writers.permit_of(second)
            >>> writers.give_back(first)
            woken
            >>> writers.release(writers.permit_of(second))
        """
        ticket = answer.ticket
        return ticket if ticket is not None and ticket.fence and not ticket.gone else None

    def _answer(self, ticket: Ticket, place: Place) -> Answer:
        """One who was woken meanwhile has been told, and is not told twice."""
        if place.standing is Standing.HOLDING and not ticket.woken:
            return Answer(0.0, permit=ticket, ticket=ticket)
        return Answer(place.wait / SECOND, turn=place.number, ticket=ticket)

    def _refusal(self, place: Place) -> MaxSleepExceededError:
        return MaxSleepExceededError(self.name, place.wait / SECOND, self.settings.max_sleep)

    def _patience(self, ticket: Ticket, place: Place) -> float | None:
        """Seconds that one who asks may still wait, none where it is closed for longer; None for ever."""
        if not self.settings.max_sleep:
            return None
        left = ticket.asked_at + self.settings.max_sleep - monotonic()
        return left if left > place.closed / SECOND else 0.0

    def _overriding(self, by: str | None, capacity: int) -> Change:
        slots = checked_slots("capacity", capacity)
        return Change(Kind.OVERRIDE, (slots,), signed(by, {"capacity": slots}))

    def _ticket_of(self, permit: SlotPermit) -> Ticket:
        if not isinstance(permit, Ticket):
            raise wrong_kind("permit", "what acquire returned", permit)
        if permit.name != self.name:
            raise ValueError(f"permit must be of the semaphore {self.name!r}, not of {permit.name!r}")
        return permit
