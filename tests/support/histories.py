"""How many random histories the two homes of a rule are compared over."""

from __future__ import annotations

import os

HISTORIES = int(os.environ.get("STEINDAMM_TEST_HISTORIES", "2000"))
