"""A process's channel, each on a connection of its own beside the client's pool, which may be small.

It is read from the connection itself: what redis-py's own subscriptions do for each message takes longer than all the
rest of a hand-over in the process that hears of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from steindamm.backends.redis.kept_connection import taking_from
from steindamm.backends.redis.raised import of_redis
from steindamm.patience import Patience

if TYPE_CHECKING:
    from steindamm.backends.redis.connection import AsyncClient, SyncClient


class Message(NamedTuple):
    """What the server has sent.

    Parameters:
        kind: ``"message"``, or what it answers: ``"subscribe"``, ``"pong"``.
        text: What a message says.
    """

    kind: str
    text: str = ""


def read(reply: Any) -> Message:
    """A reply, as bytes or text; a client that speaks RESP3 gets a plain answer where others get a list."""
    kind, *_, text = reply if isinstance(reply, list) and len(reply) > 1 else ("", "")
    return Message(_text(kind), _text(text))


def _text(given: Any) -> str:
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)


class SyncSubscription:
    """What a thread hears.

    Parameters:
        client: It reaches the server as this client does; in a cluster, one node hears of all.
        channel: What it listens to.
        patience: Seconds to listen at a time; a message ends it at once.
    """

    def __init__(self, client: SyncClient, channel: str, patience: float) -> None:
        from redis import ConnectionPool  # noqa: PLC0415
        from redis.cluster import RedisCluster  # noqa: PLC0415

        if isinstance(client, RedisCluster):
            client = client.get_redis_connection(client.get_random_node())  # type: ignore[no-untyped-call]
        pool: Any = client.connection_pool
        own = ConnectionPool(pool.connection_class, **_of_its_own(pool.connection_kwargs, patience))
        self._connection: Any = taking_from(own)()
        self._connection.send_command("SUBSCRIBE", channel)

    def next(self) -> Message | None:
        """What comes next; None where nothing came so long."""
        try:
            return read(self._connection.read_response(disconnect_on_error=False, push_request=True))
        except of_redis().TimeoutError:
            return None

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._connection.send_command("PING")

    def close(self) -> None:
        """Hear nothing more."""
        self._connection.disconnect()


class AsyncSubscription:
    """What a task hears; the twin of `SyncSubscription`, which explains the parameters."""

    def __init__(self, connection: Any, patience: float) -> None:
        self._connection = connection
        self._patience = patience

    @classmethod
    async def to(cls, client: AsyncClient, channel: str, patience: float) -> AsyncSubscription:
        """Listen to a channel."""
        from redis.asyncio import ConnectionPool  # noqa: PLC0415
        from redis.asyncio.cluster import RedisCluster  # noqa: PLC0415

        if isinstance(client, RedisCluster):
            await client.initialize()
            source: Any = client.get_random_node()
        else:
            source = client.connection_pool
        own = ConnectionPool(source.connection_class, **_of_its_own(source.connection_kwargs, patience))
        connection: Any = await taking_from(own)()
        connection.socket_timeout = None
        await connection.send_command("SUBSCRIBE", channel)
        return cls(connection, patience)

    async def next(self) -> Message | None:
        """What comes next; None where nothing came so long."""
        try:
            with Patience(self._patience):
                return read(await self._connection.read_response(disconnect_on_error=False, push_request=True))
        except TimeoutError:
            return None

    async def ping(self) -> None:
        """Ask for a sign of life."""
        await self._connection.send_command("PING")

    async def close(self) -> None:
        """Hear nothing more."""
        await self._connection.disconnect(nowait=True)


def _of_its_own(kwargs: dict[str, Any], patience: float) -> dict[str, Any]:
    """Settings of a connection whose listener tries again by itself, and asks by itself whether the server is there."""
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return {**kwargs, "retry": Retry(NoBackoff(), 0), "socket_timeout": patience, "health_check_interval": 0}
