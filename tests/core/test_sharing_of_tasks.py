"""Tasks that ask at the same moment share a call; none loses by what happens to another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steindamm import LimiterUnavailableError
from steindamm.backends.redis.sharing import AsyncSharing


class TaskCalls:
    """A backend whose calls the test lets go on, one by one; it answers a request with `<request>!`."""

    def __init__(self) -> None:
        self.made: list[list[str]] = []
        self.undone: list[str] = []
        self.go_on = asyncio.Semaphore(0)
        self.error: BaseException | None = None
        self.on_return: Callable[[], object] = lambda: None
        self.shared = AsyncSharing(self.call, self.undo)

    async def call(self, requests: list[str]) -> list[str]:
        self.made.append(requests)
        await self.go_on.acquire()
        error, self.error = self.error, None
        if error:
            raise error
        self.on_return()
        return [f"{request}!" for request in requests]

    async def undo(self, request: str, answer: str) -> None:
        assert answer == f"{request}!"
        self.undone.append(request)

    def ask(self, names: list[str]) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.shared.ask(name)) for name in names]


async def turn_of_the_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_tasks_that_ask_meanwhile_go_together_in_their_order() -> None:
    calls = TaskCalls()
    first = calls.ask(["first"])
    await turn_of_the_loop()
    others = calls.ask(list("abc"))
    await turn_of_the_loop()
    calls.go_on.release()
    calls.go_on.release()
    assert await asyncio.gather(*first, *others) == ["first!", "a!", "b!", "c!"]
    assert calls.made == [["first"], ["a", "b", "c"]]


async def test_a_call_of_tasks_holds_no_more_than_a_hundred() -> None:
    calls = TaskCalls()
    tasks = calls.ask([str(number) for number in range(250)])
    for _ in range(3):
        calls.go_on.release()
    await asyncio.gather(*tasks)
    assert [len(made) for made in calls.made] == [100, 100, 50]


async def test_a_task_cancelled_before_its_request_was_sent_drops_out() -> None:
    calls = TaskCalls()
    first = calls.ask(["first"])
    await turn_of_the_loop()
    others = calls.ask(list("abc"))
    await turn_of_the_loop()
    others[1].cancel()
    calls.go_on.release()
    calls.go_on.release()
    assert await asyncio.gather(*first, others[0], others[2]) == ["first!", "a!", "c!"]
    assert calls.made == [["first"], ["a", "c"]]
    assert calls.undone == []


async def test_what_a_task_that_was_cancelled_during_its_call_was_given_is_undone() -> None:
    calls = TaskCalls()
    tasks = calls.ask(["a", "b"])
    await turn_of_the_loop()
    tasks[1].cancel()
    calls.go_on.release()
    assert await tasks[0] == "a!"
    await turn_of_the_loop()
    assert calls.undone == ["b"]


async def test_what_a_task_that_was_cancelled_as_its_answer_came_was_given_is_undone() -> None:
    calls = TaskCalls()
    tasks = calls.ask(["a", "b"])
    calls.on_return = lambda: asyncio.get_running_loop().call_soon(tasks[1].cancel)
    calls.go_on.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await turn_of_the_loop()
    assert results[0] == "a!"
    assert isinstance(results[1], asyncio.CancelledError)
    assert calls.undone == ["b"]


async def test_an_error_reaches_all_tasks_that_shared_the_call_and_nobody_else() -> None:
    calls = TaskCalls()
    calls.error = LimiterUnavailableError("api", "gone")
    tasks = calls.ask(["a", "b"])
    calls.go_on.release()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [LimiterUnavailableError] * 2
    assert errors[0] is not errors[1]
    calls.go_on.release()
    assert await calls.shared.ask("c") == "c!"


async def test_askers_are_answered_though_somebody_cancelled_the_task_that_calls() -> None:
    calls = TaskCalls()
    tasks = calls.ask(["a", "b"])
    await turn_of_the_loop()
    calls.shared._caller.cancel()
    await turn_of_the_loop()
    calls.go_on.release()
    calls.go_on.release()
    assert await asyncio.gather(*tasks) == ["a!", "b!"]
    assert calls.made == [["a", "b"], ["a", "b"]]
