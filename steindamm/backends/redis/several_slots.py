"""Several limits whose keys lie in several slots of a cluster, of which no script can see more than one.

Each slot is asked by its own script, all in the same order: first what it would say, then, if all would grant,
for what it has. Where one does not grant after all, what the others gave is given back. Tokens are not taken ahead
here: what one slot gives can't know when another one lets start.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from steindamm.backends.redis.all_of import AllOfWire, AsyncRedisAllOf, RedisAllOf, SyncRedisAllOf, come_again, wire_of
from steindamm.backends.redis.links import async_link, sync_link
from steindamm.backends.redis.servers import is_cluster
from steindamm.background import in_background
from steindamm.loops import EachLoop
from steindamm.rules.all_of import Decision, Look, Request, Verdict, What, may_keep, undoing
from steindamm.rules.semaphore import Stay
from steindamm.semaphore import Semaphore
from steindamm.sleepers import SECOND
from steindamm.tickets import Ticket

PAUSE = 0.01
"""Seconds, half of them at random, until one that was beaten to it asks again."""

Group: TypeAlias = "tuple[list[int], Any]"
"""Which of the limits lie in one slot, and what decides on requests to them."""


class SeveralSlots:
    """What is the same for threads and tasks: all that does not wait.

    Parameters:
        groups: The limits by slot, in the order in which all ask them.
        limiters: The limits.
    """

    def __init__(self, groups: Sequence[Group], limiters: Sequence[Any]) -> None:
        self._groups = groups
        self._limiters = limiters

    def _begin_with(self, looks: Sequence[Decision]) -> int:
        """The group with the longest wait: of those that refuse, else of those that are short, else the last."""
        ranks = [Look(look.verdict, look.wait).rank for look in looks]
        all_grant = all(look.verdict is Verdict.GRANTED for look in looks)
        return len(self._groups) - 1 if all_grant else ranks.index(max(ranks))

    def _order(self, first: int) -> Iterator[Group]:
        yield self._groups[first]
        yield from (group for index, group in enumerate(self._groups) if index != first)

    def _whole(self, request: Request, group: Group, decision: Decision) -> Decision:
        """A decision of one group as one of all."""
        given, changed = [0.0] * len(request.asks), [0.0] * len(request.asks)
        for index, own, at in zip(group[0], decision.given, decision.changed, strict=True):
            given[index], changed[index] = own, at
        return decision._replace(which=group[0][decision.which], given=tuple(given), changed=tuple(changed))

    def _granted(self, request: Request, taken: Sequence[tuple[Group, Decision]]) -> Decision:
        given = [self._whole(request, group, decision).given for group, decision in taken]
        return come_again(request)._replace(verdict=Verdict.GRANTED, given=tuple(map(max, zip(*given, strict=True))))

    def _held(self, request: Request) -> Iterator[tuple[int, Ticket]]:
        """The slots that the asker has been handed before, and still has."""
        for index, ask in enumerate(request.asks):
            if ask.asker is not None and ask.asker.fence and not ask.asker.gone:
                yield index, ask.asker

    def _keeps(self, request: Request, index: int, which: int) -> bool:
        slots = [limiter.settings.capacity if isinstance(limiter, Semaphore) else 0 for limiter in self._limiters]
        return may_keep(request, slots, index, which)


class SyncSeveralSlots(SeveralSlots):
    """Several slots asked by threads."""

    def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        taken: list[tuple[Group, Decision]] = []
        first = self._begin_with(self._looks(request))
        try:
            for group in self._order(first):
                decision = group[1].ask(part_of(request, group, patient=not taken))
                if decision.verdict is not Verdict.GRANTED:
                    return self._not_granted(request, group, decision, taken)
                taken.append((group, decision))
        except BaseException:
            self._undo(request, taken)
            raise
        return self._granted(request, taken)

    def _looks(self, request: Request) -> list[Decision]:
        """What all would say; the last one is not asked in vain."""
        looks: list[Decision] = []
        for group in self._groups:
            if group is self._groups[-1] and all(look.verdict is Verdict.GRANTED for look in looks):
                return looks
            looks.append(group[1].look(looking(request, group)))
        return looks

    def _not_granted(
        self, request: Request, group: Group, decision: Decision, taken: list[tuple[Group, Decision]]
    ) -> Decision:
        is_beaten = bool(taken)
        self._undo(request, taken)
        whole = come_again(request, beaten()) if is_beaten else self._whole(request, group, decision)
        given = list(whole.given)
        for index, ticket in self._held(request):
            if given[index]:
                continue
            if not is_beaten and self._keeps(request, index, whole.which):
                given[index] = ticket.fence
            else:
                self._limiters[index].backend.leave(ticket, used=False)
        return whole._replace(given=tuple(given))

    def give_back(self, request: Request) -> None:
        """Return what was given; the tickets stand nowhere any more."""
        for group in reversed(self._groups):
            group[1].give_back(giving(request, group))

    def _undo(self, request: Request, taken: list[tuple[Group, Decision]]) -> None:
        for group, decision in reversed(taken):
            group[1].give_back(undoing(part_of(request, group, patient=False), decision))
        taken.clear()


class AsyncSeveralSlots(SeveralSlots):
    """Several slots asked by the tasks of one event loop."""

    async def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        taken: list[tuple[Group, Decision]] = []
        first = self._begin_with(await self._looks(request))
        try:
            for group in self._order(first):
                decision = await group[1].ask(part_of(request, group, patient=not taken))
                if decision.verdict is not Verdict.GRANTED:
                    return await self._not_granted(request, group, decision, taken)
                taken.append((group, decision))
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                await asyncio.shield(in_background(self._undo(request, taken)))
            raise
        return self._granted(request, taken)

    async def _looks(self, request: Request) -> list[Decision]:
        """What all would say; the last one is not asked in vain."""
        looks: list[Decision] = []
        for group in self._groups:
            if group is self._groups[-1] and all(look.verdict is Verdict.GRANTED for look in looks):
                return looks
            looks.append(await group[1].look(looking(request, group)))
        return looks

    async def _not_granted(
        self, request: Request, group: Group, decision: Decision, taken: list[tuple[Group, Decision]]
    ) -> Decision:
        is_beaten = bool(taken)
        await self._undo(request, taken)
        whole = come_again(request, beaten()) if is_beaten else self._whole(request, group, decision)
        given = list(whole.given)
        for index, ticket in self._held(request):
            if given[index]:
                continue
            if not is_beaten and self._keeps(request, index, whole.which):
                given[index] = ticket.fence
            else:
                await self._limiters[index].backend.leave(ticket, used=False)
        return whole._replace(given=tuple(given))

    async def give_back(self, request: Request) -> None:
        """Return what was given; the tickets stand nowhere any more."""
        for group in reversed(self._groups):
            await group[1].give_back(giving(request, group))

    def abandon(self, request: Request) -> None:
        """The same, where nobody can await it."""
        for group in reversed(self._groups):
            group[1].abandon(giving(request, group))

    async def _undo(self, request: Request, taken: list[tuple[Group, Decision]]) -> None:
        for group, decision in reversed(taken):
            await group[1].give_back(undoing(part_of(request, group, patient=False), decision))
        taken.clear()


def part_of(request: Request, group: Group, *, patient: bool) -> Request:
    """What one group is asked; the first of them may book and wait for it, the others have it now or not."""
    own = request._replace(asks=tuple(request.asks[index] for index in group[0]), accept=0.0)
    return own if patient else own._replace(horizon=0.0, stay=Stay.NO)


def looking(request: Request, group: Group) -> Request:
    """What tells what one group would say."""
    return part_of(request, group, patient=True)._replace(what=What.LOOK)


def giving(request: Request, group: Group) -> Request:
    """What gives back what one group gave."""
    return request._replace(asks=tuple(request.asks[index] for index in group[0]))


def beaten() -> float:
    """Microseconds until one that was beaten to it asks again."""
    return PAUSE * random.uniform(0.5, 1.0) * SECOND  # noqa: S311


def by_slot(connection: Any, keys: Sequence[str | bytes]) -> list[list[int]]:
    """Which of the limits, told by a key of each, one script can see; in the order of the slots."""
    if not is_cluster(connection):
        return [list(range(len(keys)))]
    from redis.crc import key_slot  # noqa: PLC0415

    slots: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        slots.setdefault(key_slot(key if isinstance(key, bytes) else key.encode()), []).append(index)
    return [slots[slot] for slot in sorted(slots)]


def _groups(connection: Any, limiters: Sequence[Any]) -> list[list[int]]:
    return by_slot(connection, [wire_of(limiter.settings).keys[0] for limiter in limiters])


def _of_link(link: Any, kind: type[RedisAllOf], limiters: Sequence[Any]) -> Any:
    """The one that all who ask for the same limits share."""
    wire = AllOfWire([limiter.settings for limiter in limiters])
    known = link.limiters.get(wire.identity)
    if known is None:
        made = kind(link, wire, [limiter.backend for limiter in limiters])
        known = link.limiters.setdefault(wire.identity, made)
    return known


def sync_all_of(connection: Any, limiters: Sequence[Any]) -> SyncRedisAllOf | SyncSeveralSlots:
    """What decides on requests of threads to these limiters at once."""
    link = sync_link(connection)
    groups = _groups(connection, limiters)
    made = [_of_link(link, SyncRedisAllOf, [limiters[index] for index in group]) for group in groups]
    return made[0] if len(made) == 1 else SyncSeveralSlots(list(zip(groups, made, strict=True)), limiters)


def async_all_of(connection: Any, limiters: Sequence[Any]) -> EachLoop[AsyncRedisAllOf | AsyncSeveralSlots]:
    """What decides on requests of tasks to these limiters at once, on each loop."""
    groups = _groups(connection, limiters)

    def make() -> AsyncRedisAllOf | AsyncSeveralSlots:
        link = async_link(connection)
        made = [_of_link(link, AsyncRedisAllOf, [limiters[index] for index in group]) for group in groups]
        return made[0] if len(made) == 1 else AsyncSeveralSlots(list(zip(groups, made, strict=True)), limiters)

    return EachLoop(make)
