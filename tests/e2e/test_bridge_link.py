"""What crosses a bad link: `headgate bridge` as a process, with a link above it that flaps and is cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.ends import case_of, ends, offer_model, upload
from tests.servers import Server

pytestmark = [pytest.mark.broker, pytest.mark.e2e]

CASE = case_of(500_000)
"""Two megabytes of float32: some seconds on a link of half a megabyte a second."""
RATE = 500_000.0


@pytest.mark.timeout(120)
def test_an_upload_over_a_flapping_link(tmp_path: Path, broker: Server) -> None:
    """Up for a second, down for a third of one: no more than 1.3 times the bytes of a clean transfer."""

    async def main() -> None:
        async with ends(tmp_path, broker, CASE) as both:
            both.link.bytes_per_s = RATE
            before = both.link.up
            flapping = asyncio.create_task(both.link.flap(1.0, 0.3))
            await upload(both)
            await both.until("accepted", 90)
            flapping.cancel()
            ratio = (both.link.up - before) / len(CASE.update)
            assert both.whole_above == CASE.update
            assert both.link.connections >= 4
            assert ratio <= 1.3, f"{both.link.connections} connections, {ratio:.3f} times the minimum"

    run(main(), timeout_s=110)


@pytest.mark.timeout(120)
def test_a_download_over_a_flapping_link(tmp_path: Path, broker: Server) -> None:
    async def main() -> None:
        async with ends(tmp_path, broker, CASE) as both:
            both.link.bytes_per_s = RATE
            before = both.link.down
            flapping = asyncio.create_task(both.link.flap(1.0, 0.3))
            await offer_model(both)
            await both.until("whole_below", 90)
            flapping.cancel()
            ratio = (both.link.down - before) / len(CASE.model)
            assert both.whole_below == CASE.model
            assert both.link.connections >= 4
            assert ratio <= 1.3, f"{both.link.connections} connections, {ratio:.3f} times the minimum"

    run(main(), timeout_s=110)


@pytest.mark.timeout(240)
def test_an_uplink_that_is_cut_for_a_minute(tmp_path: Path, broker: Server) -> None:
    """Cut in the middle of an upload: what was under way goes on where it was, and nothing is lost."""

    async def main() -> None:
        async with ends(tmp_path, broker, CASE) as both:
            both.link.bytes_per_s = RATE
            before = both.link.up
            await upload(both)
            await both.link.until_up(before + len(CASE.update) // 2)
            both.link.cut()
            await asyncio.sleep(60)
            assert not both.accepted
            both.link.restore()
            await both.until("accepted", 120)  # the bridge looks again within a minute
            ratio = (both.link.up - before) / len(CASE.update)
            assert both.whole_above == CASE.update
            assert ratio <= 1.3, f"{ratio:.3f} times the minimum"

    run(main(), timeout_s=220)
