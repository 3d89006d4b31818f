"""A job's copy keeps the headers that its sender gave it, whoever writes into what is sent.

What traces jobs (OpenTelemetry) writes into each message, as it is sent, which trace it is part of. A worker's
main process is part of none, so that a copy would be cut off from whoever sent the job.
"""

from __future__ import annotations

from typing import Any

from kombu.messaging import Producer

from steindamm.integrations.bookings import HEADER


class KeepingHeaders:
    """A producer that sends a job's copy with its headers; events, which it is lent for, too, have theirs.

    Parameters:
        producer: What sends.
        headers: The job's, as its sender gave them.
    """

    def __init__(self, producer: Producer, headers: dict[str, Any]) -> None:
        self._producer = producer
        self._headers = headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, *, headers: dict[str, Any] | None = None, **options: Any) -> Any:
        """Send it."""
        if headers is not None and HEADER in headers:
            headers = {**headers, **self._headers, HEADER: headers[HEADER]}
        return self._producer.publish(body, headers=headers, **options)  # type: ignore[no-untyped-call]
