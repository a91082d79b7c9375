"""docs/health.md lists what the services show, all of it and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from broker_bridge.bridge.figures import bridge_sheet
from edge.figures import edge_sheet
from tests.aggregator.test_figures import played, scrape_of
from tests.broker_bridge.bridge.test_figures import BUSY as BUSY_BRIDGE
from tests.edge.test_figures import BUSY
from tests.support.prometheus import Scrape

DOCUMENT = (Path(__file__).parent.parent / "docs" / "health.md").read_text("utf-8")


def test_every_figure_is_documented_and_no_other() -> None:
    shown = set()
    for scrape in (Scrape.of(edge_sheet(BUSY)), scrape_of(played()), Scrape.of(bridge_sheet(BUSY_BRIDGE))):
        for family in scrape.families:
            if family.name.startswith("headgate_"):
                shown.add(family.name + "_total" if family.type == "counter" else family.name)
    shown = {"headgate_build_info" if name == "headgate_build" else name for name in shown}
    assert set(re.findall(r"`(headgate_[a-z_]+)`", DOCUMENT)) == shown
