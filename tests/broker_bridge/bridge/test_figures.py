"""What a bridge shows to Prometheus: named by convention, and nothing that a plant wouldn't show."""

from __future__ import annotations

from broker_bridge.bridge.figures import BridgeFigures, CrossingFigures, bridge_sheet
from broker_bridge.bridge.inspection import Why
from tests.support.prometheus import Scrape

BERLIN = CrossingFigures(
    federation="solder-defect",
    participant="berlin",
    is_up=True,
    queue=2,
    queue_bytes=4000,
    oldest_s=12.5,
    refused={Why.CONTENT: 3},
    messages={"update": 5, "status": 7},
    sent_bytes={"update": 5000, "status": 700},
    chunk_limit_bytes=40_000,
)
BUSY = BridgeFigures(
    bridge="gate",
    is_plant_up=True,
    is_paused=False,
    is_recording=True,
    budget_bytes=1000,
    budget_messages=10,
    crossings=(BERLIN,),
    unreadable={("solder-defect", "PayloadError"): 1},
    with_plan={"solder-defect": True},
)


def test_names_follow_the_conventions() -> None:
    assert Scrape.of(bridge_sheet(BUSY)).problems() == []


def test_figures_say_what_is() -> None:
    scrape = Scrape.of(bridge_sheet(BUSY))
    assert scrape.value("headgate_bridge_queued_oldest_seconds", participant="berlin") == 12.5
    assert scrape.value("headgate_bridge_sent_payload_bytes_total", kind="update") == 5000
    assert scrape.value("headgate_bridge_refused_messages_total", code="content") == 3
    assert scrape.value("headgate_bridge_refused_messages_total", code="topic") == 0
    assert len(scrape.all("headgate_bridge_refused_messages_total")) == len(Why)


def test_what_is_not_known_is_left_out() -> None:
    quiet = BridgeFigures("gate", False, True, False, None, None, ())
    scrape = Scrape.of(bridge_sheet(quiet))
    assert scrape.all("headgate_bridge_budget_remaining_bytes") == []
    assert scrape.value("headgate_bridge_paused") == 1
