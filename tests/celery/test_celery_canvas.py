"""Chains, groups, chords and callbacks of jobs that had to wait are as if these had waited in the queue."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group
from support.celery_workers import PATIENCE


@pytest.fixture
def slowly(label: str) -> list[object]:
    """A limit that lets one job pass at once, and makes the others wait."""
    return [label, "10/s", 1]


def test_a_group_gives_each_result_once(farm: Any, slowly: list[object]) -> None:
    jobs = group(farm.signature("add", slowly, 1000, number) for number in range(5))
    assert jobs.apply_async().get(timeout=PATIENCE) == [1000, 1001, 1002, 1003, 1004]
    assert len(farm.journal("added", "(1000, ")) == 5


def test_a_chord_adds_up_once(farm: Any, slowly: list[object]) -> None:
    header = [farm.signature("add", slowly, 2000, number) for number in range(5)]
    result = chord(header, app=farm.app)(farm.signature("add_up"))
    assert result.get(timeout=PATIENCE) == 10010
    assert len(farm.journal("added", "[2000, ")) == 1


def test_a_chain_takes_each_step_once(farm: Any, label: str) -> None:
    slow = [label, 1, 60.0]
    first = farm.signature("work", slow, f"{label} first", "sleep", 0.2)
    second = farm.signature("work", slow, f"{label} second", immutable=True)
    third = farm.signature("work", [f"{label} rate", "5/s"], f"{label} third", immutable=True)
    farm.send("work", [f"{label} rate", "5/s"], "before")
    assert chain(first, second, third).apply_async().get(timeout=PATIENCE) == f"{label} third"
    assert [entry.job for entry in farm.journal("end", label)] == [f"{label} {n}" for n in ("first", "second", "third")]


def test_a_callback_is_called_once(farm: Any, slowly: list[object], label: str) -> None:
    calling = farm.signature("note", label)
    jobs = [farm.send("add", slowly, 3000, number, link=calling) for number in range(4)]
    assert [job.get(timeout=PATIENCE) for job in jobs] == [3000, 3001, 3002, 3003]
    notes = farm.wait_for("noted", label, count=4)
    assert sorted(note.more[0] for note in notes) == [f"int: {3000 + number}" for number in range(4)]


def test_who_waits_for_a_result_gets_it_when_the_job_has_run(farm: Any, slowly: list[object], label: str) -> None:
    jobs = [farm.send("work", slowly, f"{label} {number}") for number in range(4)]
    assert [job.get(timeout=PATIENCE) for job in jobs] == [f"{label} {number}" for number in range(4)]
    assert {job.state for job in jobs} == {"SUCCESS"}
