"""What an error of a job tells about a server that said "not now"."""

from __future__ import annotations

import logging
import pickle
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from steindamm import SyncTokenBucket, Throttled
from steindamm.integrations.throttling import LONGEST_PAUSE, UNTOLD_PAUSE, ThrottleOn, read_retry_after

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class AnsweredError(Exception):
    """Shaped like an error of httpx or requests."""

    def __init__(self, status: int, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = SimpleNamespace(status_code=status, headers=named)


class AiohttpError(Exception):
    """Shaped like an error of aiohttp."""

    def __init__(self, status: int, headers: Any) -> None:
        self.status = status
        self.headers = headers


def test_a_pause_in_seconds_is_read_from_each_library() -> None:
    assert read_retry_after(AnsweredError(429, Retry_After="7")) == 7
    assert read_retry_after(AnsweredError(503, retry_after="7.9")) == 7
    assert read_retry_after(AiohttpError(429, {"Retry-After": " 120 "})) == 120


def test_a_pause_until_a_date_is_read() -> None:
    error = AnsweredError(429, Retry_After="Tue, 24 Nov 2026 12:00:30 GMT")
    assert read_retry_after(error, NOON) == 30


@pytest.mark.parametrize(
    "error", [AnsweredError(500, Retry_After="7"), AiohttpError(404, None), ValueError("no answer")]
)
def test_other_errors_are_none_of_our_business(error: Exception) -> None:
    assert read_retry_after(error) is None
    assert ThrottleOn.of(Exception).pause(error) is None


def test_an_answer_that_names_no_pause_gets_a_short_one() -> None:
    assert read_retry_after(AiohttpError(429, None)) == UNTOLD_PAUSE
    assert ThrottleOn.of(None).pause(Throttled()) == UNTOLD_PAUSE


@pytest.mark.parametrize(
    ("said", "believed"),
    [("soon", UNTOLD_PAUSE), ("-5", UNTOLD_PAUSE), ("315360000", LONGEST_PAUSE), ("9" * 20, LONGEST_PAUSE)],
)
def test_what_a_server_says_is_believed_within_bounds_and_the_log_tells(
    said: str, believed: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "steindamm"):
        assert ThrottleOn.of(AnsweredError).pause(AnsweredError(429, Retry_After=said)) == believed
    assert caplog.records


def test_a_date_that_has_passed_is_no_pause() -> None:
    assert ThrottleOn.of(AnsweredError).pause(AnsweredError(429, Retry_After="Tue, 24 Nov 1998 12:00:30 GMT")) == 0


@pytest.mark.parametrize("garbage", ["x", object(), float("nan"), [1]])
def test_a_reader_that_returns_garbage_gives_a_short_pause(garbage: object) -> None:
    assert ThrottleOn.of({ValueError: lambda _: garbage}).pause(ValueError()) == UNTOLD_PAUSE


def test_a_reader_may_say_that_an_error_means_something_else() -> None:
    assert ThrottleOn.of({ValueError: lambda _: None}).pause(ValueError()) is None


@pytest.mark.parametrize("wrong", ["429", 429, [ValueError, "x"], {ValueError: 3}, {3: float}])
def test_what_is_no_error_class_is_refused_when_the_task_is_declared(wrong: object) -> None:
    with pytest.raises(TypeError, match="throttle_on must be"):
        ThrottleOn.of(wrong)


@pytest.mark.parametrize(("told", "shown"), [(None, ""), (2.5, ", in 2.5 s"), ("30", ", in '30' s"), ([], ", in [] s")])
def test_throttled_can_be_shown_whatever_it_was_given(told: object, shown: str) -> None:
    """A header as it came, say."""
    assert str(Throttled(told)) == f"the server said: not now{shown}"


def test_throttled_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(Throttled(2.5, limiter=SyncTokenBucket("the API's"))))
    assert (again.retry_after, again.limiter) == (2.5, "the API's")
    assert str(again) == "the server said: not now, in 2.5 s"
