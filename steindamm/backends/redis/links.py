"""One link a client: runs scripts, and speaks of failures in our own words.

What may go wrong on the way is left to redis-py's retries; what is left after them is a
`LimiterUnavailableError`. Two things are mended here: a server that forgot the scripts is given them
again, and a caller that finds the client's pool empty waits for a connection. A client that the caller gave
has twins on other event loops and in forked children; clients that steindamm makes itself, it closes when
their event loop ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet, WeakValueDictionary

from steindamm.backends.redis.connection import async_client, sentinels_of, sync_client, twin_of
from steindamm.backends.redis.hearing import AsyncHearing, SyncHearing
from steindamm.backends.redis.kept_connection import AsyncKeptConnection, SyncKeptConnection
from steindamm.backends.redis.raised import (
    async_failures,
    failures,
    is_pool_empty,
    of_redis,
    unavailable,
    was_closed_meanwhile,
)
from steindamm.backends.redis.scripts import Script
from steindamm.backends.redis.waiting_jobs import AsyncNotes, SyncNotes
from steindamm.backends.redis.watch import AsyncWatch, SyncWatch
from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError
from steindamm.loops import EachLoop

if TYPE_CHECKING:
    from steindamm.backends.redis.connection import AsyncClient, SyncClient

logger = logging.getLogger("steindamm")
MANY = 100
"""Clients of which it is told that there are many; each has connections of its own."""
POOL_WAIT = 5.0
"""Seconds to wait for a connection of a pool that is empty."""
POOL_PAUSE = 0.002
Key = str | bytes
Reply = list[int]


def checked_reply(name: str, reply: Any, length: int) -> Reply:
    """A reply of so many integers, and one more where something is changed of the limiter; any other is not ours."""
    if not isinstance(reply, list) or len(reply) - length not in {0, 1} or {*map(type, reply)} != {int}:
        raise LimiterUnavailableError(name, "malformed reply")
    return reply


def note_client(link: SyncLink | AsyncLink) -> None:
    """Say so, once, where so many clients are in use that somebody seems to make one for each call."""
    _alive.add(link)
    if len(_alive) >= MANY:
        _warn_of_many()


@cache
def _warn_of_many() -> None:
    logger.warning(
        "limiters use %d Redis clients, each with connections of its own: make one client, or give a URL, and use it"
        " for all of them; a function that returns a job's limiter must not make a client for each job",
        MANY,
    )


_alive: WeakSet[SyncLink | AsyncLink] = WeakSet()


def counts_listeners(client: SyncClient | AsyncClient) -> bool:
    """Whether PUBLISH tells how many heard it; in a cluster it counts one node's listeners only."""
    return not hasattr(client, "nodes_manager")


class SyncLink:
    """Runs scripts through a sync client.

    For a URL, in a forked child, and after a thread was interrupted in the middle of a command, a client is made
    when it is needed.
    """

    _all: ClassVar[WeakSet[SyncLink]] = WeakSet()

    def __init__(self, connection: SyncClient | str) -> None:
        self.limiters: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self.hearing = SyncHearing(self)
        self.watch = SyncWatch()
        self.notes = SyncNotes(self)
        self._connection = connection
        self._kept = None if isinstance(connection, str) else SyncKeptConnection(connection)
        self._parents: list[SyncKeptConnection | None] = []
        self._all.add(self)
        note_client(self)

    @classmethod
    def after_fork(cls) -> None:
        """A child has clients of its own, and never ends the parent's: their locks may be held for ever."""
        for link in tuple(cls._all):
            link._parents.append(link._kept)
            link._kept = None

    @property
    def client(self) -> SyncClient:
        """The client."""
        return self._connected().client

    def _connected(self) -> SyncKeptConnection:
        if self._kept is None:
            connection = self._connection
            self._kept = SyncKeptConnection(
                sync_client(connection) if isinstance(connection, str) else twin_of(connection)
            )
        return self._kept

    def run(self, name: str, script: Script, keys: Sequence[Key], args: Sequence[Any], length: int) -> Reply:
        """Run a script for the limiter `name`; its reply holds `length` integers."""
        return checked_reply(name, self.ask(name, script, keys, args), length)

    def ask(self, name: str, script: Script, keys: Sequence[Key], args: Sequence[Any]) -> Any:
        """Run a script for the limiter `name`, whatever it replies."""
        give_up = monotonic() + POOL_WAIT
        while True:
            try:
                return self._call(script, keys, args)
            except failures() as error:
                if not is_pool_empty(error) or monotonic() > give_up:
                    raise unavailable(name, error) from error
                time.sleep(POOL_PAUSE)
            except BaseException:
                self._kept = None
                raise

    def _call(self, script: Script, keys: Sequence[Key], args: Sequence[Any]) -> Any:
        kept = self._connected()
        try:
            return kept.execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except of_redis().NoScriptError:
            return kept.execute("EVAL", script.text, len(keys), *keys, *args)


os.register_at_fork(after_in_child=SyncLink.after_fork)


class AsyncLink:
    """Runs scripts through an async client, on one event loop.

    Parameters:
        client: The client.
        ours: Whether steindamm made it, and so has to close it.
    """

    def __init__(self, client: AsyncClient, *, ours: bool) -> None:
        self.limiters: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self.hearing = AsyncHearing(self)
        self.watch = AsyncWatch()
        self.notes = AsyncNotes(self)
        self.client = client
        self._kept = AsyncKeptConnection(client)
        self._ours = ours
        self._ending: AsyncGenerator[None, None] | None = None
        note_client(self)

    async def run(self, name: str, script: Script, keys: Sequence[Key], args: Sequence[Any], length: int) -> Reply:
        """Run a script for the limiter `name`; its reply holds `length` integers."""
        return checked_reply(name, await self.ask(name, script, keys, args), length)

    async def ask(self, name: str, script: Script, keys: Sequence[Key], args: Sequence[Any]) -> Any:
        """Run a script for the limiter `name`, whatever it replies."""
        if self._ours and self._ending is None:
            self._ending = _closing_with_loop(self.client)
            await anext(self._ending)
        give_up = monotonic() + POOL_WAIT
        while True:
            try:
                return await self._call(script, keys, args)
            except async_failures() as error:
                if not (is_pool_empty(error) or was_closed_meanwhile(error)) or monotonic() > give_up:
                    raise unavailable(name, error) from error
                await asyncio.sleep(POOL_PAUSE)

    async def _call(self, script: Script, keys: Sequence[Key], args: Sequence[Any]) -> Any:
        try:
            return await self._kept.execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except of_redis().NoScriptError:
            return await self._kept.execute("EVAL", script.text, len(keys), *keys, *args)


async def _closing_with_loop(client: AsyncClient) -> AsyncGenerator[None, None]:
    """Closes the client when the event loop ends: the loop then ends the generators that it still knows of."""
    try:
        yield
    finally:
        for each in (client, *sentinels_of(client)):
            await each.aclose()


def sync_link(connection: SyncClient | str) -> SyncLink:
    """The link of a client or URL; all limiters with the same one share it.

    A client carries its own link, so that both go when the client goes.
    """
    if isinstance(connection, str):
        return _url_links.get(connection) or _url_links.setdefault(connection, SyncLink(connection))
    own = vars(connection)
    return own.get(ATTRIBUTE) or own.setdefault(ATTRIBUTE, SyncLink(connection))  # type: ignore[no-any-return]


def async_link(connection: AsyncClient | str) -> AsyncLink:
    """The link of a client or URL on the running event loop."""
    if isinstance(connection, str):
        links = _url_links_of_each_loop.here()
        return links.get(connection) or links.setdefault(connection, AsyncLink(async_client(connection), ours=True))
    own = vars(connection)
    each_loop: EachLoop[AsyncLink] = own.get(ATTRIBUTE) or own.setdefault(ATTRIBUTE, EachLoop(_links_of(connection)))
    return each_loop.here()


def _links_of(client: AsyncClient) -> Callable[[], AsyncLink]:
    """Gives the client's own link on the first event loop, and links of twins on others."""
    own = iter([client])

    def make() -> AsyncLink:
        first = next(own, None)
        return AsyncLink(twin_of(client), ours=True) if first is None else AsyncLink(first, ours=False)

    return make


ATTRIBUTE = "_steindamm_link"
_url_links: dict[str, SyncLink] = {}
_url_links_of_each_loop: EachLoop[dict[str, AsyncLink]] = EachLoop(dict)
