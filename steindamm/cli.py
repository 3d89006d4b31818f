"""The command line: ``steindamm <command>``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from steindamm.demo import command as demo

COMMANDS = (demo,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters:
        arguments: What stands after ``steindamm``; by default what the shell gave.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="steindamm", description="Rate and concurrency limits for Python code and task-queue workers."
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))


if __name__ == "__main__":
    raise SystemExit(main())
