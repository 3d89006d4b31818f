"""Real Dramatiq workers, started by its command line: what is sent to them, and what they wrote down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import redis
from dramatiq import Broker, Message
from dramatiq.brokers.redis import RedisBroker

PATIENCE = 30.0
START_PATIENCE = 60.0
APP = "support.dramatiq_app"
TESTS = Path(__file__).parent.parent


class Line(NamedTuple):
    """A line of the journal: when, what, and what it says."""

    at: float
    what: str
    says: tuple[str, ...]


class Ended(NamedTuple):
    """A job that has run: how often it was deferred and retried before, and which queue it was of."""

    job: str
    deferrals: int
    retries: int
    queue: str


class Workers:
    """Worker processes, and the means to send them jobs.

    Parameters:
        folder: Where their output is kept.
        servers: The URLs of ``broker``, ``journal`` and ``limits``.
        processes: How many there are.
        threads: How many each has.
    """

    def __init__(self, folder: Path, servers: dict[str, str], processes: int = 2, threads: int = 4) -> None:
        self.broker = broker_at(servers["broker"])
        self.broker.declare_queue("default")
        self.journal = redis.Redis.from_url(servers["journal"])
        self.log = folder / f"workers {time.monotonic_ns()}.log"
        environment = {**os.environ, "STEINDAMM_TEST_SERVERS": json.dumps(servers), "PYTHONPATH": _path()}
        before = len(self.of("ready"))
        command = [sys.executable, "-m", "dramatiq", APP, "--processes", str(processes), "--threads", str(threads)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait_for(lambda: len(self.of("ready")) == before + processes, "workers that are ready", START_PATIENCE)
        except BaseException:
            self.kill()
            raise

    def message(self, actor: str, *args: Any, **options: Any) -> Message[Any]:
        """A job that is not sent."""
        return Message(queue_name="default", actor_name=actor, args=args, kwargs={}, options=options)

    def send(self, actor: str, *args: Any, **options: Any) -> Message[Any]:
        """Send a job."""
        message = self.message(actor, *args, **options)
        self.broker.enqueue(message)
        return message

    def lines(self) -> list[Line]:
        """The journal."""
        written = (json.loads(line) for line in self.journal.lrange("journal", 0, -1))
        return [Line(at, what, tuple(says)) for at, what, *says in written]

    def of(self, what: str) -> list[Line]:
        """The lines of one kind."""
        return [line for line in self.lines() if line.what == what]

    def wait_for(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + patience
        while not condition():
            assert self.process.poll() is None, f"the workers have ended:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what} within {patience:g} s:\n{self.output()[-4000:]}"
            time.sleep(0.02)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self, actor: str) -> list[Ended]:
        """What was written when jobs had run."""
        said = [line.says for line in self.of("ended") if line.says[0] == actor]
        return [Ended(job, int(deferrals), int(retries), queue) for _, job, deferrals, retries, queue in said]

    def stop(self) -> None:
        """End them in order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End them at once, as a power cut does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.broker.close()
        self.journal.close()


def broker_at(url: str) -> Broker:
    """A broker to send through."""
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=url, middleware=[])
    return RedisBroker(url=url, middleware=[])


def _path() -> str:
    return os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])


def most_in(times: list[float], seconds: float) -> int:
    """The largest number within any window of so many seconds."""
    times = sorted(times)
    return max(sum(begin <= at < begin + seconds for at in times) for begin in times)
