"""The HTTP API with a limit: a process of its own, that answers 429 to what is beyond and keeps a log of all calls.

    GET /call/<job>      200 after some work, or 429 at once
    GET /log?from=<n>    its clock and its log from the n-th call on, as JSON

It listens on a socket that the demo has opened and hands down.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import time
from http import HTTPStatus

from steindamm.demo.allowance import Allowance
from steindamm.demo.calls import Call

WORK_SECONDS = 0.02
HEAD_SECONDS = 10.0
CALL = re.compile(r"GET /call/(\d{1,12}) HTTP/1\.[01]")
LOG = re.compile(r"GET /log\?from=(\d{1,12}) HTTP/1\.[01]")


class Api:
    """Judges calls as they come, in one thread, by this process's monotonic clock.

    Parameters:
        allowance: What it allows.
        retry_after: Seconds that it tells those to wait who are beyond; None where it tells nothing.
    """

    def __init__(self, allowance: Allowance, retry_after: int | None = None) -> None:
        self._allowance = allowance
        self._retry_after = retry_after
        self._calls: list[Call] = []
        self._began = time.monotonic()

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, body = await self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
            writer.write(_response(status, body, self._retry_after))
            await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the caller went away, or is none of ours
        finally:
            writer.close()

    async def _answer(self, request: str) -> tuple[HTTPStatus, object]:
        if match := CALL.fullmatch(request):
            return await self._call(int(match[1]))
        if match := LOG.fullmatch(request):
            return HTTPStatus.OK, {"now": self._now(), "calls": self._calls[int(match[1]) :]}
        return HTTPStatus.NOT_FOUND, {}

    async def _call(self, job: int) -> tuple[HTTPStatus, object]:
        now = self._now()
        status = HTTPStatus.OK if self._allowance.allows(now) else HTTPStatus.TOO_MANY_REQUESTS
        self._calls.append(Call(now, job, status))
        if status is HTTPStatus.OK:
            await asyncio.sleep(WORK_SECONDS)
        return status, {"job": job}


def _response(status: HTTPStatus, body: object, retry_after: int | None) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
    if status is HTTPStatus.TOO_MANY_REQUESTS and retry_after is not None:
        head += f"Retry-After: {retry_after}\r\n"
    return f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


async def listen(fd: int, api: Api) -> None:
    """Serve on an open socket until the process is told to end."""
    server = await asyncio.start_server(api.serve, sock=socket.socket(fileno=fd))
    await server.serve_forever()


def main() -> None:
    """Run the API as the demo starts it."""
    parser = argparse.ArgumentParser(prog="python -m steindamm.demo.api", description="The API with a limit.")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--per-second", type=float, required=True, help="calls it allows in a second")
    parser.add_argument("--burst", type=int, required=True, help="calls it allows at once")
    parser.add_argument("--retry-after", type=int, help="seconds that it tells those to wait who are beyond")
    options = parser.parse_args()
    api = Api(Allowance(options.per_second, options.burst), options.retry_after)
    asyncio.run(listen(options.fd, api))


if __name__ == "__main__":
    main()
