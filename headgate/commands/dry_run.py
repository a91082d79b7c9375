"""`headgate bridge --dry-run`: a table of what would leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.bridge.custody import Custody
from broker_bridge.bridge.dry_run import DryRun
from broker_bridge.bridge.mirror import kept_plan
from broker_bridge.bridge.policy import ExportPolicy
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from headgate.exits import Exit
from headgate.running import run_service
from uns_topics.plan import Plan

WIDTH = 100


def run_dry(config: BridgeConfig, policy: ExportPolicy, minutes: float, *, as_json: bool) -> int:
    """Listen on the plant's broker for some minutes, or until Ctrl-C, then print. Raises: what connecting raises."""
    run = DryRun(config, policy, _kept_plans(config))

    async def main(stop: asyncio.Event) -> int:
        def hear(message: Message) -> None:
            run.on_message(message, time.monotonic())

        connector = PahoConnector(config.plant)
        async with connector.connect(f"{config.bridge}-dry-run-{os.getpid()}", on_message=hear) as session:
            await session.subscribe(*run.filters)
            Console(stderr=True).print(f"listening on {config.plant.address} for {minutes:g} minutes; Ctrl-C ends it")
            lost = asyncio.create_task(session.wait_closed(), name="dry run session")
            stopping = asyncio.create_task(stop.wait(), name="dry run stop")
            await asyncio.wait({lost, stopping}, timeout=60 * minutes, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if lost.done():
                lost.result()
            lost.cancel()
            await asyncio.gather(lost, stopping, return_exceptions=True)
        return Exit.OK

    started = time.monotonic()
    code = run_service(main)
    _show(run, time.monotonic() - started, as_json=as_json)
    return Exit.OK if code == Exit.INTERRUPTED else code


def _kept_plans(config: BridgeConfig) -> dict[str, Plan]:
    """What a bridge of this configuration has kept; nothing where none has run yet."""
    path = config.data_dir / "bridge.sqlite"
    if not path.exists():
        return {}
    with contextlib.closing(Custody(path)) as custody:
        plans = {
            federation: kept_plan(custody, federation) for federation in {p.federation for p in config.participants}
        }
    return {federation: plan for federation, plan in plans.items() if plan is not None}


def _show(run: DryRun, seconds: float, *, as_json: bool) -> None:
    rows = sorted(run.messages)
    if as_json:
        content: dict[str, Any] = {
            "seconds": round(seconds, 1),
            "without_plan": list(run.without_plan),
            "rows": [
                {
                    "verdict": row.verdict,
                    "federation": row.federation,
                    "participant": row.participant,
                    "kind": row.kind,
                    "because": row.because,
                    "messages": run.messages[row],
                    "bytes": run.bytes[row],
                }
                for row in rows
            ],
        }
        print(json.dumps(content), flush=True)
        return
    table = Table("", "participant", "kind", "policy line or reason", box=None, pad_edge=False)
    for name in ("messages", "bytes"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = (f"{run.messages[row]:,}", f"{run.bytes[row]:,}")
        table.add_row(row.verdict, f"{row.participant} in {row.federation}", row.kind, row.because, *numbers)
    console = Console(width=WIDTH if not Console().is_terminal else None)
    console.print(table if rows else "nothing was said by these participants")
    if run.without_plan:
        console.print(
            f"no plan is known yet for {', '.join(run.without_plan)}: updates and reports couldn't be judged",
            style="bold",
        )
