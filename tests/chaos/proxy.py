"""A network that misbehaves: it stands between clients and a server, and delays, swallows or cuts what passes."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

from support.servers import HOST

CHUNK = 65536
UNNOTICED = 0.3
"""Seconds from the loss of a request to the end of its connection."""


class Proxy:
    """Passes on what it is sent, in both directions, until it is told otherwise.

    Attributes:
        delay: Seconds for which it holds each piece back.
        swallows: Whether what is sent gets lost while the connections stay.
        cuts: Whether each connection ends in the middle of the next reply.
        loses: What tells one request from others: the next such is lost, and its connection ends a little later.
    """

    delay = 0.0
    swallows = cuts = False
    loses = b""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection((HOST, self._target)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pass, args=(server, client), kwargs={"reply": True}, daemon=True)
            back.start()
            self._pass(client, server, reply=False)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket, *, reply: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                time.sleep(self.delay)
                if self.loses and self.loses in data and not reply:
                    self.loses = b""
                    time.sleep(UNNOTICED)
                    break
                if self.swallows:
                    continue
                if self.cuts and reply:
                    sink.sendall(data[: len(data) // 2])
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
