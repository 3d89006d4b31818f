"""What kind of function a limiter is to decorate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await, also where it is an object that is called."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await or to iterate with ``async for``."""
    return is_coroutine_function(function) or inspect.isasyncgenfunction(function)


def refuse_generator(function: Callable[..., Any]) -> None:
    """Calling it runs nothing, so that a slot held for the call would be held for nothing."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator, which runs after its call: take the slot by a block inside it")
