"""Two workers that most tests share, and brokers with workers of their own for tests that break things."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from support.servers import Server, valkey_binary

if find_spec("celery") is None or find_spec("kombu.transport.redis") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from support.celery_workers import Farm


def keys_for_ever(server: Server) -> list[bytes]:
    return [key for key in server.admin.scan_iter("steindamm:*", count=1000) if server.admin.ttl(key) == -1]


@pytest.fixture(scope="session")
def make_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Farm]]:
    """Makes brokers, each a server of its own, that end with the tests, with their workers."""
    servers: list[Server] = []
    farms: list[Farm] = []

    def server() -> Server:
        servers.append(Server(valkey_binary(), tmp_path_factory.mktemp("valkey")))
        return servers[-1]

    def make(*, limits_elsewhere: bool = False, **settings: Any) -> Farm:
        limits = server() if limits_elsewhere else None
        farms.append(Farm(server(), tmp_path_factory.mktemp("workers"), limits, **settings))
        return farms[-1]

    yield make
    for farm in farms:
        farm.stop()
    for one in servers:
        one.stop()


@pytest.fixture(scope="session")
def farm(make_farm: Callable[..., Farm]) -> Iterator[Farm]:
    """Two workers with four processes each."""
    farm = make_farm()
    for _ in range(2):
        farm.start(ready=False)
    farm.wait_until_ready()
    farm.warm_up()
    yield farm
    assert all(worker.is_alive for worker in farm.workers)
    assert keys_for_ever(farm.server) == []


@pytest.fixture
def label() -> str:
    """A name that no other test uses, for limiters and jobs."""
    return uuid.uuid4().hex[:8]
