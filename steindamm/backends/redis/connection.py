"""What `connection=` may be: a redis-py client, standalone or cluster, sync or async as fits, or a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from steindamm.errors import wrong_kind

if TYPE_CHECKING:
    import redis
    import redis.asyncio
    import redis.asyncio.cluster
    import redis.cluster

    SyncClient: TypeAlias = redis.Redis | redis.cluster.RedisCluster
    AsyncClient: TypeAlias = redis.asyncio.Redis | redis.asyncio.cluster.RedisCluster

TIMEOUT = 5.0
"""Seconds to connect, and to wait for an answer, on the clients that are made from a URL."""
SCHEMES = {
    "redis": ("redis", False),
    "rediss": ("rediss", False),
    "unix": ("unix", False),
    "valkey": ("redis", False),
    "valkeys": ("rediss", False),
    "redis+cluster": ("redis", True),
    "rediss+cluster": ("rediss", True),
    "valkey+cluster": ("redis", True),
    "valkeys+cluster": ("rediss", True),
}


def require_redis() -> None:
    """Say what to install where redis-py is missing."""
    try:
        import redis  # noqa: F401, PLC0415
    except ImportError as error:
        raise ImportError('a limiter with a connection needs redis-py: pip install "steindamm[redis]"') from error


def checked_connection(connection: object, *, asynchronous: bool) -> None:
    """Refuse what is no client of the right kind and no URL."""
    require_redis()
    import redis.asyncio  # noqa: PLC0415
    import redis.asyncio.cluster  # noqa: PLC0415
    import redis.cluster  # noqa: PLC0415

    sync_kinds = (redis.Redis, redis.cluster.RedisCluster)
    async_kinds = (redis.asyncio.Redis, redis.asyncio.cluster.RedisCluster)
    right, wrong = (async_kinds, sync_kinds) if asynchronous else (sync_kinds, async_kinds)
    if isinstance(connection, str):
        scheme_of(connection)
    elif isinstance(connection, wrong):
        twin = "a Sync… limiter" if asynchronous else "an Async… limiter"
        kind = "an async" if asynchronous else "a sync"
        raise TypeError(f"connection must be {kind} redis-py client, or a URL; for this client take {twin}")
    elif not isinstance(connection, right):
        raise wrong_kind("connection", "a redis-py client (it speaks to Valkey, too) or a URL", connection)


def scheme_of(url: str) -> tuple[str, bool]:
    """The scheme that redis-py knows, and whether it means a cluster. The URL may hold a password: never show it."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"connection must be a URL that starts with one of {', '.join(SCHEMES)} and ://")
    return SCHEMES[scheme]


def sync_client(url: str) -> SyncClient:
    """A client with timeouts."""
    import redis.cluster  # noqa: PLC0415

    return _client(url, redis.Redis, redis.cluster.RedisCluster)  # type: ignore[no-any-return]


def async_client(url: str) -> AsyncClient:
    """A client with timeouts, for the running event loop."""
    import redis.asyncio.cluster  # noqa: PLC0415

    return _client(url, redis.asyncio.Redis, redis.asyncio.cluster.RedisCluster)  # type: ignore[no-any-return]


def _client(url: str, standalone: Any, cluster: Any) -> Any:
    scheme, is_cluster = scheme_of(url)
    _, _, rest = url.partition("://")
    kind = cluster if is_cluster else standalone
    try:
        return kind.from_url(f"{scheme}://{rest}", socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT)
    except ValueError:
        raise ValueError("connection must be a URL that redis-py understands") from None
