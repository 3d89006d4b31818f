"""The command ``steindamm demo``: its options, and what it says when it can't run."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from steindamm.demo.errors import DemoError
from steindamm.demo.interruption import Interrupted, Interruption
from steindamm.demo.plan import Plan
from steindamm.demo.queues import QUEUES
from steindamm.rate import Rate

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_to(commands: Commands) -> None:
    """Add ``demo`` to the commands of ``steindamm``."""
    parser = commands.add_parser(
        "demo",
        help="show real workers held to the limit of a real API",
        description="Start a private Valkey, an HTTP API with a limit, and workers whose jobs call it; show all.",
    )
    parser.add_argument("queue", nargs="?", choices=sorted(QUEUES), default="celery", help="default: %(default)s")
    parser.add_argument("--jobs", type=count, default=400, metavar="N", help="jobs to send (default: %(default)s)")
    parser.add_argument(
        "--limit",
        type=limit,
        default="50/s",
        metavar="RATE",
        help='what the API allows, as in "50/s" or "100/m" (default: %(default)s)',
    )
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="worker processes (default: %(default)s)")
    parser.add_argument("--unthrottled", action="store_true", help="the same without steindamm, to compare")
    parser.set_defaults(run=run)


def count(text: str) -> int:
    """A whole number above zero."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return number


def limit(text: str) -> Rate:
    """A rate in text form."""
    try:
        return Rate.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options: argparse.Namespace) -> int:
    """Run the demo as the options say.

    Returns:
        0 when every job was done, and, throttled, without a 429; 1 when not; 2 when something it
        needs isn't there; 128 and the signal's number when a signal ended it (130 for Ctrl-C).
    """
    interruption = Interruption()
    interruption.listen()
    plan = Plan(options.queue, options.jobs, options.limit, options.workers, not options.unthrottled)
    try:
        check_platform()
        check_installed(plan.queue)
        from steindamm.demo.run import run_demo

        return 0 if run_demo(plan, interruption) else 1
    except Interrupted as interrupted:
        print("stopped; no process is left", file=sys.stderr)
        return interrupted.exit_code
    except DemoError as error:
        print(f"steindamm demo: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def check_platform() -> None:
    """Refuse where processes work in another way."""
    if os.name != "posix":
        raise DemoError("needs Linux or macOS: the workers that it starts need fork", exit_code=2)


def check_installed(queue: str) -> None:
    """Refuse, naming the extra, where something that the demo imports isn't installed."""
    needs = QUEUES[queue]
    missing = [package for package in needs.packages if find_spec(package) is None]
    if missing:
        raise DemoError(
            f'{", ".join(missing)} not installed; the demo needs: pip install "steindamm[{needs.extra}]"',
            exit_code=2,
        )
