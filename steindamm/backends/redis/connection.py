"""What `connection=` may be: a redis-py client, standalone or cluster, sync or async as fits, or a URL."""

from __future__ import annotations

import codecs
import inspect
from copy import copy
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from steindamm.backends.redis.raised import of_redis
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
NODES_OWN = {"host", "port", "redis_connect_func", "retry"}
"""Settings that a cluster's sync client sets for each node."""


def require_redis() -> None:
    """Say what to install where redis-py is missing."""
    try:
        import redis  # noqa: F401, PLC0415
    except ImportError as error:
        raise ImportError('a limiter with a connection needs redis-py: pip install "steindamm[redis]"') from error
    _import_the_rest()


@cache
def _import_the_rest() -> None:
    """Import what the first connection would: a child forked while another thread imports something never can."""
    from redis.connection import Connection  # noqa: PLC0415

    Connection()  # type: ignore[no-untyped-call]
    codecs.lookup("idna")


def checked_connection(connection: object, *, asynchronous: bool) -> None:
    """Refuse what is no client of the right kind and no URL."""
    require_redis()
    import redis.asyncio.client  # noqa: PLC0415
    import redis.asyncio.cluster  # noqa: PLC0415
    import redis.client  # noqa: PLC0415
    import redis.cluster  # noqa: PLC0415

    sync_kinds = (redis.Redis, redis.cluster.RedisCluster)
    async_kinds = (redis.asyncio.Redis, redis.asyncio.cluster.RedisCluster)
    right, wrong = (async_kinds, sync_kinds) if asynchronous else (sync_kinds, async_kinds)
    if isinstance(connection, str):
        _check_url(connection)
    elif isinstance(connection, (redis.client.Pipeline, redis.asyncio.client.Pipeline)):
        raise wrong_kind("connection", "a client that answers at once", connection)
    elif isinstance(connection, wrong):
        twin = "a Sync… limiter" if asynchronous else "an Async… limiter"
        kind = "an async" if asynchronous else "a sync"
        raise TypeError(f"connection must be {kind} redis-py client, or a URL; for this client take {twin}")
    elif not isinstance(connection, right):
        raise wrong_kind("connection", "a redis-py client (it speaks to Valkey, too) or a URL", connection)


@lru_cache(maxsize=100)
def _check_url(url: str) -> None:
    """The URL may hold a password: no message shows it."""
    from redis.connection import parse_url  # noqa: PLC0415

    plain, is_cluster = plain_url(url)
    try:
        database = parse_url(plain).get("db", 0)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ValueError("connection must be a URL that redis-py understands") from None
    if not is_cluster:
        _check_options(plain)
    elif database:
        raise ValueError("connection must not name a database: a cluster has only one")


def _check_options(url: str) -> None:
    """What redis-py says of a URL's options when it first connects would pass for an outage, which never ends."""
    from redis.connection import ConnectionPool  # noqa: PLC0415

    try:
        ConnectionPool.from_url(url).make_connection()
    except (TypeError, of_redis().RedisError):
        raise ValueError("connection must be a URL whose options, after the ?, redis-py's connections have") from None


def plain_url(url: str) -> tuple[str, bool]:
    """The URL as redis-py knows it, and whether it means a cluster."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"connection must be a URL that starts with one of {', '.join(SCHEMES)} and ://")
    plain, is_cluster = SCHEMES[scheme]
    return f"{plain}://{rest}", is_cluster


def sync_client(url: str) -> SyncClient:
    """A client with timeouts."""
    from redis.client import Redis  # noqa: PLC0415
    from redis.cluster import RedisCluster  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return _client(url, Redis, RedisCluster, Retry)  # type: ignore[no-any-return]


def async_client(url: str) -> AsyncClient:
    """A client with timeouts, for the running event loop."""
    from redis.asyncio.client import Redis  # noqa: PLC0415
    from redis.asyncio.cluster import RedisCluster  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415

    return _client(url, Redis, RedisCluster, Retry)  # type: ignore[no-any-return]


def _client(url: str, standalone: Any, cluster: Any, retry: Any) -> Any:
    """A connection that broke is made again once, at once; a cluster's client looks for the slots' new owner itself.

    A question whose answer is late is not asked again: it would take twice what it asks for.
    """
    from redis.backoff import NoBackoff  # noqa: PLC0415

    plain, is_cluster = plain_url(url)
    timeouts = {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}
    if is_cluster:
        return _asking_once(cluster).from_url(plain, **timeouts)
    once_more = retry(NoBackoff(), 1, supported_errors=(of_redis().ConnectionError,))
    return standalone.from_url(plain, **timeouts, retry=once_more, retry_on_error=[of_redis().ConnectionError])


@cache
def _asking_once(cluster: Any) -> Any:
    """The same kind of cluster's client, but for asking again, up to ten times, where an answer is late."""
    again = tuple(error for error in cluster.ERRORS_ALLOW_RETRY if error is not of_redis().TimeoutError)
    return type(cluster.__name__, (cluster,), {"ERRORS_ALLOW_RETRY": again})


def twin_of(client: Any) -> Any:
    """A client with the same settings and connections of its own.

    redis-py's async clients are bound to the event loop that first uses them. A pool that was forked while
    another thread used it may be locked for ever, and one whose user was interrupted may hold a connection
    on which a reply that is nobody's is still to come.
    """
    if hasattr(client, "nodes_manager"):
        return _cluster_twin_of(client)
    pool = client.connection_pool
    settings = {**pool.connection_kwargs, "max_connections": pool.max_connections}
    if hasattr(pool, "timeout"):
        settings["timeout"] = pool.timeout
    own_pool = _pool_like(pool, connection_class=pool.connection_class, **settings)
    return type(client).from_pool(own_pool)


def _pool_like(pool: Any, **settings: Any) -> Any:
    """A pool of the same kind; one of sentinels asks them over connections of its own, too."""
    if not hasattr(pool, "sentinel_manager"):
        return type(pool)(**settings)
    manager = copy(pool.sentinel_manager)
    manager.sentinels = [twin_of(sentinel) for sentinel in manager.sentinels]
    settings |= {"is_master": pool.is_master, "check_connection": pool.check_connection}
    settings.pop("connection_pool", None)
    return type(pool)(pool.service_name, manager, **settings)


def sentinels_of(client: Any) -> list[Any]:
    """The clients by which a client asks sentinels for its server, if it does."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return manager.sentinels if manager else []


def _cluster_twin_of(client: Any) -> Any:
    nodes = client.nodes_manager
    coverage = "require_full_coverage" if hasattr(nodes, "require_full_coverage") else "_require_full_coverage"
    return type(client)(
        startup_nodes=list(nodes.startup_nodes.values()),
        require_full_coverage=getattr(nodes, coverage),
        address_remap=nodes.address_remap,
        **_node_settings(client),
    )


def _node_settings(client: Any) -> dict[str, Any]:
    """How a cluster's client reaches its nodes, in the words of its constructor."""
    if inspect.iscoroutinefunction(client.execute_command):
        settings, known = client.connection_kwargs, inspect.signature(type(client)).parameters
        ssl = "SSL" in settings["connection_class"].__name__
        return {"ssl": ssl, **{key: value for key, value in settings.items() if key in known}}
    settings = client.nodes_manager.connection_kwargs
    return {key: value for key, value in settings.items() if key not in NODES_OWN}
