"""The clients that limiters make themselves: from a URL, and as twins of a client that they were given."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from support.servers import HOST, Cluster

from steindamm.backends.redis.connection import TIMEOUT, async_client, sync_client, twin_of

MAKERS = pytest.mark.parametrize("make", [sync_client, async_client])


def elsewhere(address: tuple[str, int]) -> tuple[str, int]:
    return address


def waits(client: Any) -> tuple[float, float]:
    """Seconds that it waits for a connection, and for an answer."""
    settings = client.connection_kwargs if hasattr(client, "connection_kwargs") else client.get_connection_kwargs()
    return settings["socket_connect_timeout"], settings["socket_timeout"]


class TestOfAUrl:
    @MAKERS
    def test_wait_for_a_while_and_not_for_ever(self, make: Any) -> None:
        assert waits(make("redis://localhost")) == (TIMEOUT, TIMEOUT)

    @MAKERS
    def test_wait_as_long_as_the_url_says(self, make: Any) -> None:
        assert waits(make("redis://localhost?socket_timeout=0.5")) == (TIMEOUT, 0.5)

    def test_wait_for_a_cluster_for_a_while(self, cluster: Cluster) -> None:
        assert waits(sync_client(cluster.url)) == (TIMEOUT, TIMEOUT)

    async def test_of_tasks_wait_for_a_cluster_for_a_while(self) -> None:
        assert waits(async_client("redis+cluster://localhost")) == (TIMEOUT, TIMEOUT)


class TestTwins:
    @pytest.mark.parametrize("library", [redis, redis.asyncio])
    def test_wait_for_a_free_connection_as_long_as_the_client(self, library: Any) -> None:
        pool = library.BlockingConnectionPool(max_connections=3, timeout=7)
        twin = twin_of(library.Redis(connection_pool=pool)).connection_pool
        assert (twin.max_connections, twin.timeout) == (3, 7)
        assert twin is not pool

    @pytest.mark.parametrize("library", [redis, redis.asyncio])
    @pytest.mark.parametrize("way", [{"unix_socket_path": "/run/redis"}, {"ssl": True}, {"host": "somewhere"}])
    def test_reach_the_server_as_the_client_does(self, library: Any, way: dict[str, Any]) -> None:
        client = library.Redis(**way, password="secret")
        pool, twin = client.connection_pool, twin_of(client).connection_pool
        assert twin.connection_class is pool.connection_class
        for setting in ("host", "path", "password"):
            assert twin.connection_kwargs.get(setting) == pool.connection_kwargs.get(setting)

    @pytest.mark.parametrize("is_encrypted", [True, False])
    async def test_reach_the_nodes_of_a_cluster_as_the_client_of_tasks_does(self, is_encrypted: bool) -> None:
        client = RedisCluster("somewhere", password="secret", ssl=is_encrypted, require_full_coverage=False)
        twin = twin_of(client)
        assert twin is not client
        assert list(twin.nodes_manager.startup_nodes) == ["somewhere:6379"]
        assert twin.connection_kwargs["connection_class"] is client.connection_kwargs["connection_class"]
        assert twin.connection_kwargs["password"] == "secret"

    @pytest.mark.parametrize("is_covered", [True, False])
    async def test_keep_what_the_client_says_of_the_cluster(self, is_covered: bool) -> None:
        client = RedisCluster("somewhere", require_full_coverage=is_covered, address_remap=elsewhere)
        nodes = twin_of(client).nodes_manager
        assert nodes.require_full_coverage is is_covered
        assert nodes.address_remap is elsewhere

    def test_reach_the_nodes_of_a_cluster_as_the_client_does(self, cluster: Cluster) -> None:
        client = redis.RedisCluster(
            host=HOST, port=cluster.nodes[0].port, socket_timeout=3, client_name="us",
            require_full_coverage=False, address_remap=elsewhere,
        )  # fmt: skip
        twin = twin_of(client)
        assert twin.nodes_manager.address_remap is elsewhere
        assert twin.nodes_manager._require_full_coverage is False
        assert twin.nodes_manager.connection_kwargs["client_name"] == "us"
        assert twin.nodes_manager.connection_kwargs["socket_timeout"] == 3
        twin.close()
        client.close()
