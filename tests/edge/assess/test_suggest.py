"""Proposed signal maps: they load, bind where the topics cover the contract, and are what a person would write."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from typing import Any

import pytest
import yaml

from edge.assess.recording import Heard
from edge.assess.suggest import Suggestion, suggest
from edge.assess.survey import Survey
from edge.assess.tags import MAX_TOPICS, Tags
from edge.binding import bind
from edge.signal_map import SignalMap
from edge.units import linear_conversion
from headgate.plants.solder import SolderPlant
from headgate.plants.solder_contract import signal_map, solder_contract
from headgate.plants.solder_scenario import solder_plants
from tests.edge.assess.plant import CONTRACT, Faults, messages
from uns_topics.contract import Contract
from uns_topics.sparkplug import UNIT, DataType, MessageType, Metric, Payload, SparkplugTopic, encode_payload

SOLDER = Contract.model_validate(solder_contract())
PLANTS = solder_plants(1, 8)
Field = tuple[str, str | None]


def suggested(heard: Iterable[Heard], contract: Contract = SOLDER) -> Suggestion:
    tags = Tags()
    for one in heard:
        tags.hear(one)
    return suggest(tags, contract)


def loaded(suggestion: Suggestion) -> dict[str, Any]:
    assert suggestion.text is not None
    content = yaml.safe_load(suggestion.text)
    SignalMap.model_validate(content)
    return dict(content)


def history(plant: SolderPlant, boards: int = 200) -> list[Heard]:
    return [Heard(e.time_s, e.topic, e.payload) for e in plant.emissions(boards)]


def fields(content: dict[str, Any], line: str | None = None) -> dict[str, tuple[Field, str]]:
    """Feature -> where it comes from (at one line) and its unit."""
    found = {}
    for source in content["sources"]:
        topic = source["topic"] if line is None else source["topic"].replace("{line}", line)
        for feature in source.get("features", ()):
            named = feature.get("field") if source["form"] in ("flat", "sparkplug") else None
            found[feature["feature"]] = ((topic, named), feature["unit"])
    return found


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.plant_id for plant in PLANTS])
def test_each_simulated_plant_is_recognised_whole(plant: SolderPlant) -> None:
    """Four house styles, three languages, other units: topics, fields and units as in the hand-written map."""
    suggestion = suggested(history(plant))
    content = loaded(suggestion)
    assert suggestion.problems == ()
    line = None if len(plant.lines) > 1 else plant.lines[0].segment
    wanted, got = fields(signal_map(plant), line), fields(content)
    assert got.keys() == wanted.keys()
    contract = {feature.name: feature.unit for feature in SOLDER.features}
    for feature, (where, unit) in wanted.items():
        assert got[feature][0] == where
        assert linear_conversion(got[feature][1], contract[feature]) == pytest.approx(
            linear_conversion(unit, contract[feature])
        )
    (label,) = (source["label"] for source in content["sources"] if "label" in source)
    (by_hand,) = (source["label"] for source in signal_map(plant)["sources"] if "label" in source)
    assert label["field"] == by_hand["field"]
    assert label["codes"].items() <= by_hand["codes"].items()
    assert set(label["codes"].values()) == {"good", "defect"}


def test_a_proposal_is_good_enough_to_make_samples() -> None:
    plant = PLANTS[2]
    content = loaded(suggested(history(plant)))
    assert content["instance"] == plant.instance
    survey = Survey(bind(SignalMap.model_validate(content), SOLDER), SOLDER)
    for one in history(plant):
        survey.hear(one)
    assert sum(survey.samples.values()) >= 190
    assert survey.matched >= 180
    assert len(survey.instances) == 2


def test_each_guess_has_its_evidence() -> None:
    text = suggested(history(PLANTS[2])).text
    assert text is not None
    assert "# {line} is line1, line2" in text
    assert "# named viscosity; its name ends with cP; median 1." in text
    assert "# the key: 200 different values" in text
    assert "# ambient_humidity (%): optional, and no tag looks like it" in text


def test_a_code_that_no_list_knows_is_left_to_a_person() -> None:
    heard = [
        Heard(h.time_s, h.topic, h.payload.replace(b"TOMBSTONE", b"Z-17"))
        for h in messages(400, faults=Faults(unknown_code=True))
    ]
    suggestion = suggested(heard, Contract.model_validate(CONTRACT))
    assert suggestion.problems == ()
    assert suggestion.text is not None
    assert re.search("# CODE WITHOUT A CLASS: 'Z-17', [0-9]+ times; add it to the codes", suggestion.text)
    (label,) = (s["label"] for s in loaded(suggestion)["sources"] if "label" in s)
    assert label["codes"] == {"OK": "good", "BRIDGE": "defect"}


def test_what_is_missing_is_said() -> None:
    contract = Contract.model_validate(CONTRACT)
    suggestion = suggested([h for h in messages(100) if not h.topic.endswith("speed")], contract)
    loaded(suggestion)
    assert [problem for problem in suggestion.problems if "squeegee_speed" in problem]
    assert suggestion.text is not None
    assert "# squeegee_speed (mm/s): NO TAG LOOKS LIKE IT" in suggestion.text
    assert suggested([], contract) == Suggestion(None, (), ())
    assert suggested([Heard(1.0, "a/b/firmware", b"1.2.3")], contract).text is None


def test_sparkplug_is_read_by_its_births() -> None:
    names = ("Board/Serial", "Paste/Height", "Verdict")
    board = tuple(Metric(n, a, datatype=DataType.STRING if a != 2 else DataType.DOUBLE) for a, n in enumerate(names, 1))
    tags = {
        "Ambient/Temperature": (75.0, "°F"), "Squeegee Speed": (60.0, "mm/s"), "Squeegee Force": (7.0, "kgf"),
        "Humidity": (45.0, "%"),
    }  # fmt: skip
    heard: list[Heard] = []
    for line in ("line1", "line2"):

        def say(kind: MessageType, payload: Payload, device: str | None = None, line: str = line) -> None:
            topic = str(SparkplugTopic("acme", kind, line, device))
            heard.append(Heard((payload.timestamp_ms or 0) / 1000, topic, encode_payload(payload)))

        now = 1_700_000_000_000
        say(MessageType.NBIRTH, Payload(now, (), 0))
        born = tuple(
            Metric(name, alias, datatype=DataType.DOUBLE, value=value, properties={UNIT: unit})
            for alias, (name, (value, unit)) in enumerate(tags.items(), 10)
        )
        say(MessageType.DBIRTH, Payload(now, born, 1), "printer")
        say(MessageType.DBIRTH, Payload(now, board, 2), "spi")
        for n in range(60):
            values = ("B" + line + str(n), 120.0 + n % 5, "BRIDGE" if n % 9 == 0 else "OK")
            data = tuple(Metric(None, alias, value=value) for alias, value in enumerate(values, 1))
            say(MessageType.DDATA, Payload(now + n * 1000, data, (3 + n) % 256), "spi")
    contract = Contract.model_validate(CONTRACT)
    suggestion = suggested(heard, contract)
    content = loaded(suggestion)
    assert suggestion.problems == ()
    assert content["instance"] == "acme/{line}"
    got = fields(content)
    assert got["ambient_temperature"] == (("spBv1.0/acme/+/{line}/printer", "Ambient/Temperature"), "degF")
    assert got["squeegee_force"][1] == "kgf"
    assert got["paste_height"][0] == ("spBv1.0/acme/+/{line}/spi", "Paste/Height")
    (keyed,) = (source for source in content["sources"] if "key" in source)
    assert (keyed["key"], keyed["label"]["field"]) == ("Board/Serial", "Verdict")
    survey = Survey(bind(SignalMap.model_validate(content), contract), contract)
    for one in heard:
        survey.hear(one)
    assert survey.matched == 120


def test_windows_have_no_keys_and_a_units_own_word_counts() -> None:
    contract = Contract.model_validate(
        CONTRACT
        | {
            "features": [
                {"name": "spindle_current", "unit": "A", "minimum": 0, "maximum": 30},
                {"name": "coolant_flow", "unit": "l/min", "minimum": 0, "maximum": 50},
            ],
            "sample": {"kind": "window", "period_s": 1, "length": 10},
        }
    )
    heard = [
        Heard(1.7e9 + n, f"halle/cnc-{cell}/{leaf}", payload.encode())
        for n in range(40)
        for cell in "ab"
        for leaf, payload in (
            ("drive/Spindelstrom", json.dumps({"v": 9000 + n, "t": 1_700_000_000 + n, "unit": "mA"})),
            ("spindle/current", json.dumps({"value": 9000.0 + n, "timestamp_ms": 1_700_000_000_000 + n * 1000})),
            ("coolant/flow_l_min", str(20 + n % 3)),
        )
    ]
    suggestion = suggested(heard, contract)
    content = loaded(suggestion)
    assert suggestion.problems == ()
    assert content["instance"] == "halle/{cnc}"
    assert all("key" not in source for source in content["sources"])
    by_feature = {source["features"][0]["feature"]: source for source in content["sources"]}
    assert by_feature["spindle_current"]["form"] == "umh"
    assert by_feature["spindle_current"]["features"][0]["unit"] == "mA"
    assert by_feature["coolant_flow"]["form"] == "scalar"


def test_a_hall_wide_tag_is_left_out_with_its_reason() -> None:
    heard = [h for h in messages(100) if not h.topic.endswith("temperature")]
    second = [Heard(h.time_s, h.topic.replace("line1", "line2"), h.payload) for h in heard]
    hall = [
        Heard(h.time_s, "acme/berlin/hall/ambient_temperature", h.payload)
        for h in messages(100)
        if h.topic.endswith("temperature")
    ]
    suggestion = suggested([*heard, *second, *hall], Contract.model_validate(CONTRACT))
    assert loaded(suggestion)["instance"] == "acme/berlin/smt/{line}"
    assert suggestion.text is not None
    assert "# left out: acme/berlin/hall/ambient_temperature (ambient_temperature)" in suggestion.text
    assert suggestion.problems


def test_whatever_is_said_a_proposal_loads() -> None:
    rng = random.Random(5)
    parts = [
        "a",
        "line1",
        "line2",
        "Ünït",
        "x y",
        "{z}",
        "temp",
        "spi\u0085",
        "speed",
        "humidity",
        "#1",
        '"',
        "'",
        "\\",
        "",
    ]
    values: list[Any] = [1, 2.5, "OK", None, True, [1], {"a": {"b": 3}}, "2024-01-01T00:00:00Z", 1e40, "\ud83d", -1]
    names = [
        "value",
        "timestamp_ms",
        "ts",
        "q",
        "temperature",
        "speed",
        "height",
        "board",
        "verdict",
        "k\n",
        "é: {",
        "+",
    ]
    for _ in range(150):
        heard = []
        for n in range(rng.randrange(1, 60)):
            topic = "/".join(rng.choices(parts, k=rng.randrange(1, 5)))
            content = {rng.choice(names): rng.choice(values) for _ in range(rng.randrange(0, 5))}
            raw = json.dumps(content).encode() if rng.random() < 0.8 else rng.randbytes(rng.randrange(20))
            heard.append(Heard(1.7e9 + n, topic, raw, rng.random() < 0.2))
        suggestion = suggested(heard, Contract.model_validate(CONTRACT))
        if suggestion.text is not None:
            loaded(suggestion)


def test_a_big_broker_is_looked_at_in_part() -> None:
    tags = Tags()
    for n in range(MAX_TOPICS + 100):
        tags.hear(Heard(1.7e9, f"a/{n}", b"1"))
    tags.hear(Heard(1.7e9, "fl/v1/x/down/plan", b"{}"))
    tags.hear(Heard(1.7e9, "a/_inference/x/score", b"1"))
    assert len(tags.topics) == MAX_TOPICS
    assert tags.skipped == 100


def test_a_word_that_many_features_share_is_no_match() -> None:
    heard = [Heard(1.7e9 + n, "a/l/printer/paste", str(100 + n % 3).encode()) for n in range(50)]
    assert suggested(heard).text is None
    rare = [Heard(1.7e9 + n, "a/l/printer/volume", str(100 + n % 3).encode()) for n in range(50)]
    assert suggested(rare).matched == ("paste_volume",)
