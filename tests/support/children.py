"""A forked child of the tests' own process, which ends in any case: it must not go on to be a second run of them."""

from __future__ import annotations

import faulthandler
import os
import traceback
from collections.abc import Callable

PATIENCE = 10.0


def ends_well_in_a_child(do: Callable[[], object]) -> bool:
    """Whether it raises nothing, and comes to its end, in a child that is forked now."""
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            do()
        except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
