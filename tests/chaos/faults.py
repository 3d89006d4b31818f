"""What can go wrong around limiters, done for real; each function returns when it is over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import redis

from chaos.scenes import SLOT, Scene, follow, wait_until

Inject = Callable[[Scene], None]
HOUR = 3600
DELAY = 0.3
"""Seconds by which a slow network holds each packet back."""


def nothing(_: Scene) -> None:
    """No fault."""
    time.sleep(1)


def kill_process(scene: Scene) -> None:
    """SIGKILL."""
    pid = scene.pids[0]
    os.kill(pid, signal.SIGKILL)
    scene.journal.write("killed", pid=pid)


def stop_process(scene: Scene, seconds: float = 3.0) -> None:
    """SIGSTOP, for longer than a lease lasts."""
    for pid in scene.pids[:2]:
        os.kill(pid, signal.SIGSTOP)
        scene.journal.write("stopped", pid=pid)
    time.sleep(seconds)
    for pid in scene.pids[:2]:
        os.kill(pid, signal.SIGCONT)


def restart_server(scene: Scene) -> None:
    """SIGKILL, and a start a second later with whatever it wrote down."""
    scene.server.kill()
    time.sleep(1)
    scene.server.start()


def stop_server(scene: Scene) -> None:
    """SIGSTOP for five seconds."""
    with scene.server.standing_still():
        time.sleep(5)


def flush_scripts(scene: Scene) -> None:
    """The scripts are forgotten, again and again."""
    for _ in range(20):
        scene.server.admin.script_flush()
        time.sleep(0.05)


def kill_clients(scene: Scene) -> None:
    """All connections are closed, those of subscriptions as well, again and again."""
    for _ in range(10):
        for kind in ("normal", "pubsub"):
            scene.server.admin.client_kill_filter(_type=kind, skipme=True)
        time.sleep(0.1)


def flush_all(scene: Scene) -> None:
    """All keys are forgotten."""
    scene.server.admin.flushall()


def pause_clients(scene: Scene) -> None:
    """The server answers nobody for two seconds."""
    scene.server.admin.client_pause(2000, all=True)
    time.sleep(2)


def run_out_of_memory(scene: Scene) -> None:
    """The server takes nothing more, and throws nothing away, for two seconds."""
    scene.server.admin.config_set("maxmemory-policy", "noeviction")
    scene.server.admin.config_set("maxmemory", 1)
    time.sleep(2)
    scene.server.admin.config_set("maxmemory", 0)


def make_read_only(scene: Scene) -> None:
    """Its replica takes over, and it follows that one for two seconds; then back."""
    scene.replica.admin.replicaof("NO", "ONE")
    follow(scene.server, scene.replica)
    time.sleep(2)
    scene.server.admin.replicaof("NO", "ONE")


def fail_over(scene: Scene) -> None:
    """CLUSTER FAILOVER: the replica takes over in agreement with its master."""
    leader = scene.cluster.leader_of(SLOT)
    replica = scene.cluster.replica_of(leader)
    replica.admin.execute_command("CLUSTER", "FAILOVER")
    wait_until(lambda: scene.cluster.leads(replica), "no failover")


def kill_leader(scene: Scene) -> None:
    """The master is killed, and its replica elected."""
    leader = scene.cluster.leader_of(SLOT)
    replica = scene.cluster.replica_of(leader)
    leader.kill()
    wait_until(lambda: scene.cluster.leads(replica), "no failover")


def move_slot(scene: Scene) -> None:
    """The slot of the limiters goes to another master while it is in use, key by key."""
    source = scene.cluster.leader_of(SLOT)
    target = next(node for node in scene.cluster.masters if node is not source)
    cluster = scene.cluster
    target.admin.execute_command("CLUSTER", "SETSLOT", SLOT, "IMPORTING", cluster.id_of(source))
    source.admin.execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", cluster.id_of(target))
    time.sleep(0.3)
    while keys := source.admin.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 1):
        with suppress(redis.ResponseError):
            source.admin.migrate("127.0.0.1", target.port, keys, 0, 1000)
        time.sleep(0.1)
    for node in (target, source, *(other for other in cluster.masters if other not in {target, source})):
        node.admin.execute_command("CLUSTER", "SETSLOT", SLOT, "NODE", cluster.id_of(target))


def set_clock_forward(scene: Scene) -> None:
    """An hour, for good."""
    scene.clock.set(HOUR)


def set_clock_back(scene: Scene) -> None:
    """An hour, for good."""
    scene.clock.set(-HOUR)


def delay_network(scene: Scene) -> None:
    """Each packet takes longer, both ways, for two seconds."""
    scene.proxy.delay = DELAY
    time.sleep(2)
    scene.proxy.delay = 0.0


def swallow_network(scene: Scene) -> None:
    """What is sent gets lost for three seconds, and nobody is told."""
    scene.proxy.swallows = True
    time.sleep(3)
    scene.proxy.swallows = False


def cut_network(scene: Scene) -> None:
    """Each connection ends in the middle of its next reply, for two seconds."""
    scene.proxy.cuts = True
    time.sleep(2)
    scene.proxy.cuts = False
