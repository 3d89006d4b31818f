"""A forked child neither renews nor releases what its parent holds, and can use every limiter itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.semaphores import fresh_name
from support.servers import Cluster, Server

TESTS = str(Path(__file__).parents[1])
FORKING = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from steindamm import SyncSemaphore
from support.children import ends_well_in_a_child

url, name = sys.argv[1:]
connection = None if url == "local" else url

def made(**settings):
    return SyncSemaphore(name=name, connection=connection, expiry=1, **settings)
"""

HELD_BY_THE_PARENT = (
    FORKING
    + """
semaphore = made(capacity=1, max_sleep=0)
with semaphore as permit:
    def leave_the_block_of_the_parent():
        assert permit.lost
        semaphore.__exit__(None, None, None)
        semaphore.release(permit)
        time.sleep(0.5)
    assert ends_well_in_a_child(leave_the_block_of_the_parent)
    assert not permit.lost
    if connection:
        assert semaphore.try_acquire() is None
        time.sleep(1.2)
        assert semaphore.try_acquire() is None
assert semaphore.try_acquire()
print("done")
"""
)

RENEWED_BY_THE_PARENT_ALONE = (
    FORKING
    + """
semaphore = made(capacity=1)
permit = semaphore.acquire()
child = os.fork()
if not child:
    time.sleep(30)
    os._exit(0)
grandparent = os.fork()
if grandparent:
    # This one goes away without a word; the child lives on.
    semaphore._backend.link.watch.remove(permit)
    began_at = time.monotonic()
    while semaphore.try_acquire() is None:
        assert time.monotonic() - began_at < 10, "the child renews"
        time.sleep(0.02)
    os.kill(child, 9)
    os.kill(grandparent, 9)
    print("done")
else:
    time.sleep(30)
"""
)

USED_BY_BOTH = (
    FORKING
    + """
semaphore = made(capacity=2, max_sleep=8)
stop = threading.Event()

def use():
    while not stop.is_set():
        with semaphore:
            time.sleep(0.0005)

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()

def use_it_too():
    for _ in range(5):
        with semaphore as permit:
            assert not permit.lost
    helpers = [threading.Thread(target=lambda: semaphore.release(semaphore.acquire())) for _ in range(4)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join(8)
        assert not helper.is_alive()

good = [ends_well_in_a_child(use_it_too) for _ in range(int(os.environ["CHILDREN"]))]
stop.set()
for thread in threads:
    thread.join(10)
print("done" if all(good) else good)
"""
)


def run(script: str, url: str, children: int = 0) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, url, fresh_name()],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"CHILDREN": str(children), "PYTHONPATH": TESTS},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


@pytest.mark.parametrize("backend", ["local", "valkey"])
def test_a_child_does_not_release_what_its_parent_holds(valkey: Server, backend: str) -> None:
    run(HELD_BY_THE_PARENT, valkey.url if backend == "valkey" else "local")


def test_a_child_does_not_renew_what_its_parent_holds(valkey: Server) -> None:
    run(RENEWED_BY_THE_PARENT_ALONE, valkey.url)


@pytest.mark.parametrize(("backend", "children"), [("local", 30), ("valkey", 8), ("cluster", 2)])
def test_16_children_forked_while_threads_use_a_semaphore_can_use_it_too(
    request: pytest.FixtureRequest, backend: str, children: int
) -> None:
    server: Server | Cluster | None = None if backend == "local" else request.getfixturevalue(backend)
    run(USED_BY_BOTH, server.url if server else "local", children)
