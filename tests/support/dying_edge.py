"""`headgate edge` that ends as by kill -9 at a call, before it or right behind it.

python -m tests.support.dying_edge edge.outbox:Outbox.send after --config edge.yaml
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
from typing import Any

from headgate.cli import main


def arm(place: str, when: str) -> None:
    """Args: place: `module:Class.method`; when: before or after."""
    module, _, path = place.partition(":")
    owner_name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    wrapped = getattr(owner, method)

    def die(at: str) -> None:
        if when == at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def awaited(*arguments: Any, **options: Any) -> Any:
        die("before")
        found = await wrapped(*arguments, **options)
        die("after")
        return found

    def called(*arguments: Any, **options: Any) -> Any:
        die("before")
        found = wrapped(*arguments, **options)
        die("after")
        return found

    setattr(owner, method, awaited if inspect.iscoroutinefunction(wrapped) else called)


if __name__ == "__main__":
    arm(sys.argv[1], sys.argv[2])
    sys.exit(main(["edge", *sys.argv[3:]]))
