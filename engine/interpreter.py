"""What the engine sets of Python's interpreter. For the whole process, so each only ever goes the engine's way."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.0001
"""How long the writing thread waits for the event loop to give up the GIL, which it does for each of a batch's eight or
so statements: at Python's 5 ms all that follows would be decided before it is written, and nothing would overlap."""
GC_THRESHOLDS = (20_000, 20, 50)
"""When Python looks for garbage in cycles. At its 700 new objects it would go through a batch's facts and rows while
they are needed, time and again, and through all residents: that is a fifth to a third of an event's CPU. Nothing that
an event makes is in a cycle (most of its structs are not even tracked: `gc=False`)."""


def tune() -> None:
    """Make the switch interval no longer, and the thresholds no lower, than these. Garbage collection that somebody has
    switched off stays off."""
    if sys.getswitchinterval() > SWITCH_INTERVAL_S:  # To set what it says already would make it shorter by rounding.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
    thresholds = gc.get_threshold()
    if thresholds[0]:
        gc.set_threshold(*map(max, thresholds, GC_THRESHOLDS))
