"""Tasks that ask at the same moment share a call; none loses by what happens to another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steindamm import LimiterUnavailableError
from steindamm.backends.redis.cut_short import told_at_last
from steindamm.backends.redis.sharing import AsyncSharing


class TaskCalls:
    """A backend whose calls the test lets go on, one by one; it answers a request with `<request>!`."""

    def __init__(self) -> None:
        self.made: list[list[str]] = []
        self.undone: list[str] = []
        self.go_on = asyncio.Semaphore(0)
        self.error: BaseException | None = None
        self.on_return: Callable[[], object] = lambda: None
        self.shared = AsyncSharing(self.call, list, self.undo)

    async def call(self, requests: list[str]) -> list[str]:
        self.made.append(requests)
        return await told_at_last(self.reply(requests))

    async def reply(self, requests: list[str]) -> list[str]:
        await self.go_on.acquire()
        error, self.error = self.error, None
        if error:
            raise error
        self.on_return()
        return [f"{request}!" for request in requests]

    async def undo(self, request: str, answer: str) -> None:
        assert answer == f"{request}!"
        self.undone.append(request)

    def ask(self, names: list[str], answers: int = 0) -> list[asyncio.Task[str]]:
        for _ in range(answers):
            self.go_on.release()
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


async def test_tasks_that_went_together_go_together_again() -> None:
    calls = TaskCalls()
    await asyncio.gather(*calls.ask(list("abc"), answers=2))
    await asyncio.gather(*calls.ask(list("abc"), answers=1))
    assert calls.made == [["a"], ["b", "c"], ["a", "b", "c"]]


async def test_a_task_that_is_alone_again_asks_by_itself() -> None:
    calls = TaskCalls()
    await asyncio.gather(*calls.ask(list("ab"), answers=2))
    for _ in range(2):
        await asyncio.gather(*calls.ask(["c"], answers=1))
    (alone,) = calls.ask(["d"])
    await turn_of_the_loop()
    assert calls.shared._caller is None
    calls.go_on.release()
    assert await alone == "d!"


async def test_a_call_of_tasks_holds_no_more_than_a_hundred() -> None:
    calls = TaskCalls()
    await asyncio.gather(*calls.ask([str(number) for number in range(251)], answers=4))
    assert [len(made) for made in calls.made] == [1, 100, 100, 50]


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


async def together(calls: TaskCalls) -> list[asyncio.Task[str]]:
    """Two tasks whose call is under way."""
    (before,) = calls.ask(["before"])
    await turn_of_the_loop()
    tasks = calls.ask(["a", "b"])
    await turn_of_the_loop()
    calls.go_on.release()
    await before
    await turn_of_the_loop()
    assert calls.made == [["before"], ["a", "b"]]
    return tasks


async def test_what_a_task_that_was_cancelled_during_its_call_was_given_is_undone() -> None:
    calls = TaskCalls()
    tasks = await together(calls)
    tasks[1].cancel()
    calls.go_on.release()
    assert await tasks[0] == "a!"
    await turn_of_the_loop()
    assert calls.undone == ["b"]


async def test_what_a_task_that_was_cancelled_as_its_answer_came_was_given_is_undone() -> None:
    calls = TaskCalls()
    tasks = await together(calls)
    calls.on_return = lambda: asyncio.get_running_loop().call_soon(tasks[1].cancel)
    calls.go_on.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await turn_of_the_loop()
    assert results[0] == "a!"
    assert isinstance(results[1], asyncio.CancelledError)
    assert calls.undone == ["b"]


async def test_an_error_reaches_all_tasks_that_shared_the_call_and_nobody_else() -> None:
    calls = TaskCalls()
    tasks = await together(calls)
    calls.error = LimiterUnavailableError("api", "gone")
    calls.go_on.release()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [LimiterUnavailableError] * 2
    assert errors[0] is not errors[1]
    calls.go_on.release()
    assert await calls.shared.ask("c") == "c!"


async def test_askers_are_answered_though_somebody_cancelled_the_task_that_calls() -> None:
    calls = TaskCalls()
    tasks = await together(calls)
    calls.shared._caller.cancel()
    await turn_of_the_loop()
    calls.go_on.release()
    calls.go_on.release()
    assert await asyncio.gather(*tasks) == ["a!", "b!"]
    assert calls.made[1:] == [["a", "b"], ["a", "b"]]


# A task that makes its call itself


async def test_what_a_lone_task_that_was_cancelled_is_still_told_is_undone_before_others_ask() -> None:
    calls = TaskCalls()
    (alone,) = calls.ask(["alone"])
    await turn_of_the_loop()
    alone.cancel()
    await turn_of_the_loop()
    assert alone.cancelled()
    (after,) = calls.ask(["after"])
    await turn_of_the_loop()
    assert calls.made == [["alone"]]
    calls.go_on.release()
    calls.go_on.release()
    assert await after == "after!"
    assert calls.undone == ["alone"]


async def test_where_a_lone_task_that_was_cancelled_is_told_of_a_failure_others_ask_all_the_same() -> None:
    calls = TaskCalls()
    (alone,) = calls.ask(["alone"])
    await turn_of_the_loop()
    alone.cancel()
    (after,) = calls.ask(["after"])
    calls.error = ConnectionError("gone")
    calls.go_on.release()
    calls.go_on.release()
    assert await after == "after!"
    assert calls.undone == []


async def test_a_lone_task_that_was_cancelled_before_it_sent_anything_leaves_nothing_to_undo() -> None:
    calls = TaskCalls()
    calls.shared = AsyncSharing(calls.reply, list, calls.undo)
    (alone,) = calls.ask(["alone"])
    await turn_of_the_loop()
    alone.cancel()
    await turn_of_the_loop()
    calls.go_on.release()
    assert await calls.shared.ask("after") == "after!"
    assert calls.undone == []


async def test_others_ask_though_somebody_cancelled_all_tasks_twice() -> None:
    calls = TaskCalls()
    calls.ask(["alone"])
    for _ in range(2):
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
    calls.go_on.release()
    assert await calls.shared.ask("after") == "after!"


async def test_those_who_gathered_behind_a_lone_task_ask_though_its_call_failed() -> None:
    calls = TaskCalls()
    calls.error = LimiterUnavailableError("api", "gone")
    alone, after = await asyncio.gather(*calls.ask(["alone", "after"], answers=2), return_exceptions=True)
    assert isinstance(alone, LimiterUnavailableError)
    assert after == "after!"


async def test_those_who_gathered_behind_a_coroutine_that_is_closed_ask() -> None:
    calls = TaskCalls()
    alone = calls.shared.ask("alone")
    alone.send(None)
    (after,) = calls.ask(["after"])
    await turn_of_the_loop()
    alone.close()
    calls.go_on.release()
    calls.go_on.release()
    assert await after == "after!"
