"""Which server a `connection=` speaks to, told without speaking to it."""

from __future__ import annotations

from typing import Any, NamedTuple

from steindamm.backends.redis.connection import plain_url

PORT = 6379


class Server(NamedTuple):
    """Where limits are kept.

    Parameters:
        addresses: The server's; of a cluster, or of sentinels, those that are known.
        database: The number of its database.
    """

    addresses: frozenset[Any]
    database: int = 0


def is_cluster(connection: Any) -> bool:
    """Whether keys lie in slots."""
    return plain_url(connection)[1] if isinstance(connection, str) else hasattr(connection, "nodes_manager")


def is_same_server(one: Any, other: Any) -> bool:
    """Whether two connections reach the same limits; an address that is written in two ways counts as two."""
    if one is other:
        return True
    first, second = _server_of(one), _server_of(other)
    return first.database == second.database and not first.addresses.isdisjoint(second.addresses)


def _server_of(connection: Any) -> Server:
    if isinstance(connection, str):
        from redis.connection import parse_url  # noqa: PLC0415

        plain, is_clustered = plain_url(connection)
        return _of_settings(parse_url(plain), "cluster" if is_clustered else "")  # type: ignore[no-untyped-call]
    if is_cluster(connection):
        nodes = connection.nodes_manager.startup_nodes.values()
        return Server(frozenset(("cluster", node.host, int(node.port)) for node in nodes))
    pool = connection.connection_pool
    if hasattr(pool, "sentinel_manager"):
        sentinels = [_server_of(sentinel) for sentinel in pool.sentinel_manager.sentinels]
        known = frozenset((pool.service_name, *sentinel.addresses) for sentinel in sentinels)
        return Server(known, int(pool.connection_kwargs.get("db") or 0))
    return _of_settings(pool.connection_kwargs)


def _of_settings(settings: dict[str, Any], kind: str = "") -> Server:
    address = settings.get("path") or (settings.get("host") or "localhost", int(settings.get("port") or PORT))
    address = (kind, *address) if kind else address
    return Server(frozenset([address]), int(settings.get("db") or 0))
