"""What the main process tells a pool process about a job, in place of the booking that the job carried.

A retry copies the header of its job. In this shape the next gate reads no booking from it.
"""

from __future__ import annotations

PASSED = "passed"
"""The job may run; holds what it carried."""
FAILURE = "failure"
"""The job is not to run: it fails with this error."""
