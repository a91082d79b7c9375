"""`headgate aggregator` that ends as by kill -9 when it enters a phase, before that is on disk or right behind it.

python -m tests.support.dying_aggregator collecting before --config aggregator.yaml
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence

from aggregator.state import Phase, State
from aggregator.store import Entry, PendingEffect, Store
from headgate.cli import main


def arm(phase: Phase, when: str) -> None:
    """Args: when: before or after."""
    commit = Store.commit

    def deadly(store: Store, entries: Sequence[Entry], state: State, done: Iterable[int] = ()) -> list[PendingEffect]:
        known = store.load()
        enters = state.phase is phase and known is not None and known.phase is not phase
        if enters and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = commit(store, entries, state, done)
        if enters and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    Store.commit = deadly  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(Phase(sys.argv[1]), sys.argv[2])
    sys.exit(main(["aggregator", *sys.argv[3:]]))
