"""For all tests, wherever they are started from."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell has what it starts in the background ignore SIGINT, and a process hands that down to those that it starts: the
# programs that tests interrupt would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Who has changed nothing sees no test fail that has passed before. New examples are looked for on purpose:
# `pytest --hypothesis-profile=random`.
settings.register_profile("random", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
