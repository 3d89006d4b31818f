"""The API as its callers know it: the jobs, and the demo that reads its log."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT = 30.0


class Call(NamedTuple):
    """One line of the API's log: when the call came (seconds), the job that made it, the answer."""

    at: float
    job: int
    status: int

    @property
    def allowed(self) -> bool:
        """Whether it was within the limit."""
        return self.status == HTTPStatus.OK


def call_api(url: str, job: int) -> int:
    """Make the call that is the whole work of a job; the status of the answer."""
    status, _ = _get(url, f"/call/{job}", TIMEOUT)
    return status


def read_log(url: str, start: int = 0, timeout: float = TIMEOUT) -> tuple[float, list[Call]]:
    """The API's clock, and its log from the call with that index on."""
    _, body = _get(url, f"/log?from={start}", timeout)
    report = json.loads(body)
    return report["now"], [Call(*line) for line in report["calls"]]


def _get(url: str, path: str, timeout: float) -> tuple[int, bytes]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
