"""The class of a limiter is chosen by its connection: whoever makes one names neither where it lives, nor how."""

from __future__ import annotations

from typing import Any, Self


class ByConnection:
    """The base of limiters that live in memory, or on Redis where they have a connection."""

    def __new__(cls, *_: Any, connection: Any = None, **__: Any) -> Self:
        """Choose the class."""
        return super().__new__(cls._chosen(connection))  # type: ignore[no-any-return]

    @classmethod
    def _chosen(cls, connection: Any) -> Any:
        return cls
