"""A bell wakes the one thread that waits for it."""

from __future__ import annotations

from threading import Thread

from steindamm.bell import Bell


def test_it_wakes_the_one_who_waits() -> None:
    bell = Bell()
    thread = Thread(target=bell.ring)
    thread.start()
    assert bell.wait(10)
    thread.join()


def test_it_is_heard_by_one_who_comes_later_and_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait()
    assert not bell.wait(0)


def test_what_was_cleared_is_not_heard() -> None:
    bell = Bell()
    bell.clear()
    bell.ring()
    bell.clear()
    assert not bell.wait(0)
    bell.ring()
    assert bell.wait(0)
