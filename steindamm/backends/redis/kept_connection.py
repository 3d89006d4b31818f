"""One connection of the client's own pool, kept at hand for scripts.

To take a connection from the pool, to look whether it still stands, to be ready for retries and to give it back takes
longer than to send a command and to read its reply. So one connection stays taken, for one caller at a time; whoever
finds it in use goes the client's own way, as does a question after a connection that broke. It is only kept where it
changes nothing else: see `keeps_one`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from steindamm.backends.redis.cut_short import leave_rest, told_at_last
from steindamm.backends.redis.raised import of_redis
from steindamm.background import outliving
from steindamm.patience import Patience

if TYPE_CHECKING:
    from steindamm.backends.redis.connection import AsyncClient, SyncClient

LEAST_POOL = 20
"""Connections that a pool may have at least, so that one more or less says little."""


@cache
def plain_pools() -> tuple[type, ...]:
    """Pools of connections to one server that stays the same."""
    import redis.asyncio.connection  # noqa: PLC0415
    import redis.connection  # noqa: PLC0415

    of = redis.connection, redis.asyncio.connection
    return tuple(kind for module in of for kind in (module.ConnectionPool, module.BlockingConnectionPool))


def is_redis_pys_own(way: Any) -> bool:
    """Whether a way to ask, or to send, is redis-py's own: who has put theirs in its place, to trace, sees all."""
    function = way.__func__ if type(way) is MethodType else None
    return type(function) is FunctionType and function.__globals__["__name__"].startswith("redis.")


def keeps_one(client: Any) -> bool:
    """Whether a connection of the client may be kept.

    Not of a cluster or behind sentinels, where the server changes; nor of a small pool, of one whose credentials are
    renewed on its idle connections, or of a client that has but one.
    """
    pool: Any = getattr(client, "connection_pool", None)
    return (
        type(pool) in plain_pools()
        and pool.max_connections >= LEAST_POOL
        and not pool.connection_kwargs.get("credential_provider")
        and client.connection is None
        and is_redis_pys_own(client.execute_command)
    )


def taking_from(pool: Any) -> Callable[[], Any]:
    """What takes a connection; up to redis-py 5.2 it wants to know what for."""
    asks = inspect.signature(pool.get_connection).parameters["command_name"].default is inspect.Parameter.empty
    return partial(pool.get_connection, "EVALSHA") if asks else pool.get_connection


def sending_over(connection: Any) -> Callable[..., Awaitable[None]]:
    """What sends a command over an async connection.

    Where hiredis is installed, it packs the commands of sync connections for redis-py, in UTF-8; those of async ones
    redis-py packs itself, in Python.
    """
    from redis.connection import HiredisRespSerializer  # noqa: PLC0415
    from redis.utils import HIREDIS_AVAILABLE  # noqa: PLC0415

    send: Callable[..., Awaitable[None]] = connection.send_command
    is_plain = is_redis_pys_own(send) and is_redis_pys_own(connection.pack_command)
    if not (HIREDIS_AVAILABLE and is_plain and connection.encoder.encoding == "utf-8"):
        return send
    pack = HiredisRespSerializer().pack

    async def send_packed_in_c(*command: Any) -> None:
        await connection.send_packed_command(pack(*command))

    return send_packed_in_c


def is_to_be_renewed(connection: Any) -> bool:
    """Whether the server has told that it moves; redis-py hears of that from version 7 on."""
    return bool(getattr(connection, "should_reconnect", bool)())


class _Kept:
    """What the connection of a sync client and that of an async one have in common."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._kept: list[Any] = []
        if keeps_one(client):
            self._way = client.execute_command.__func__
            self._pool = client.connection_pool
            self._take = taking_from(self._pool)
            self._kept.append(None)

    def _is_free(self, way: Any) -> bool:
        """Whether it may be used instead of the client's way: nobody uses it, or has put theirs in the way's place."""
        return bool(self._kept) and type(way) is MethodType and way.__func__ is self._way


class SyncKeptConnection(_Kept):
    """A sync client's.

    Parameters:
        client: The client that it is of.
    """

    client: SyncClient

    def execute(self, *command: Any) -> Any:
        """What the client's `execute_command` does."""
        way: Any = self.client.execute_command
        if not self._is_free(way):
            return way(*command)
        try:
            connection = self._kept.pop()
        except IndexError:
            return way(*command)
        try:
            connection = connection or self._take()
            connection.send_command(*command)
            reply = connection.read_response()
        except of_redis().ResponseError:
            self._keep(connection)
            raise
        except of_redis().ConnectionError:
            self._drop(connection)
            return way(*command)
        except BaseException:
            self._drop(connection)
            raise
        self._keep(connection)
        return reply

    def _keep(self, connection: Any) -> None:
        if is_to_be_renewed(connection):
            self._drop(connection)
        else:
            self._kept.append(connection)

    def _drop(self, connection: Any) -> None:
        if connection:
            connection.disconnect()
            self._pool.release(connection)
        self._kept.append(None)


class AsyncKeptConnection(_Kept):
    """An async client's.

    It leaves its timeout to a `Patience`: redis-py makes two of them for each command, on Python 3.11 with a task for
    the first. Where an asker is cancelled, its reply is read all the same; see `rest_of`.

    Parameters:
        client: The client that it is of.
    """

    client: AsyncClient
    _timeout: float | None = None
    _patience = math.inf

    def execute(self, *command: Any) -> Awaitable[Any]:
        """What the client's `execute_command` does."""
        way: Any = self.client.execute_command
        if not self._is_free(way):
            return told_at_last(way(*command))
        connection = self._kept[-1]
        if connection is None or not connection.is_connected:
            return told_at_last(self._connect_and_ask(command))
        return self._ask(self._kept.pop(), command)

    async def _connect_and_ask(self, command: Sequence[Any]) -> Any:
        """Within a task of its own, as redis-py may hear of a cancellation while it connects, and go on."""
        if not self._kept:
            return await self.client.execute_command(*command)
        connection = self._kept.pop()
        try:
            connection = connection or await self._taken()
        except of_redis().ConnectionError:
            self._kept.append(None)
            return await self.client.execute_command(*command)
        except BaseException:
            self._kept.append(None)
            raise
        return await self._ask(connection, command)

    async def _ask(self, connection: Any, command: Sequence[Any]) -> Any:
        is_sent = False
        try:
            with Patience(self._patience):
                await self._send(*command)
                is_sent = True
                reply = await connection.read_response(disconnect_on_error=False)
        except of_redis().ResponseError:
            await self._keep(connection)
            raise
        except of_redis().ConnectionError:
            await self._drop(connection)
            return await told_at_last(self.client.execute_command(*command))
        except TimeoutError as error:
            await self._drop(connection)
            raise of_redis().TimeoutError("the answer is late") from error
        except asyncio.CancelledError as cut:
            if is_sent:
                rest = outliving(self._rest_at(connection))
                rest.add_done_callback(partial(self._keep_after, connection))
                leave_rest(cut, rest)
            else:
                await self._drop(connection)
            raise
        except GeneratorExit:
            self._abandon(connection)
            raise
        except BaseException:
            await self._drop(connection)
            raise
        await self._keep(connection)
        return reply

    async def _rest_at(self, connection: Any) -> Any:
        with Patience(self._patience):
            return await connection.read_response(disconnect_on_error=False)

    def _keep_after(self, connection: Any, rest: asyncio.Task[Any]) -> None:
        if rest.cancelled() or rest.exception() or is_to_be_renewed(connection):
            self._abandon(connection)
        else:
            self._kept.append(connection)

    async def _taken(self) -> Any:
        connection = await self._take()
        self._loop = asyncio.get_running_loop()
        self._send = sending_over(connection)
        self._timeout, connection.socket_timeout = connection.socket_timeout, None
        self._patience = self._timeout or math.inf
        return connection

    async def _keep(self, connection: Any) -> None:
        if is_to_be_renewed(connection):
            await self._drop(connection)
        else:
            self._kept.append(connection)

    async def _drop(self, connection: Any) -> None:
        self._kept.append(None)
        if connection:
            await self._release(connection)

    def _abandon(self, connection: Any) -> None:
        """Drop it where nobody can await that, and maybe no loop runs."""
        self._kept.append(None)
        if asyncio._get_running_loop() is self._loop:
            outliving(self._release(connection))

    async def _release(self, connection: Any) -> None:
        connection.socket_timeout = self._timeout
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)
