"""Twenty workers that wait at one limit: how much of it is used, and whether any window holds more than it may."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from benchmarks.support.crew import Contender, Crew
from benchmarks.support.crew import crews as started
from benchmarks.support.servers import load, server, version
from benchmarks.support.tables import Table, run
from tests.support.servers import Server

PROCESSES, THREADS, RATE = 4, 5, 100
WINDOW = 1.0


@dataclass(frozen=True)
class Setting:
    """A limit of a hundred a second.

    Attributes:
        capacity: What may start at once after a pause.
        step: Seconds between refills.
        contenders: Who can be told this limit.
    """

    capacity: int
    step: float
    contenders: list[Contender]

    @property
    def title(self) -> str:
        return f"{RATE}/s, capacity {self.capacity}, refilled every {self.step:g} s"

    def allowed(self, seconds: float) -> int:
        """The most that may start in a window of so many seconds, however it lies on the grid of refills."""
        amount = round(RATE * self.step)
        return self.capacity + amount * round(seconds / self.step)


def steindamms(capacity: int, step: float) -> list[Contender]:
    settings = {"capacity": capacity, "refill_frequency": step, "refill_amount": RATE * step}
    return [
        Contender("steindamm, threads", "peers.steindamm:redis_bucket", settings),
        Contender("steindamm, tasks", "peers.steindamm:async_redis_bucket", settings),
        Contender("steindamm 0.11.1, threads", "peers.steindamm:redis_bucket", settings, is_published=True),
    ]


def throttled(using: str, burst: int) -> Contender:
    name = f"throttled-py, {'GCRA' if using == 'gcra' else 'token bucket'}"
    return Contender(name, "peers.throttled:waiting", {"using": using, "amount": RATE, "burst": burst})


def pyrate(algorithm: str, burst: int) -> Contender:
    place = {"algorithm": algorithm, "amount": RATE, "burst": burst}
    return Contender(f"pyrate-limiter, {algorithm}", "peers.pyrate:waiting", place)


SETTINGS = [
    Setting(
        100,
        1.0,
        [
            *steindamms(100, 1.0),
            Contender("limits, fixed window", "peers.limits:waiting", {"strategy": "fixed", "amount": RATE}),
            Contender("limits, sliding window", "peers.limits:waiting", {"strategy": "sliding", "amount": RATE}),
            throttled("token_bucket", 100),
            pyrate("token bucket", 100),
            Contender("dramatiq, bucket", "peers.dramatiq:waiting_bucket", {"amount": RATE}),
        ],
    ),
    Setting(10, 0.1, [*steindamms(10, 0.1), throttled("token_bucket", 10), throttled("gcra", 10), pyrate("gcra", 10)]),
    Setting(1, 0.01, [*steindamms(1, 0.01), throttled("gcra", 1), pyrate("gcra", 1)]),
]


def most_in_window(grants: list[float]) -> int:
    """The most grants that any window of a second holds."""
    return max(bisect_left(grants, start + WINDOW) - index for index, start in enumerate(grants))


def observed(running: Server, crew: Crew, setting: Setting, seconds: float) -> list[float | str]:
    """One contender's figures."""
    workers: list[list[tuple[float, float]]] = []

    def uses() -> int:
        workers.extend(crew.record(THREADS, seconds))
        return sum(map(len, workers))

    it = load(running, uses)
    grants = sorted(began for worker in workers for began, _ in worker)
    first = grants[0]
    within = [grant for grant in grants if grant <= first + seconds - setting.step / 2]
    refills = int((seconds - setting.step / 2) / setting.step)
    allowed = setting.capacity + refills * round(RATE * setting.step)
    fairness = max(map(len, workers)) / max(1, min(map(len, workers)))
    return [len(within) / allowed, float(most_in_window(grants)), it.round_trips, it.commands, it.cpu_us, fairness]


def measured(running: Server, setting: Setting, seconds: float) -> Table:
    bound = setting.allowed(WINDOW)
    columns = [
        "granted / allowed", f"most in 1 s (bound {bound})", "round trips a grant", "commands a grant",
        "Redis CPU us a grant", "most / fewest grants of a worker",
    ]  # fmt: skip
    name = f"exact-{setting.capacity}"
    table = Table(name, f"{PROCESSES * THREADS} workers, {setting.title}, {seconds:g} s", columns)
    for contender in setting.contenders:
        running.admin.flushall()
        with started([contender], size=PROCESSES, url=running.url) as crews:
            for crew in crews:
                table.add(crew.name, *observed(running, crew, setting, seconds))
    return table


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    with server() as running:
        tables = [measured(running, setting, 2.0 if quick else 10.0) for setting in SETTINGS]
        return tables, version(running)


if __name__ == "__main__":
    run("exactness", measure)
