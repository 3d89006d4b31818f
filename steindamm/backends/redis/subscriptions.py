"""Subscriptions, each with a connection of its own beside the client's pool, which may be small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steindamm.backends.redis.connection import AsyncClient, SyncClient


def sync_subscription(client: SyncClient) -> Any:
    """A subscription that reaches the server as the client does; in a cluster, one node hears of all."""
    from redis import ConnectionPool, Redis  # noqa: PLC0415
    from redis.cluster import RedisCluster  # noqa: PLC0415

    if isinstance(client, RedisCluster):
        client = client.get_redis_connection(client.get_random_node())  # type: ignore[no-untyped-call]
    pool: Any = client.connection_pool
    own = ConnectionPool(pool.connection_class, **_impatient(pool.connection_kwargs))
    return Redis(connection_pool=own).pubsub()  # type: ignore[no-untyped-call]


async def async_subscription(client: AsyncClient) -> Any:
    """The same for tasks."""
    from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415
    from redis.asyncio.cluster import RedisCluster  # noqa: PLC0415

    if isinstance(client, RedisCluster):
        await client.initialize()
        source: Any = client.get_random_node()
    else:
        source = client.connection_pool
    pool = ConnectionPool(source.connection_class, **_impatient(source.connection_kwargs))
    return Redis(connection_pool=pool).pubsub()


def _impatient(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Whoever listens tries again by itself."""
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return {**kwargs, "retry": Retry(NoBackoff(), 0)}


async def close(subscription: Any) -> None:
    """Close an async subscription; the oldest redis-py knows but the one name."""
    await getattr(subscription, "aclose", subscription.close)()
