"""Why a demo could not be shown."""

from __future__ import annotations


class DemoError(Exception):
    """The demo can't start, or something that it started broke; the message is for the person who ran it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)
