"""A plant with history trains on its first day: an export, an edge and an aggregator, and not one live message."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headgate.exits import Exit
from tests.aio import run
from tests.e2e.federation import federation
from tests.edge.backfill.exports import write
from tests.servers import Server

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(120)]
BOARDS = 200


def history(path: Path) -> Path:
    spi, aoi = "acme/berlin/smt/line1/spi", "acme/berlin/smt/line1/aoi"
    start_s, rows = time.time() - BOARDS * 60, []
    for number in range(BOARDS):
        time_s, is_bad = start_s + 60 * number, number % 10 == 3
        rows += [
            (time_s, f"{spi}/board", f"B{number}"),
            (time_s, f"{spi}/volume", (150 if is_bad else 95) + number % 7),
            (time_s + 20, f"{aoi}/board", f"B{number}"),
            (time_s + 20, f"{aoi}/verdict", "BRIDGE" if is_bad else "OK"),
        ]
    return write(path, ("timestamp", "tag", "value"), rows)


def test_the_first_round_needs_no_live_message(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker) as f:
            config = f.write_edge("berlin")
            fill = ("edge", "backfill", "--config", str(config), "--from", str(history(tmp_path / "export.csv")))
            filled = await f.start("backfill", *fill)
            assert await filled.process.wait() == Exit.OK, filled.tail()
            assert "training  possible" in filled.tail()
            await f.start_edge("berlin")
            await f.start_aggregator(base_model, tolerances={"rounds": 1, "quorum": 1, "min_new_samples": 0})
            await f.until(lambda: f.rests, "the only round")
            ended = f.summary(1)
            assert ended is not None
            assert ended.result == "promoted"
            del f.services["backfill"]
            again = await f.start("backfill", *fill)
            assert await again.process.wait() == Exit.INTEGRITY, again.tail()
            assert "samples.sqlite is in use" in again.tail()
            del f.services["backfill"]
            assert await f.stop("berlin") == Exit.OK
            after = await f.start("backfill", *fill)
            assert await after.process.wait() == Exit.OK, after.tail()
            assert f"{BOARDS} made, 0 new in the store" in after.tail()

    run(main(), 100)
