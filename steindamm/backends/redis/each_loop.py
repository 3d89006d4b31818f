"""An async limiter may outlive an event loop, and be used on several: what talks to Redis is made for each."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

from steindamm.backends.redis.connection import checked_connection
from steindamm.backends.redis.links import AsyncLink, async_link

if TYPE_CHECKING:
    from steindamm.backends.redis.connection import AsyncClient

Backend = TypeVar("Backend")


class EachLoop(Generic[Backend]):
    """The backend of one limiter on each loop; all limiters with the same identity on a link share it.

    Parameters:
        connection: An async client, or a URL from which each loop makes its own.
        identity: What limiters must have in common to share a backend.
        make: Makes the backend on a link.
    """

    def __init__(
        self, connection: AsyncClient | str, identity: Hashable, make: Callable[[AsyncLink], Backend]
    ) -> None:
        checked_connection(connection, asynchronous=True)
        self._connection = connection
        self._identity = identity
        self._make = make
        self._by_loop: WeakKeyDictionary[AbstractEventLoop, Backend] = WeakKeyDictionary()

    def here(self) -> Backend:
        """The backend on the running loop."""
        loop = get_running_loop()
        backend = self._by_loop.get(loop)
        if backend is None:
            link = async_link(self._connection)
            backend = link.limiters.get(self._identity)
            if backend is None:
                backend = link.limiters[self._identity] = self._make(link)
            self._by_loop[loop] = backend
        return backend
