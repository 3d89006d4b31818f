"""The blocks and the decorated functions of a semaphore: which of them holds which slot."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from threading import Thread
from typing import Any

import pytest
from support.buckets import call
from support.semaphores import Kind, held

URL = "redis://localhost:1/0"


class TestNesting:
    async def test_blocks_of_one_semaphore_may_be_nested(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=2)
        if semaphores.asynchronous:
            async with semaphore as outer, semaphore as inner:
                assert inner.fence != outer.fence
                assert await held(semaphore) == 2
        else:
            with semaphore as outer, semaphore as inner:
                assert inner.fence != outer.fence
                assert await held(semaphore) == 2
        assert await held(semaphore) == 0

    async def test_and_each_gives_its_own_slot_back(self, semaphores: Kind) -> None:
        semaphore, other = semaphores(capacity=2), semaphores(capacity=1)
        if semaphores.asynchronous:
            async with semaphore as outer:
                async with other, semaphore as inner:
                    pass
                assert inner.gone
                assert not outer.gone
        else:
            with semaphore as outer:
                with other, semaphore as inner:
                    pass
                assert inner.gone
                assert not outer.gone
        assert outer.gone

    async def test_they_may_end_in_another_order(self, semaphores: Kind) -> None:
        semaphore, other = semaphores(capacity=1), semaphores(capacity=1)
        if semaphores.asynchronous:
            await semaphore.__aenter__()
            await other.__aenter__()
            await semaphore.__aexit__(None, None, None)
            assert (await held(semaphore), await held(other)) == (0, 1)
            await other.__aexit__(None, None, None)
        else:
            semaphore.__enter__()
            other.__enter__()
            semaphore.__exit__(None, None, None)
            assert (await held(semaphore), await held(other)) == (0, 1)
            other.__exit__(None, None, None)
        assert await held(other) == 0

    async def test_a_block_may_end_in_another_thread_or_task(self, semaphores: Kind) -> None:
        """Frameworks run the two halves of a generator where they like."""
        semaphore = semaphores(capacity=2)
        for _ in range(3):
            if semaphores.asynchronous:
                await asyncio.create_task(semaphore.__aenter__())
                await asyncio.create_task(semaphore.__aexit__(None, None, None))
            else:
                for half in (semaphore.__enter__, lambda: semaphore.__exit__(None, None, None)):
                    thread = Thread(target=half)
                    thread.start()
                    thread.join()
            assert await held(semaphore) == 0

    async def test_a_block_cannot_end_that_has_not_begun(self, semaphores: Kind) -> None:
        semaphore = semaphores()
        leaving = semaphore.__aexit__ if semaphores.asynchronous else semaphore.__exit__
        with pytest.raises(RuntimeError, match="had not begun"):
            await call(leaving, None, None, None)

    async def test_one_object_serves_many_at_once(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=3, max_sleep=0)
        running, most = 0, 0

        async def work() -> None:
            nonlocal running, most
            if semaphores.asynchronous:
                async with semaphore:
                    running, most = running + 1, max(most, running + 1)
                    await asyncio.sleep(0.001)
                    running -= 1
            else:
                permit = await call(semaphore.acquire)
                running, most = running + 1, max(most, running + 1)
                await asyncio.sleep(0.001)
                running -= 1
                await call(semaphore.release, permit)

        await asyncio.gather(*(work() for _ in range(30)))
        assert most == 3
        assert await held(semaphore) == 0

    async def test_a_stack_of_blocks(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=5)
        if semaphores.asynchronous:
            async with AsyncExitStack() as stack:
                for _ in range(5):
                    await stack.enter_async_context(semaphore)
                assert await held(semaphore) == 5
        else:
            with ExitStack() as sync_stack:
                for _ in range(5):
                    sync_stack.enter_context(semaphore)
                assert await held(semaphore) == 5
        assert await held(semaphore) == 0


class TestDecorating:
    async def test_the_function_runs_while_it_holds_a_slot(self, semaphores: Kind) -> None:
        semaphore = semaphores(capacity=1)
        if semaphores.asynchronous:

            @semaphore
            async def limited(number: int, *, twice: bool) -> int:
                """Its own words."""
                assert await semaphore.try_acquire() is None
                return number * (2 if twice else 1)
        else:

            @semaphore
            def limited(number: int, *, twice: bool) -> int:
                """Its own words."""
                assert semaphore.try_acquire() is None
                return number * (2 if twice else 1)

        assert await call(limited, 21, twice=True) == 42
        assert (limited.__name__, limited.__doc__) == ("limited", "Its own words.")
        assert await held(semaphore) == 0

    def test_the_wrong_kind_of_function_is_refused(self, semaphores: Kind) -> None:
        async def coroutine() -> None: ...

        def function() -> None: ...

        def generator() -> Any:
            yield

        async def async_generator() -> Any:
            yield

        semaphore = semaphores()
        wrong = function if semaphores.asynchronous else coroutine
        for refused in (wrong, generator, async_generator):
            with pytest.raises(TypeError, match=refused.__name__):
                semaphore(refused)

    @pytest.mark.parametrize("cost", [5, 1.0, None])
    def test_a_semaphore_takes_no_cost(self, semaphores: Kind, cost: object) -> None:
        with pytest.raises(TypeError, match="takes no cost"):
            semaphores()(cost)
