"""The scripts that Redis runs: assembled from the files in ``lua/``, called by their hash."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

BUCKET = ("bucket_rules", "bucket_live", "bucket_state")
"""The parts that a script needs to decide on a bucket."""
BUCKET_ALONE = ("bucket_at_once", *BUCKET, "bucket")
"""Those of the script that does nothing else."""


class Script(NamedTuple):
    """A script's text and the hash that Redis knows it by."""

    text: str
    sha: str


@cache
def script(*parts: str) -> Script:
    """The script that the named files make up, in this order."""
    folder = files("steindamm") / "lua"
    text = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def bucket_script() -> Script:
    """Decides on requests to a token bucket."""
    return script("clock", *BUCKET_ALONE)


def bucket_change_script() -> Script:
    """Closes, reopens, slows or overrides a token bucket."""
    return script("clock", *BUCKET, "bucket_change")


def semaphore_script() -> Script:
    """Decides on requests to a semaphore."""
    return script("clock", "semaphore_at_once", "semaphore_rules", "semaphore")


def semaphore_change_script() -> Script:
    """Closes, reopens or overrides a semaphore."""
    return script("clock", "semaphore_rules", "semaphore_change")


def bucket_look_script() -> Script:
    """Tells what is remembered of a token bucket."""
    return script("clock", "hex", "bucket_look")


def semaphore_look_script() -> Script:
    """Tells what is remembered of a semaphore."""
    return script("clock", "hex", "semaphore_look")


def all_of_script() -> Script:
    """Decides on requests to several limits at once."""
    return script("clock", *BUCKET, "semaphore_rules", "all_of_rules", "all_of")


def jobs_note_script() -> Script:
    """Notes which jobs wait at a limiter."""
    return script("clock", *BUCKET, "jobs_clock", "jobs_note")


def jobs_find_script() -> Script:
    """Tells where a job stands."""
    return script("clock", *BUCKET, "jobs_clock", "jobs_find")


def jobs_entry_script() -> Script:
    """Tells what is noted of a job."""
    return script("jobs_entry")
