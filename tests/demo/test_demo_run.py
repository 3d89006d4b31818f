"""The demo from start to end, with real workers."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

StartDemo = Callable[..., Any]

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def measured(output: str, what: str) -> str:
    """What the table says of something."""
    match = re.search(rf"│ {what} +│ ([^│]*?) +│", output)
    assert match, output
    return match[1]


def test_throttled_jobs_are_all_done_and_none_is_refused(demo: StartDemo) -> None:
    run = demo("--jobs", "60", "--limit", "20/s")
    assert run.wait() == 0, run.output + run.errors
    assert measured(run.output, "jobs done") == "60 of 60"
    assert measured(run.output, "jobs run twice") == "0"
    assert measured(run.output, "answers of 429") == "0"
    assert run.errors == ""


def test_without_steindamm_most_calls_are_refused(demo: StartDemo) -> None:
    run = demo("--jobs", "60", "--limit", "2/s", "--workers", "1", "--unthrottled")
    assert run.wait() == 0, run.output + run.errors
    assert measured(run.output, "jobs done") == "60 of 60"
    refused, _ = measured(run.output, "answers of 429").split(" ", 1)
    assert int(refused) > 30
    assert "▒" in run.output


@needs_proc
@pytest.mark.parametrize(
    ("said", "signum"),
    [
        ("an API that allows", signal.SIGINT),
        ("starting the API", signal.SIGINT),
        ("starting 2 Celery workers", signal.SIGINT),
        ("sending", signal.SIGINT),
        ("running", signal.SIGINT),
        ("running", signal.SIGTERM),
        ("stopping", signal.SIGINT),
    ],
)
def test_a_signal_at_any_moment_leaves_nothing(demo: StartDemo, tmp_path: Path, said: str, signum: int) -> None:
    jobs = "20" if said == "stopping" else "5000"
    run = demo("--jobs", jobs, "--limit", "10/s", "--unthrottled")
    run.read_until(said)
    run.process.send_signal(signum)
    code = run.wait()
    assert run.processes() == []
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in run.errors + run.output
    assert code == (0 if said == "stopping" else 128 + signum)


@needs_proc
def test_a_killed_demo_leaves_no_process(demo: StartDemo) -> None:
    run = demo("--jobs", "5000", "--unthrottled")
    run.read_until("running")
    living = str(run.processes())
    assert all(name in living for name in ("valkey-server", "steindamm.demo.api", "celery"))
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    assert eventually_none(run)


def eventually_none(run: Any) -> bool:
    """The system ends the children of a killed process soon, not at once."""
    for _ in range(100):
        if not run.processes():
            return True
        time.sleep(0.05)
    return False


def test_what_is_missing_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from steindamm.demo import command

    monkeypatch.setattr(command, "find_spec", lambda package: None if package == "rich" else object())
    with pytest.raises(command.DemoError, match=r'^rich not installed; .*pip install "steindamm\[demo\]"') as refused:
        command.check_installed("celery")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "5/fortnight"], "5/fortnight"),
        (["--limit", "0/s"], "above 0"),
        (["--jobs", "0"], "'0'"),
        (["--workers", "x"], "'x'"),
        (["rq"], "'rq'"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from steindamm.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["demo", *options])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
