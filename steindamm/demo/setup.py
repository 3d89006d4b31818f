"""What a worker process must know, handed to it in its environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

VARIABLE = "STEINDAMM_DEMO"


@dataclass(frozen=True)
class Setup:
    """Where things are.

    Parameters:
        valkey: URL of the broker, result store and limiter.
        api: URL of the API.
        limit: The limit in text form, or None to run without steindamm.
    """

    valkey: str
    api: str
    limit: str | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Setup:
        """Read it from an environment."""
        return cls(**json.loads(environment[VARIABLE]))

    def environment(self) -> dict[str, str]:
        """The variables that carry it."""
        return {VARIABLE: json.dumps(asdict(self))}
