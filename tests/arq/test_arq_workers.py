"""Limited jobs in real worker processes, measured at what they call."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

from arq.jobs import Job
from support.closures import CAPACITY, CLOSED, JOBS, RATE, check_closure, check_override, most_in_a_second
from support.standing_still import check_missed_start

from steindamm import SyncSemaphore, SyncTokenBucket

LEASE = 2.0


def most_at_once(broker: Any) -> int:
    events = sorted([(e.at, 1) for e in broker.journal("in")] + [(e.at, -1) for e in broker.journal("out")])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


def free_slots(broker: Any, name: str = "slots", capacity: int = 3, expiry: float = LEASE) -> int:
    """Slots that can be had at once; they are given back."""
    semaphore = SyncSemaphore(name, capacity=capacity, expiry=expiry, connection=broker.url)
    permits = [permit for permit in (semaphore.try_acquire() for _ in range(capacity)) if permit]
    for permit in permits:
        semaphore.release(permit)
    return len(permits)


def becomes(reached: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


async def test_two_workers_hold_the_limit_and_hold_up_nobody_else(broker: Any, send: Any, start_workers: Any) -> None:
    start_workers(2, max_jobs=40)
    count = 150
    for number in range(count):
        await send("call_api", number)
    await asyncio.to_thread(broker.wait_for, "call", CAPACITY + RATE // 2)
    sent = {}
    for number in range(10):
        sent[str(number)] = float("{}.{:06}".format(*broker.admin.time()))
        await send("unlimited", number)
        await asyncio.sleep(0.05)
    calls = await asyncio.to_thread(broker.wait_for, "call", count)
    assert sorted(int(call.job) for call in calls) == list(range(count))
    assert {call.more[0] for call in calls} == {"1"}
    moments = [call.at for call in calls]
    assert most_in_a_second(moments) <= (RATE + CAPACITY) * 1.2
    assert max(moments) - min(moments) >= (count - CAPACITY) / RATE * 0.95
    assert max(moments) - min(moments) <= (count - CAPACITY) / RATE * 2
    assert sum(broker.deliveries().values()) <= 10 + 2.2 * count
    waits = sorted(entry.at - sent[entry.job] for entry in broker.wait_for("unlimited", 10))
    assert waits[len(waits) // 2] < 1


async def test_a_closure_and_an_override_hold_in_all_processes(broker: Any, send: Any, start_workers: Any) -> None:
    start_workers(2, max_jobs=40)
    api = SyncTokenBucket("api", capacity=CAPACITY, refill_frequency=1 / RATE, connection=broker.url)
    loop = asyncio.get_running_loop()

    def send_jobs(first: int, end: int) -> None:
        for job in range(first, end):
            asyncio.run_coroutine_threadsafe(send("call_api", job), loop).result()

    def called(first: int, end: int) -> list[float]:
        assert becomes(lambda: len(moments(first, end)) >= end - first, 20)
        return moments(first, end)

    def moments(first: int, end: int) -> list[float]:
        return [call.at for call in broker.journal("call") if first <= int(call.job) < end]

    for job in range(JOBS):
        await send("call_api", job)
    await asyncio.to_thread(broker.wait_for, "call", 30)
    closed_at = float("{}.{:06}".format(*broker.admin.time()))
    api.close_for(CLOSED)
    check_closure(await asyncio.to_thread(called, 0, JOBS), closed_at)
    await asyncio.to_thread(check_override, api, send_jobs, called)


async def test_two_workers_share_the_slots(broker: Any, send: Any, start_workers: Any) -> None:
    start_workers(2)
    count, seconds = 60, 0.1
    for number in range(count):
        await send("hold_slot", number, seconds)
    ended = await asyncio.to_thread(broker.wait_for, "out", count)
    began = broker.journal("in")
    assert sorted(int(entry.job) for entry in began) == list(range(count))
    assert most_at_once(broker) == 3
    assert max(entry.at for entry in ended) - min(entry.at for entry in began) < 3 * count * seconds / 3


async def test_slots_are_back_however_a_job_ends(broker: Any, send: Any, start_workers: Any) -> None:
    start_workers()
    for ending in ("returns", "raises", "retries"):
        jobs = [await send("hold_slot", number, 0.05, ending) for number in range(3)]
        assert [await outcome(job) for job in jobs] == ([0, 1, 2] if ending != "raises" else [ValueError] * 3)
        assert free_slots(broker) == 3, ending
    jobs = [await send("hold_slot_briefly", number, 30) for number in range(3)]
    assert [await outcome(job) for job in jobs] == [TimeoutError] * 3
    assert free_slots(broker) == 3, "timeout"
    jobs = [await send("hold_slot", number, 30) for number in range(3)]
    await asyncio.to_thread(broker.wait_for, "in", 9 + 3 + 3 + 3)
    assert [await job.abort(poll_delay=0.05) for job in jobs] == [True] * 3
    assert free_slots(broker) == 3, "abort"


async def outcome(job: Job) -> Any:
    """What a job returned, or the class of what it raised."""
    try:
        return await job.result(timeout=10, poll_delay=0.05)
    except (ValueError, TimeoutError) as error:
        return type(error)


async def test_a_worker_that_is_told_to_end_gives_its_slots_back(broker: Any, send: Any, start_workers: Any) -> None:
    [worker] = start_workers()
    for number in range(3):
        await send("hold_slot", number, 30)
    await asyncio.to_thread(broker.wait_for, "in", 3)
    assert free_slots(broker) == 0
    assert worker.end(signal.SIGTERM) == 0
    assert free_slots(broker) == 3


async def test_a_waiting_job_outlives_its_timeout_where_its_worker_stands_still(
    broker: Any, send: Any, start_workers: Any
) -> None:
    """Else it would fail, for good, without having begun."""
    [worker] = start_workers(job_timeout=3, max_jobs=20)
    for number in range(8):
        await send("hold_slot", number, 0.4)
    await asyncio.to_thread(broker.wait_for, "in", 3)
    await asyncio.to_thread(broker.wait_for, "delivered", 8)
    worker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(4)
    worker.process.send_signal(signal.SIGCONT)
    await asyncio.to_thread(broker.wait_for_jobs, "in", 8)
    begun = {entry.job: entry.more[0] for entry in broker.journal("in")}
    assert [begun[str(number)] for number in range(3, 8)] == ["1"] * 5


async def test_so_does_one_that_had_not_come_to_its_first_step(broker: Any, send: Any, start_workers: Any) -> None:
    """arq counts its timeout from before then."""
    [worker] = start_workers(job_timeout=1, stops_before_first_step=True)
    await send("hold_slot", 0)
    await asyncio.to_thread(broker.wait_for, "delivered", 1)
    await asyncio.sleep(2)
    async with asyncio.timeout(20):
        while not broker.journal("in"):
            worker.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.2)
    assert [entry.more[0] for entry in broker.journal("in")] == ["1"]


async def test_a_job_that_was_let_start_before_its_worker_stood_still_waits_for_a_slot_again(
    broker: Any, send: Any, start_workers: Any
) -> None:
    """Its timeout passes meanwhile as well."""
    start_workers()
    await send("hold_only_slot", 0)
    await asyncio.to_thread(check_missed_start, broker.url, "only slot", lambda: len(broker.journal("in")))
    assert [entry.more for entry in broker.journal("in")] == [["1"]]


async def test_a_killed_worker_frees_its_slots_after_their_lease(broker: Any, send: Any, start_workers: Any) -> None:
    [doomed] = start_workers()
    for number in range(3):
        await send("hold_slot", number, 30)
    await asyncio.to_thread(broker.wait_for, "in", 3)
    doomed.end(signal.SIGKILL)
    killed_at = float("{}.{:06}".format(*broker.admin.time()))
    start_workers()
    await send("hold_slot", 3)
    [next_one] = [entry for entry in await asyncio.to_thread(broker.wait_for, "in", 4) if entry.job == "3"]
    assert LEASE / 2 < next_one.at - killed_at < 3 * LEASE


async def test_a_job_that_only_waits_when_its_worker_ends_spends_no_try(
    broker: Any, send: Any, start_workers: Any
) -> None:
    [worker] = start_workers()
    await send("wait_in_worker", 0, 0.5)
    await asyncio.to_thread(broker.wait_for, "in", 1)
    job = await send("wait_in_worker", 1)
    assert await asyncio.to_thread(becomes, lambda: job.job_id in broker.deliveries(), 5)
    await asyncio.sleep(0.1)
    assert worker.end(signal.SIGTERM) == 0
    assert broker.tries(job.job_id) == 0
    start_workers()
    began = await asyncio.to_thread(broker.wait_for, "in", 3)
    assert [entry.more for entry in began if entry.job == "1"] == [["1"]]
