"""A limiter's copy is the limiter itself, and none leaves its process: what it counts can't be in two places."""

from __future__ import annotations

from typing import Any, NoReturn, Self


class Undivided:
    """The base of all limiters."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} can't be pickled, since it holds connections, or counts in this process: "
            "make it in each process, with the same settings"
        )
