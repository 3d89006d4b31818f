"""What is asked while a backend does not answer, in what threads and tasks share: whose permits these are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from steindamm.answers import Answer
from steindamm.errors import LimiterUnavailableError
from steindamm.outages import ALLOW, RAISE, known_outage, outage_of
from steindamm.permits import AsyncTokenPermit, Permit, SlotPermit, SyncTokenPermit, TokenPermit
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOfPermit
from steindamm.tickets import OPEN_FENCE, Ticket
from steindamm.visits import Visit

ASK = "ask"
"""What several limits do that have local limiters among their stand-ins."""


class SyncStandInPermit(SyncTokenPermit):
    """What a sync token bucket gives without its backend."""

    __slots__ = ()
    without_backend = True


class AsyncStandInPermit(AsyncTokenPermit):
    """What an async token bucket gives without its backend."""

    __slots__ = ()
    without_backend = True


class AllOfStandInPermit(AllOfPermit):
    """What several limits give without their backend.

    Attributes:
        given: The permit of those that have a local limiter; None where there is none.
    """

    __slots__ = ("_behind", "given")
    without_backend = True

    def __init__(self, name: str, permits: Sequence[Permit], given: AllOfPermit | None) -> None:
        super().__init__(name, permits, Visit(()))
        self.given = given
        self.waited = 0.0 if given is None else given.waited
        self._behind = tuple(_behind(permits, () if given is None else given.permits))

    def void(self) -> bool:
        """Nothing comes of any of them; a local limiter of one that was settled was used, and keeps its tokens."""
        for permit, local in self._behind:
            if not permit.void():
                local.void()
        return super().void()


def _behind(permits: Sequence[Permit], given: Sequence[Permit]) -> Iterator[tuple[TokenPermit, TokenPermit]]:
    """Which of the permits that local limiters gave stands behind which."""
    local = {each.name: each for each in given if isinstance(each, TokenPermit)}
    for permit in permits:
        if isinstance(permit, TokenPermit) and permit._limiter.name in local:
            yield permit, local[permit._limiter.name]


class Replaceable:
    """A limiter on Redis that may do without it, as it was told.

    Attributes:
        on_unavailable: What it does where Redis does not answer.
    """

    on_unavailable: Any
    name: str
    _backend: Any

    @property
    def _outage_key(self) -> Any:
        """What outages are remembered by, beyond the life of this object."""
        connection: Any = self.connection  # type: ignore[attr-defined]
        return type(self), self.settings.key, connection if isinstance(connection, str) else id(connection)  # type: ignore[attr-defined]

    @property
    def uses_without_backend(self) -> int:
        """How often this process did without Redis."""
        outage = known_outage(self._outage_key)
        return 0 if outage is None else outage.uses

    def _used_without(self) -> None:
        outage_of(self._outage_key, self.name).use()

    def _note(self, error: LimiterUnavailableError) -> None:
        """Redis does not answer."""
        instead = "all is let through" if self.on_unavailable == ALLOW else "a local limiter is asked"
        outage_of(self._outage_key, self.name).note(error, instead)


def affordable(limiter: Any, cost: float) -> float:
    """A cost above what a local limiter ever holds takes all that it holds."""
    return float(min(cost, limiter.settings.capacity))


def marked_slot(permit: SlotPermit) -> SlotPermit:
    """A slot that a local semaphore gave."""
    permit.without_backend = True
    return permit


def open_slot(name: str, job: str | None = None) -> Ticket:
    """A slot that nobody counts."""
    ticket = Ticket(name, job=job)
    ticket.without_backend = True
    ticket.take(OPEN_FENCE)
    return ticket


def marked_answer(answer: Answer, permit: Permit | None) -> Answer:
    """A stand-in's answer, with a permit in place of its own."""
    if answer.ticket is not None:
        marked_slot(answer.ticket)
    return answer._replace(permit=permit, without_backend=True)


class Nobody:
    """In place of a limiter whose cost can be settled."""

    name = ""

    @property
    def backend(self) -> Nobody:
        """What is asked to settle it."""
        return self

    def ask(self, _: Any) -> None:
        """There is nothing to be settled."""


class AsyncNobody:
    """The same for tasks."""

    name = ""

    @property
    def backend(self) -> AsyncNobody:
        """What is asked to settle it."""
        return self

    async def ask(self, _: Any) -> None:
        """There is nothing to be settled."""


def strictest(limiters: Sequence[Any]) -> str:
    """What several limits do where Redis does not answer: they raise, if one of them does; or let all through."""
    choices = [limiter.on_unavailable for limiter in limiters]
    if RAISE in choices:
        return RAISE
    return ALLOW if all(choice == ALLOW for choice in choices) else ASK


def local_limits(limiters: Sequence[Any]) -> list[Any]:
    """The local limiters that are asked instead of several limits, each once, with the cost of all that it is for."""
    local: dict[Hashable, Any] = {}
    costs: defaultdict[Hashable, float] = defaultdict(float)
    for limiter in limiters:
        other = limiter.on_unavailable
        if other != ALLOW:
            key = isinstance(other, Semaphore), other.settings.key
            local[key] = other
            costs[key] += getattr(limiter, "cost", 1.0)
    return [
        other if isinstance(other, Semaphore) else other(affordable(other, costs[key])) for key, other in local.items()
    ]


def permits_without(
    limiters: Sequence[Any], given: AllOfPermit | None, kind: type[TokenPermit], nobody: Any
) -> list[Permit]:
    """The permit of each of several limits, of which some were given by local limiters."""
    slots = {} if given is None else {each.name: each for each in given.permits if isinstance(each, Ticket)}
    waited = 0.0 if given is None else given.waited
    permits: list[Permit] = []
    for limiter in limiters:
        other = limiter.on_unavailable
        if not isinstance(limiter, Semaphore):
            permits.append(kind.of(limiter.name, limiter.cost, waited, nobody if other == ALLOW else other))
        else:
            permits.append(open_slot(limiter.name) if other == ALLOW else marked_slot(slots[other.name]))
    return permits
