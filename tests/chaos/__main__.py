"""``python -m chaos plain``, or ``celery``, ``dramatiq``, ``arq``, ``mixed``: all faults, or those named by a word."""

from __future__ import annotations

import argparse
import sys

from chaos import jobs, plain
from chaos.queues import QUEUES
from chaos.table import JOBS, PLAIN, Row, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="What stays true whatever fails.")
    parser.add_argument("who", choices=["plain", *QUEUES], help="plain callers, or the workers of a queue, or of each")
    parser.add_argument("words", nargs="*", help="only faults whose names hold one of these")
    asked = parser.parse_args()
    rows: list[Row] = []
    play = plain.play if asked.who == "plain" else jobs.play
    for row in play(asked.who, asked.words):
        rows.append(row)
        print(f"  {row.fault}", file=sys.stderr, flush=True)
    print(table(asked.who, PLAIN if asked.who == "plain" else JOBS, rows))
    return 0 if all(row.is_right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
