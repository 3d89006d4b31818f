"""A process that holds a slot, or waits for one: it does what it is told, a word a line, and says what came of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

from steindamm import AsyncSemaphore, SyncSemaphore

PATIENCE = 15.0


class Holder:
    """Such a process, seen from the test."""

    def __init__(self, url: str, *, asynchronous: bool = False) -> None:
        command = [sys.executable, "-W", "error", str(Path(__file__)), "async" if asynchronous else "sync", url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._said: Queue[str] = Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.says() == "ready"

    def acquires(self, name: str, expiry: float, capacity: int = 1) -> None:
        """Tell it to wait for a slot; it says when it holds one."""
        self.tell(f"acquire {name} {expiry} {capacity}")

    def tell(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def says(self, patience: float = PATIENCE) -> str:
        try:
            return self._said.get(timeout=patience)
        except Empty:
            raise AssertionError("the process says nothing") from None

    def says_nothing(self) -> bool:
        return self._said.empty()

    def ask(self, word: str) -> str:
        self.tell(word)
        return self.says()

    def signal(self, number: int) -> None:
        from support.signals import send

        send(self.process, number)

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._said.put(line.strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()


def say(word: object) -> None:
    print(word, flush=True)


def made(kind: Any, url: str, name: str, expiry: str, capacity: str) -> Any:
    return kind(name=name, connection=url, expiry=float(expiry), capacity=int(capacity), max_sleep=0)


def run(url: str) -> None:
    semaphore: Any = None
    permit: Any = None
    for line in sys.stdin:
        match line.split():
            case ["acquire", *settings]:
                semaphore = made(SyncSemaphore, url, *settings)
                permit = semaphore.acquire()
                say("holds")
            case ["release"]:
                semaphore.release(permit)
                say("released")
            case ["lost"]:
                say(permit.lost)


async def arun(url: str) -> None:
    semaphore: Any = None
    permit: Any = None
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.split():
            case ["acquire", *settings]:
                semaphore = made(AsyncSemaphore, url, *settings)
                permit = await semaphore.acquire()
                say("holds")
            case ["release"]:
                await semaphore.release(permit)
                say("released")
            case ["lost"]:
                say(permit.lost)


def main() -> None:
    way, url = sys.argv[1:]
    say("ready")
    if way == "sync":
        run(url)
    else:
        asyncio.run(arun(url))


if __name__ == "__main__":
    main()
