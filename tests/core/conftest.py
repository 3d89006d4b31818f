"""Limiters of every kind, for the tests that hold for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import semaphores as of_semaphores
from support import several as of_several
from support.buckets import Kind, LuaHome, PythonHome
from support.mortals import Limiters
from support.servers import Server, valkey_binary

from steindamm import outages
from steindamm.backends.redis.links import SyncLink
from steindamm.rules.bucket import BucketTerms

BACKENDS = ["local", "valkey", "cluster"]


def _kind(request: pytest.FixtureRequest, *, asynchronous: bool, backend: str) -> Kind:
    if backend == "local":
        return Kind(asynchronous, None, [])
    server = request.getfixturevalue(backend)
    nodes = server.nodes if backend == "cluster" else [server]
    return Kind(asynchronous, server.url, [node.admin for node in nodes])


@pytest.fixture(params=[f"{way}-{backend}" for backend in BACKENDS for way in ("sync", "async")])
def buckets(request: pytest.FixtureRequest) -> Kind:
    """Makes token buckets: sync and async, in memory, on Valkey, on the cluster."""
    way, backend = request.param.split("-")
    return _kind(request, asynchronous=way == "async", backend=backend)


@pytest.fixture(params=["sync-valkey", "async-valkey", "sync-cluster", "async-cluster"])
def redis_buckets(request: pytest.FixtureRequest) -> Kind:
    """Makes token buckets: sync and async, on Valkey and on the cluster."""
    way, backend = request.param.split("-")
    return _kind(request, asynchronous=way == "async", backend=backend)


@pytest.fixture(params=BACKENDS)
def sync_buckets(request: pytest.FixtureRequest) -> Kind:
    """Makes token buckets for threads: in memory, on Valkey, on the cluster."""
    return _kind(request, asynchronous=False, backend=request.param)


@pytest.fixture(params=BACKENDS)
def async_buckets(request: pytest.FixtureRequest) -> Kind:
    """Makes token buckets for tasks: in memory, on Valkey, on the cluster."""
    return _kind(request, asynchronous=True, backend=request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may end."""
    with Server(valkey_binary(), tmp_path) as server:
        yield server


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limiters without a server look often whether it is back, and none has complained yet."""
    monkeypatch.setattr(outages, "PAUSE", 0.05)
    monkeypatch.setattr(outages, "_complaints", defaultdict(outages.Complaint))


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def mortals(request: pytest.FixtureRequest, server: Server, looks_often: None) -> Limiters:
    """Makes limiters on it that wait half a second for an answer."""
    return Limiters(request.param, f"{server.url}?socket_timeout=0.5")


@pytest.fixture(params=["python", "lua"])
def home(request: pytest.FixtureRequest) -> Callable[..., PythonHome | LuaHome]:
    """Makes a bucket whose time the test sets, in either home of the rules; its terms are given in seconds."""

    def make(
        capacity: float, amount: float = 1.0, step: float = 1.0, initial: float | None = None, anchor: float = -1.0
    ) -> PythonHome | LuaHome:
        keep = 60e6
        terms = BucketTerms(capacity, amount, step * 1e6, capacity if initial is None else initial, anchor, keep)
        if request.param == "python":
            return PythonHome(terms)
        return LuaHome(terms, request.getfixturevalue("valkey").admin)

    return make


def _semaphores(request: pytest.FixtureRequest) -> of_semaphores.Kind:
    way, backend = request.param.split("-")
    kind = _kind(request, asynchronous=way == "async", backend=backend)
    return of_semaphores.Kind(kind.asynchronous, kind.connection, kind.admins)


@pytest.fixture(params=[f"{way}-{backend}" for backend in BACKENDS for way in ("sync", "async")])
def semaphores(request: pytest.FixtureRequest) -> of_semaphores.Kind:
    """Makes semaphores: sync and async, in memory, on Valkey, on the cluster."""
    return _semaphores(request)


@pytest.fixture(params=["sync-valkey", "async-valkey", "sync-cluster", "async-cluster"])
def redis_semaphores(request: pytest.FixtureRequest) -> of_semaphores.Kind:
    """Makes semaphores: sync and async, on Valkey and on the cluster."""
    return _semaphores(request)


@pytest.fixture(params=["sync-local", "sync-valkey", "sync-cluster"])
def sync_semaphores(request: pytest.FixtureRequest) -> of_semaphores.Kind:
    """Makes semaphores for threads: in memory, on Valkey, on the cluster."""
    return _semaphores(request)


@pytest.fixture(params=["async-local", "async-valkey", "async-cluster"])
def async_semaphores(request: pytest.FixtureRequest) -> of_semaphores.Kind:
    """Makes semaphores for tasks: in memory, on Valkey, on the cluster."""
    return _semaphores(request)


def _several(request: pytest.FixtureRequest) -> of_several.Kind:
    way, backend, *where = request.param.split("-")
    kind = _kind(request, asynchronous=way == "async", backend=backend)
    return of_several.Kind(
        kind.asynchronous, kind.connection, kind.admins, "together" if where == ["together"] else None
    )


PLACES = ["local", "valkey", "cluster-together", "cluster-apart"]


@pytest.fixture(params=[f"{way}-{place}" for place in PLACES for way in ("sync", "async")])
def several(request: pytest.FixtureRequest) -> of_several.Kind:
    """Makes limits for `all_of`: sync and async, in memory, on Valkey, on the cluster in one slot and in several."""
    return _several(request)


@pytest.fixture(params=[f"async-{place}" for place in PLACES])
def async_several(request: pytest.FixtureRequest) -> of_several.Kind:
    """Makes limits for `all_of` for tasks."""
    return _several(request)


@pytest.fixture(autouse=True)
def _nothing_is_renewed_any_more() -> Iterator[None]:
    """What a test has left held is nobody's any more: the next one has other servers, and looks at the log."""
    yield
    for link in tuple(SyncLink._all):
        with link.watch._lock:
            link.watch._watched._semaphores.clear()
        link.hearing.tickets.clear()
        link.hearing._needed_at = 0.0
