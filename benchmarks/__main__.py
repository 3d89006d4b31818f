"""All benchmarks that can run in this environment, one after the other: ``python -m benchmarks [--quick] [NAME …]``."""

from __future__ import annotations

import subprocess
import sys

LIMITERS = (
    "local", "redis_calls", "aggregate", "shared_calls", "exactness", "hand_over", "memory", "growth_names",
    "growth_lines", "growth_clients",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """The number of benchmarks that failed."""
    options = [argument for argument in arguments if argument.startswith("--")]
    names = [argument for argument in arguments if not argument.startswith("--")] or LIMITERS
    failed = 0
    for name in names:
        print(f"\n== {name}", flush=True)
        failed += subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *options]) != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
