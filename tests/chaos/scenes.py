"""Where callers are while something fails: servers, and how each process reaches them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis.crc import key_slot
from support.servers import HOST, PATIENCE, Cluster, Server, free_port, valkey_binary

from chaos.clock import Clock
from chaos.journal import Journal
from chaos.proxy import Proxy

PROCESSES = 4
GROUP = "chaos"
"""The group of all limiters: in a cluster they lie in one slot."""
SLOT = key_slot(GROUP.encode())
TIMEOUT = "?socket_timeout=1&socket_connect_timeout=1"


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} after {patience:g} s"
        time.sleep(0.01)


class Scene:
    """A server, and the processes at it.

    Parameters:
        journal: Where everybody writes.
        server: The server whose fault it is.
        urls: How each process reaches it.

    Attributes:
        environments: What each process is started with.
        pids: Those of the processes.
    """

    clock: Clock
    proxy: Proxy
    replica: Server
    cluster: ReplicatedCluster

    def __init__(self, journal: Journal, server: Server, urls: list[str] | None = None) -> None:
        self.journal = journal
        self.server = server
        self.urls = urls or [server.url + TIMEOUT] * PROCESSES
        self.environments: list[dict[str, str]] = [{}] * len(self.urls)
        self.pids: list[int] = []

    def starts(self) -> int:
        return sum(event.what == "start" for event in self.journal.events())


@contextmanager
def alone(journal: Journal, folder: Path, *options: str) -> Iterator[Scene]:
    """One server."""
    with Server(valkey_binary(), folder, *options) as server:
        yield Scene(journal, server)


@contextmanager
def lasting(journal: Journal, folder: Path) -> Iterator[Scene]:
    """One server that writes down what it is told."""
    with alone(journal, folder, "appendonly yes") as scene:
        yield scene


@contextmanager
def by_a_clock_of_its_own(journal: Journal, folder: Path) -> Iterator[Scene]:
    """One server with a clock that can be set."""
    clock = Clock(folder)
    with Server(valkey_binary(), folder, environment=clock.environment) as server:
        scene = Scene(journal, server)
        scene.clock = clock
        yield scene


@contextmanager
def by_two_clocks(journal: Journal, folder: Path) -> Iterator[Scene]:
    """Half of the processes have a clock that can be set."""
    with alone(journal, folder) as scene:
        scene.clock = Clock(folder)
        scene.environments[: PROCESSES // 2] = [scene.clock.environment] * (PROCESSES // 2)
        yield scene


@contextmanager
def behind_a_network(journal: Journal, folder: Path) -> Iterator[Scene]:
    """Half of the processes reach the server through a network that misbehaves."""
    with alone(journal, folder) as scene, Proxy(scene.server.port) as proxy:
        scene.proxy = proxy
        scene.urls[: PROCESSES // 2] = [proxy.url + TIMEOUT] * (PROCESSES // 2)
        yield scene


@contextmanager
def with_a_replica(journal: Journal, folder: Path) -> Iterator[Scene]:
    """A server, and one that follows it."""
    home = folder / "replica"
    home.mkdir()
    option = "repl-diskless-sync-delay 0"
    with alone(journal, folder, option) as scene, Server(valkey_binary(), home, option) as replica:
        scene.replica = replica
        follow(replica, scene.server)
        yield scene


def follow(replica: Server, leader: Server) -> None:
    """Let one server follow another, and wait until it has what that has."""
    replica.admin.replicaof(HOST, leader.port)
    wait_until(lambda: replica.admin.info("replication")["master_link_status"] == "up", "it does not follow")


class ReplicatedCluster(Cluster):
    """A cluster of three, each with a replica."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.masters = list(self.nodes)
        for master in self.masters:
            port = free_port()
            home = folder / str(port)
            home.mkdir()
            options = ("cluster-enabled yes", "cluster-node-timeout 1000", "repl-diskless-sync-delay 0")
            replica = Server(valkey_binary(), home, *options, port=port)
            self.nodes.append(replica)
            replica.admin.execute_command("CLUSTER", "MEET", HOST, master.port)
            wait_until(lambda: len(self._known(replica)) >= len(self.nodes), "the replica knows too few")  # noqa: B023
            replica.admin.execute_command("CLUSTER", "REPLICATE", self.id_of(master))
        for node in self.nodes[3:]:
            wait_until(lambda: node.admin.info("replication").get("master_link_status") == "up", "no link")  # noqa: B023
        for node in self.nodes:
            node.admin.config_set("cluster-node-timeout", 1000)
            wait_until(lambda: len(self._known(node)) == len(self.nodes), "not all know all")  # noqa: B023

    @staticmethod
    def _known(node: Server) -> dict[str, Any]:
        return dict(node.admin.execute_command("CLUSTER NODES"))

    @staticmethod
    def id_of(node: Server) -> str:
        return str(node.admin.execute_command("CLUSTER MYID").decode())

    def leads(self, node: Server) -> bool:
        """Whether a node that answers has slots to itself."""
        return node.answers() and node.admin.info("replication")["role"] == "master"

    def leader_of(self, slot: int) -> Server:
        """The node that has a slot."""
        return next(node for node in self.nodes if self.leads(node) and slot in self._slots_of(node))

    def _slots_of(self, node: Server) -> set[int]:
        itself = next(known for known in self._known(node).values() if "myself" in known["flags"])
        ranges = ((int(slots[0]), int(slots[-1])) for slots in itself["slots"])
        return {slot for first, last in ranges for slot in range(first, last + 1)}

    def replica_of(self, leader: Server) -> Server:
        """The node that follows another."""
        for node in self.nodes:
            if node.answers():
                told = node.admin.info("replication")
                if told["role"] == "slave" and told["master_port"] == leader.port:
                    return node
        raise AssertionError("it has no replica")


@contextmanager
def in_a_cluster(journal: Journal, folder: Path) -> Iterator[Scene]:
    """A cluster of three with a replica each."""
    with ExitStack() as stack:
        cluster = stack.enter_context(ReplicatedCluster(folder))
        leader = cluster.leader_of(SLOT)
        scene = Scene(journal, leader, [cluster.url + TIMEOUT] * PROCESSES)
        scene.cluster = cluster
        yield scene
