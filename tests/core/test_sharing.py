"""Threads that ask at the same moment share a call; none loses by what happens to another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest
from support.buckets import THREADS

from steindamm import LimiterUnavailableError
from steindamm.backends.redis import sharing
from steindamm.backends.redis.sharing import SyncSharing

PATIENCE = 10.0


class Interruption(BaseException):
    """What a signal's handler, or a time limit, raises in a thread."""


class Calls:
    """A backend whose calls the test lets go on, one by one; it answers a request with `<request>!`."""

    def __init__(self) -> None:
        self.made: list[list[str]] = []
        self.undone: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.errors: dict[int, BaseException] = {}

    def call(self, requests: list[str]) -> list[str]:
        number = len(self.made)
        self.made.append(requests)
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        if number in self.errors:
            raise self.errors[number]
        return [f"{request}!" for request in requests]

    def undo(self, request: str, answer: str) -> None:
        assert answer == f"{request}!"
        self.undone.append(request)


def gathered(shared: SyncSharing[str, str], count: int) -> None:
    """Wait until so many have gathered."""
    deadline = threading.Event()
    for _ in range(1_000):
        if len(shared._gathered) >= count:
            return
        deadline.wait(0.005)
    raise AssertionError("they do not gather")


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def shared(calls: Calls) -> SyncSharing[str, str]:
    return SyncSharing(calls.call, calls.undo)


def ask_all(shared: SyncSharing[str, str], names: str) -> list[Future[str]]:
    """One thread each, gathering in this order."""
    futures = []
    for number, name in enumerate(names, start=len(shared._gathered) + 1):
        futures.append(THREADS.submit(shared.ask, name))
        gathered(shared, number)
    return futures


def under_way(shared: SyncSharing[str, str], calls: Calls) -> Future[str]:
    """A call that goes on until the test says so."""
    future = THREADS.submit(shared.ask, "first")
    assert calls.begun.acquire(timeout=PATIENCE)
    return future


def test_a_lone_asker_calls_at_once(shared, calls: Calls) -> None:
    calls.go_on.release(2)
    assert [shared.ask("a"), shared.ask("b")] == ["a!", "b!"]
    assert calls.made == [["a"], ["b"]]


def test_those_who_ask_meanwhile_go_together_in_their_order(shared, calls: Calls) -> None:
    first = under_way(shared, calls)
    others = ask_all(shared, "abcdef")
    calls.go_on.release(2)
    assert [future.result(PATIENCE) for future in (first, *others)] == ["first!", *(f"{name}!" for name in "abcdef")]
    assert calls.made == [["first"], list("abcdef")]


def test_a_call_holds_no_more_than_a_hundred(shared, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MOST", 4)
    under_way(shared, calls)
    others = ask_all(shared, "abcdefghi")
    calls.go_on.release(4)
    assert [future.result(PATIENCE) for future in others] == [f"{name}!" for name in "abcdefghi"]
    assert calls.made == [["first"], list("abcd"), list("efgh"), ["i"]]


def test_an_error_reaches_all_who_shared_the_call_and_nobody_else(shared, calls: Calls) -> None:
    cause = OSError("gone")
    calls.errors[1] = LimiterUnavailableError("api", "gone")
    calls.errors[1].__cause__ = cause
    first = under_way(shared, calls)
    others = ask_all(shared, "abc")
    calls.go_on.release(3)
    errors = [future.exception(PATIENCE) for future in others]
    assert first.result(PATIENCE) == "first!"
    assert [type(error) for error in errors] == [LimiterUnavailableError] * 3
    assert len({id(error) for error in errors}) == 3
    assert {error.__cause__ for error in errors} == {cause}
    assert shared.ask("later") == "later!"


def test_an_interrupted_lone_asker_leaves_the_others_to_their_calls(shared, calls: Calls) -> None:
    calls.errors[0] = Interruption()
    first = under_way(shared, calls)
    others = ask_all(shared, "ab")
    calls.go_on.release(2)
    assert isinstance(first.exception(PATIENCE), Interruption)
    assert [future.result(PATIENCE) for future in others] == ["a!", "b!"]


def test_those_whose_call_was_interrupted_ask_again(shared, calls: Calls) -> None:
    calls.errors[1] = Interruption()
    under_way(shared, calls)
    others = ask_all(shared, "abc")
    calls.go_on.release(3)
    assert isinstance(others[0].exception(PATIENCE), Interruption)
    assert [future.result(PATIENCE) for future in others[1:]] == ["b!", "c!"]
    assert calls.made == [["first"], list("abc"), list("bc")]


class InterruptedLock:
    """A lock in whose waiting a thread is interrupted when the test says so."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()
        self.interrupted_at_its_end = threading.Event()
        self._lock = threading.Lock()
        self._lock.acquire()

    def acquire(self, timeout: float) -> bool:
        give_up = time.monotonic() + timeout
        while not self._lock.acquire(timeout=0.01):
            if self.interrupted.is_set():
                raise Interruption
            if time.monotonic() > give_up:
                return False
        if self.interrupted_at_its_end.is_set():
            raise Interruption
        return True

    def release(self) -> None:
        self._lock.release()


@pytest.fixture
def interruptible(monkeypatch: pytest.MonkeyPatch) -> dict[str, InterruptedLock]:
    """The locks by request, of threads that wait."""
    locks: dict[str, InterruptedLock] = {}
    make = sharing._Waiting.__init__

    def made(self, request: str) -> None:
        make(self, request)
        self.turn = locks[request] = InterruptedLock()

    monkeypatch.setattr(sharing._Waiting, "__init__", made)
    return locks


def test_who_is_interrupted_before_its_request_was_sent_drops_out(shared, calls: Calls, interruptible) -> None:
    under_way(shared, calls)
    others = ask_all(shared, "abc")
    interruptible["b"].interrupted.set()
    assert isinstance(others[1].exception(PATIENCE), Interruption)
    calls.go_on.release(2)
    assert [others[0].result(PATIENCE), others[2].result(PATIENCE)] == ["a!", "c!"]
    assert calls.made == [["first"], ["a", "c"]]
    assert calls.undone == []


def test_what_an_interrupted_asker_was_given_is_undone(shared, calls: Calls, interruptible) -> None:
    under_way(shared, calls)
    others = ask_all(shared, "abc")
    calls.go_on.release()
    assert calls.begun.acquire(timeout=PATIENCE)
    interruptible["b"].interrupted.set()
    assert isinstance(others[1].exception(PATIENCE), Interruption)
    calls.go_on.release()
    assert [others[0].result(PATIENCE), others[2].result(PATIENCE)] == ["a!", "c!"]
    assert calls.undone == ["b"]


def test_what_an_asker_that_was_interrupted_as_its_answer_came_was_given_is_undone(
    shared, calls: Calls, interruptible
) -> None:
    under_way(shared, calls)
    others = ask_all(shared, "abc")
    interruptible["b"].interrupted_at_its_end.set()
    calls.go_on.release(2)
    assert isinstance(others[1].exception(PATIENCE), Interruption)
    assert [others[0].result(PATIENCE), others[2].result(PATIENCE)] == ["a!", "c!"]
    assert calls.undone == ["b"]


def test_undoing_may_itself_ask_and_an_error_in_it_is_not_the_callers(calls: Calls, interruptible) -> None:
    undone = []

    def undo(request: str, _: str) -> None:
        undone.append(shared.ask(f"undo {request}"))
        raise LimiterUnavailableError("api")

    shared = SyncSharing(calls.call, undo)
    under_way(shared, calls)
    others = ask_all(shared, "ab")
    calls.go_on.release()
    assert calls.begun.acquire(timeout=PATIENCE)
    interruptible["b"].interrupted.set()
    assert isinstance(others[1].exception(PATIENCE), Interruption)
    calls.go_on.release(2)
    assert others[0].result(PATIENCE) == "a!"
    assert undone == ["undo b!"]


@pytest.mark.parametrize("step", ["_pass_on", "_answer", "_choose", "_ask_again"])
def test_others_go_on_though_a_thread_was_interrupted_at_the_worst_moment(
    shared, calls: Calls, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(sharing, "PATIENCE", 0.05)
    method, interrupted = getattr(shared, step), threading.Event()

    def once(*args):
        if not interrupted.is_set():
            interrupted.set()
            raise Interruption
        return method(*args)

    monkeypatch.setattr(shared, step, once)
    if step == "_ask_again":
        calls.errors[1] = Interruption()
    under_way(shared, calls)
    others = ask_all(shared, "abcd")
    calls.go_on.release(10)
    results = [future.exception(PATIENCE) or future.result() for future in others]
    assert sum(isinstance(result, Interruption) for result in results) <= 1
    assert set(results) >= {"b!", "c!", "d!"}
    assert interrupted.is_set()
    assert shared.ask("later") == "later!"


def test_nobody_is_asked_for_again_whose_answer_had_come_when_the_thread_was_interrupted(
    shared, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = shared._answer

    def answered_and_interrupted(*args):
        answer(*args)
        raise Interruption

    monkeypatch.setattr(shared, "_answer", answered_and_interrupted)
    under_way(shared, calls)
    others = ask_all(shared, "abc")
    calls.go_on.release(10)
    assert isinstance(others[0].exception(PATIENCE), Interruption)
    assert [future.result(PATIENCE) for future in others[1:]] == ["b!", "c!"]
    assert calls.made == [["first"], list("abc")]
    assert calls.undone == ["a"]


def test_a_hundred_threads_get_each_its_own_answer() -> None:
    shared = SyncSharing(lambda requests: [f"{request}!" for request in requests], lambda *_: None)
    names = [str(number) for number in range(3_000)]
    assert list(THREADS.map(shared.ask, names)) == [f"{name}!" for name in names]
