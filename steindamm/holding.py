"""A value that a context variable has in a block, and in nothing after it.

A class, where `contextlib.contextmanager` would do: that takes longer to enter and to leave than all that is done here,
and jobs that do little pass several of them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Holding(Generic[Value]):
    """A block in which a context variable has a value; each block takes one of its own.

    Example:
        >>> from contextvars import ContextVar
        >>> speed = ContextVar("speed", default=1)
        >>> with Holding(speed, 2):
        ...     speed.get()
        2
        >>> speed.get()
        1

    Parameters:
        variable: The variable.
        value: Its value.
    """

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[Value], value: Value) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)
