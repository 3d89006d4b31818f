"""The servers that all tests share, and the rule that nothing stays in them for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings
from support.servers import NAMED_SERVER, Cluster, Server, redis_binary, valkey_binary

settings.register_profile(
    "whatever the speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("whatever the speed")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey; all tests of the run share it, so each takes names of its own."""
    with Server(valkey_binary(), tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three; all tests of the run share it."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Redis itself: the server that STEINDAMM_TEST_SERVER names, or one that is installed here."""
    if NAMED_SERVER:
        yield NAMED_SERVER
        return
    binary = redis_binary()
    if binary is None:
        pytest.skip("no redis-server is installed, and STEINDAMM_TEST_SERVER names none")
    with Server(binary, tmp_path_factory.mktemp("redis")) as server:
        yield server.url


FOR_EVER = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'steindamm:*')) do
  if redis.call('TTL', key) == -1 then found[#found + 1] = key end
end
return found
"""


def keys_for_ever(client: redis.Redis) -> list[bytes]:
    """Our keys that have no end."""
    found: list[bytes] = client.eval(FOR_EVER, 0)
    return found


@pytest.fixture(autouse=True)
def _nothing_stays_for_ever(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "valkey" in request.fixturenames:
        request.getfixturevalue("valkey").assert_it_runs()
        assert keys_for_ever(request.getfixturevalue("valkey").admin) == []
    if "cluster" in request.fixturenames:
        for node in request.getfixturevalue("cluster").nodes:
            node.assert_it_runs()
            assert keys_for_ever(node.admin) == []
