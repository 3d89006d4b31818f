"""Forks while threads use two limiters, and uses them in each child: forking.py NAME [url|client URL]."""

import faulthandler
import os
import signal
import sys
import threading
import time

from redis import Redis

from steindamm import SyncTokenBucket

CHILDREN = 25
PATIENCE = 40

faulthandler.register(signal.SIGUSR1)
name, *rest = sys.argv[1:]
url = rest[1] if rest else None
connection = Redis.from_url(url) if url and rest[0] == "client" else url
quick = SyncTokenBucket(name=f"fork-{name}", capacity=1e6, refill_frequency=0.001, connection=connection)
waiting = SyncTokenBucket(name=f"forkwait-{name}", capacity=1, refill_frequency=0.002, connection=connection)
ended = threading.Event()


def use(limiter: SyncTokenBucket) -> None:
    while not ended.is_set():
        limiter.acquire()


def ends(child: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGUSR1)
            time.sleep(0.5)
            os.kill(child, signal.SIGKILL)
            return False
        time.sleep(0.001)
    return True


for limiter in (quick, quick, waiting, waiting):
    threading.Thread(target=use, args=[limiter]).start()
hanging = 0
for _ in range(CHILDREN):
    time.sleep(0.005)
    child = os.fork()
    if not child:
        quick.acquire()
        waiting.acquire()
        os._exit(0)
    hanging += not ends(child)
ended.set()
print(f"{hanging} of {CHILDREN} children hang")
