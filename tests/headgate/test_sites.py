"""`headgate sites`: lines and tables that can be read at 80 columns, and what isn't known."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from aggregator.similarity import similarity
from aggregator.statistics import overview
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from headgate.demo.watch import Participant
from headgate.sites import as_json, features_table, similarity_parts, sites_of, sites_table
from tests.aio import Inbox, run
from tests.contracts.examples import BODIES, CONTRACT
from tests.servers import Server
from uns_topics.codes import QualityCheck, Reason
from uns_topics.payloads import Writer
from uns_topics.plan import Plan
from uns_topics.presence import ParticipantState, ParticipantStatus
from uns_topics.reports import DataQuality, FeatureCell, QualityFinding, Statistics
from uns_topics.sketch import Sketch, grid_of
from uns_topics.standardisation import Moments
from uns_topics.topics import FlTopic, Kind

FEDERATION = "solder-defect"
VOLUME = CONTRACT.features[0]


def told(mean: float, rows: int = 500) -> Statistics:
    values = np.random.default_rng(int(mean)).normal(mean, 3, rows)
    sketch = Sketch.of(grid_of(VOLUME).count(values))
    moments = Moments(n=rows, sum=rows / 2, sum_squares=rows / 3)
    cell = FeatureCell(slot=0, feature=VOLUME.name, moments=moments, sketch=sketch)
    return Statistics(generation=1, rows=rows, label_counts=(rows - 50, 50), cells=(cell,))


def quality(*findings: QualityFinding) -> DataQuality:
    return DataQuality(verdict="warn" if findings else "pass", samples=600, matured=600, features=(), findings=findings)


UNITS = QualityFinding(check=QualityCheck.UNITS, feature=VOLUME.name, verdict="warn", value=0.01)
ONLINE = ParticipantStatus(birth=1, state=ParticipantState.ONLINE)
SITES = {
    "berlin": Participant(status=ONLINE, statistics=told(100), quality=quality()),
    "lyon": Participant(status=ONLINE, statistics=told(101), quality=quality()),
    "gdansk": Participant(status=ONLINE, statistics=told(200), quality=quality(UNITS)),
    "turin-with-a-name-that-is-long-enough-to-fill-a-line": Participant(
        status=ParticipantStatus(birth=1, state=ParticipantState.HOLD, reason=Reason.TOO_FEW_SAMPLES)
    ),
}


def printed(*parts: Table | str, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    for part in parts:
        console.print(part, markup=False)
    return out.getvalue()


def test_one_line_per_site() -> None:
    lines = printed(sites_table(sites_of(SITES, CONTRACT, {"berlin": 3.0, "gdansk": 7300.0}, None), 80)).splitlines()
    assert [line.rstrip() for line in lines] == [
        "site                state   rows  good/defect  last seen  data quality",
        "berlin              online   500       450/50        3 s  pass",
        "gdansk              online   500       450/50        2 h  warn: units paste_vol…",
        "lyon                online   500       450/50          ?  pass",
        "turin-with-a-name…  hold       ?            ?          ?  ?",
    ]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    many = {f"{name}-{i}-of-the-north": known for i in range(3) for name, known in SITES.items()}
    for sites in (SITES, many):
        found = similarity(CONTRACT, {name: known.statistics for name, known in sites.items()})
        text = printed(
            sites_table(sites_of(sites, CONTRACT, {}, None), width), *similarity_parts(found, 0.05), width=width
        )
        assert max(len(line) for line in text.splitlines()) <= width


def test_a_site_whose_heartbeat_stopped_is_silent() -> None:
    gone = SITES | {"oslo": Participant(status=ParticipantStatus(birth=1, state=ParticipantState.OFFLINE))}
    sites = sites_of(gone, CONTRACT, {"berlin": 31.0, "lyon": 29.0, "oslo": 900.0, "known-to-the-store": 5.0}, 10.0)
    assert {site.participant: site.state for site in sites if site.participant in ("berlin", "lyon", "oslo")} == {
        "berlin": "silent",
        "lyon": "online",
        "oslo": "offline",
    }
    assert next(site for site in sites if site.participant == "known-to-the-store").state is None


def test_the_matrix_the_pairs_and_the_groups() -> None:
    found = similarity(CONTRACT, {name: known.statistics for name, known in SITES.items()})
    text = printed(*similarity_parts(found, 0.05))
    assert [line.rstrip() for line in text.splitlines()[:9]] == [
        "distance                 1     2     3 4",
        "1 berlin                 - 0.399 0.004 ?",
        "2 gdansk             0.399     - 0.396 ?",
        "3 lyon               0.004 0.396     - ?",
        "4 turin-with-a-name…     ?     ?     ? -",
        "pair           distance  most different in     by",
        "berlin gdansk     0.399  paste_volume       0.399",
        "gdansk lyon       0.396  paste_volume       0.396",
        "berlin lyon       0.004  paste_volume       0.004",
    ]
    assert "  berlin, lyon\n  gdansk  (like no other)\n  unknown: turin-with" in text


def test_one_line_per_feature() -> None:
    bare = told(100).model_copy(
        update={"cells": (told(100).cells[0].model_copy(update={"feature": "humidity", "sketch": None}),)}
    )
    features = overview(CONTRACT, [told(100), told(101), bare])
    assert [line.rstrip() for line in printed(features_table(features)).splitlines()] == [
        "feature      unit sites  rows mean deviation   min median   max",
        "paste_volume %        2 1,000  125     72.17 92.93  100.2 107.6",
        "humidity     %        1   500   50     28.87     ?      ?     ?",
    ]
    record = as_json((), FEDERATION, features, None, 0.05)["features"][0]
    assert record["quantiles"][2] == pytest.approx(100.5, abs=1)


def test_one_site_has_nobody_to_be_compared_with() -> None:
    found = similarity(CONTRACT, {"berlin": SITES["berlin"].statistics})
    assert list(similarity_parts(found, 0.05)) == ["fewer than two sites: nothing to compare"]


def test_many_sites_show_their_pairs_alone() -> None:
    statistics = {f"site-{i}": told(50 + 10 * i) for i in range(12)}
    text = printed(*similarity_parts(similarity(CONTRACT, statistics), 0.05))
    assert not text.startswith("distance")
    assert "51 more pairs that are nearer; --json has all" in text


def test_json_says_null_where_nothing_is_known() -> None:
    found = similarity(CONTRACT, {name: known.statistics for name, known in SITES.items()})
    whole = json.loads(json.dumps(as_json(sites_of(SITES, CONTRACT, {}, None), FEDERATION, None, found, 0.05)))
    by_name = {site["participant"]: site for site in whole["sites"]}
    assert by_name["gdansk"]["findings"] == ["units paste_volume"]
    assert by_name["berlin"]["labels"] == {"good": 450, "defect": 50}
    last = by_name["turin-with-a-name-that-is-long-enough-to-fill-a-line"]
    assert (last["state"], last["rows"], last["quality"], last["last_seen_s"]) == ("hold", None, None, None)
    pairs = {tuple(pair["sites"]): pair["distance"] for pair in whole["similarity"]["pairs"]}
    assert pairs["berlin", "gdansk"] > 0.3
    assert pairs["berlin", last["participant"]] is None
    assert whole["similarity"]["groups"] == [["berlin", "lyon"], ["gdansk"]]
    assert whole["similarity"]["unknown"] == [last["participant"]]


# On a broker ---------------------------------------------------------------------------------------------------------


def headgate_sites(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headgate", "sites", "--seconds", "0.6", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.broker
def test_a_real_broker_s_retained_topics(mosquitto_server: Server, tmp_path: Path) -> None:
    async def publish() -> None:
        plan = BODIES[Kind.PLAN]
        assert isinstance(plan, Plan)
        connector = PahoConnector(BrokerConfig(url=mosquitto_server.url))
        async with connector.connect("publisher", on_message=Inbox()) as session:

            async def say(kind: Kind, body: object, participant: str | None = None) -> None:
                writer = Writer(FEDERATION, participant or "aggregator", "0a1b2c3d")
                topic = str(FlTopic(FEDERATION, kind, participant))
                await session.publish(topic, writer.seal(body), retain=True)  # type: ignore[arg-type] # several kinds

            await say(Kind.PLAN, plan)
            for name, known in SITES.items():
                for kind, body in (
                    (Kind.STATUS, known.status),
                    (Kind.STATISTICS, known.statistics),
                    (Kind.DATA_QUALITY, known.quality),
                ):
                    if body is not None:
                        await say(kind, body, name)

    run(publish())
    where = ("--broker", mosquitto_server.url, "--federation", FEDERATION)
    ended = headgate_sites(*where, "--similarity", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    whole = json.loads(ended.stdout)
    assert [site["participant"] for site in whole["sites"]] == sorted(SITES)
    assert whole["similarity"]["groups"] == [["berlin", "lyon"], ["gdansk"]]
    ended = headgate_sites(*where)
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) == 1 + len(SITES)
    ended = headgate_sites(*where, "--features")
    assert ended.returncode == 0
    assert VOLUME.name in ended.stdout
    nobody = headgate_sites("--broker", mosquitto_server.url, "--federation", "another")
    assert nobody.returncode == 3
    assert "no site of another was heard of" in nobody.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--broker", "mqtt://127.0.0.1"),
        ("--broker", "mqtt://127.0.0.1", "--federation", "Not a slug"),
        ("--broker", "mqtt://127.0.0.1", "--federation", "f", "--threshold", "2"),
        ("--broker", "mqtt://127.0.0.1", "--federation", "f", "--seconds", "0"),
        ("--config", "aggregator.yaml", "--federation", "f"),
    ],
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...]) -> None:
    ended = headgate_sites(*arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip()
