"""The solder plants: what they publish, in which form, and whether cause and effect are in it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from itertools import islice, pairwise
from random import Random
from statistics import mean
from typing import Any

import pytest

from edge.binding import BoundSource, bind
from edge.signal_map import SignalMap
from headgate.plants.emission import Emission
from headgate.plants.solder import LIVE_BOARD_INTERVAL_S, SolderPlant
from headgate.plants.solder_contract import signal_map, solder_contract
from headgate.plants.solder_process import (
    NO_CLEAN,
    WATER_SOLUBLE,
    Board,
    Conditions,
    Deposit,
    Joint,
    LineProcess,
    OperatingRange,
    Phase,
    joint_log_odds,
)
from headgate.plants.solder_scenario import DEFAULT_PLANTS, MAX_PLANTS, solder_plants
from uns_topics.contract import Contract

CONTRACT = Contract.model_validate(solder_contract())
PLANTS = {plant.plant_id: plant for plant in solder_plants(7, MAX_PLANTS)}
MIDDLE = OperatingRange(190, 15, 25, 2, 45, (45, 95), (25, 65), (8, 18))


@pytest.fixture(scope="module", params=PLANTS)
def plant(request: pytest.FixtureRequest) -> SolderPlant:
    return PLANTS[request.param]


def sources_by_topic(plant: SolderPlant) -> dict[str, BoundSource]:
    bound = bind(SignalMap.model_validate(signal_map(plant)), CONTRACT)
    return {s.declared.topic.replace("{line}", line.segment): s for s in bound.sources for line in plant.lines}


def content(emission: Emission) -> dict[str, Any]:
    decoded = json.loads(emission.payload)
    assert isinstance(decoded, dict)
    return decoded


def stamped_s(source: BoundSource, message: dict[str, Any]) -> float:
    stamp = message["timestamp_ms" if source.declared.form == "umh" else source.declared.keys.timestamp]
    return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else stamp / 1000


def boards_of(plant: SolderPlant, emissions: list[Emission]) -> dict[str, Emission]:
    topics = {plant.inspection.topic.replace("{line}", line.segment) for line in plant.lines}
    return {content(e)[plant.inspection.serial_key]: e for e in emissions if e.topic in topics}


def verdicts_of(plant: SolderPlant, emissions: list[Emission]) -> dict[str, tuple[Emission, str]]:
    declared = plant.verdicts
    topics = {declared.topic.replace("{line}", line.segment) for line in plant.lines}
    said = [(e, content(e)) for e in emissions if e.topic in topics]
    return {message[declared.serial_key]: (e, message[declared.verdict_key]) for e, message in said}


def test_a_seed_says_it_all(plant: SolderPlant) -> None:
    first = list(plant.emissions(60))
    assert list(plant.emissions(60)) == first
    assert list(replace(plant, seed=plant.seed + 1).emissions(60)) != first


def test_signal_map_feeds_the_contract_from_every_topic(plant: SolderPlant) -> None:
    sources = sources_by_topic(plant)
    emissions = list(plant.emissions(80))
    assert {e.topic for e in emissions} == set(sources)
    assert {e.topic[: len(path)] for e in emissions for path in plant.instances if e.topic.startswith(path)} == set(
        plant.instances
    )


def test_numbers_convert_to_the_contracts_ranges(plant: SolderPlant) -> None:
    """Units are declared as they are published: in the contract's unit every good number is in range."""
    sources = sources_by_topic(plant)
    seen = Counter[str]()
    for emission in plant.emissions(300):
        source, message = sources[emission.topic], content(emission)
        if message.get(source.declared.keys.quality) in ("BAD", 0):
            continue
        for bound in source.features:
            value = message[bound.field]
            if value is not None:
                feature = CONTRACT.features[bound.index]
                assert feature.minimum <= bound.scale * value + bound.offset <= feature.maximum, (feature.name, value)
                seen[bound.name] += 1
    assert set(seen) == set(plant.features)


def test_event_times_are_those_in_the_payload_and_end_in_time(plant: SolderPlant) -> None:
    start_s = 1_750_000_000.0
    emissions = list(plant.emissions(100, start_s))
    sources = sources_by_topic(plant)
    for emission in emissions:
        assert stamped_s(sources[emission.topic], content(emission)) == pytest.approx(emission.time_s, abs=0.001)
    assert all(start_s <= e.time_s <= start_s + plant.history_span_s(100) for e in emissions)


def test_verdict_follows_its_board(plant: SolderPlant) -> None:
    emissions = list(plant.emissions(300))
    boards, verdicts = boards_of(plant, emissions), verdicts_of(plant, emissions)
    shortest, longest = plant.verdicts.delay_s
    assert len(boards) == 300
    assert 0.96 * 300 < len(verdicts) < 300
    for serial, (verdict, word) in verdicts.items():
        assert shortest - 0.01 <= verdict.time_s - boards[serial].time_s <= longest + 0.01
        assert word in {w for words in plant.verdicts.words.values() for w in words}


def test_lines_share_a_plants_boards() -> None:
    gdansk = PLANTS["gdansk"]
    serials = Counter(serial[:4] for serial in boards_of(gdansk, list(gdansk.emissions(101))))
    assert serials == {"GDA1": 51, "GDA2": 50}


def test_default_plants_differ_as_promised() -> None:
    plants = solder_plants(1)
    assert [p.plant_id for p in plants] == ["berlin", "lyon", "gdansk", "porto"]
    assert len(plants) == DEFAULT_PLANTS
    units = {reading.unit for p in plants for tag in p.tags for reading in tag.readings}
    assert {"Pa.s", "cP", "degC", "degF"} <= units
    assert {tag.form for p in plants for tag in p.tags} == {"umh", "vqt", "flat"}
    assert "ambient_humidity" not in PLANTS["gdansk"].features
    assert any(" " in path for p in plants for path in p.instances)
    assert any(not tag.topic.isascii() for p in plants for tag in p.tags)
    assert len({path for p in PLANTS.values() for path in p.instances}) == len(PLANTS) + 1


@pytest.mark.parametrize("count", [1, 9])
def test_number_of_plants_is_bounded(count: int) -> None:
    with pytest.raises(ValueError, match="choose 2 to 8"):
        solder_plants(1, count)


def test_history_fits_a_slow_broker_and_has_defects_to_learn_from() -> None:
    total = 0
    for plant in solder_plants(1):
        emissions = list(plant.emissions())
        total += len(emissions)
        assert 2.9 <= len(emissions) / plant.history_boards <= 6
        verdicts = list(verdicts_of(plant, emissions).values())
        good = plant.verdicts.words[Joint.OK]
        report = sorted(verdicts, key=lambda v: v[0].time_s)[-len(verdicts) // 5 :]
        assert 0.04 <= sum(word not in good for _, word in verdicts) / len(verdicts) <= 0.2
        assert sum(word not in good for _, word in report) >= 15
    assert total <= 20_000


def test_lyon_and_gdansk_are_one_sided_and_then_meet_what_the_other_knew() -> None:
    for name, known, met in (("lyon", Joint.OPEN, Joint.BRIDGE), ("gdansk", Joint.BRIDGE, Joint.OPEN)):
        plant = PLANTS[name]
        verdicts = sorted(verdicts_of(plant, list(plant.emissions())).values(), key=lambda v: v[0].time_s)
        words = [word for _, word in verdicts]
        cut = int(0.7 * len(words))
        early, late = Counter(words[:cut]), Counter(words[cut:])

        def share(counts: Counter[str], joint: Joint, plant: SolderPlant = plant) -> float:
            return sum(counts[word] for word in plant.verdicts.words[joint]) / counts.total()

        assert share(early, met) < 0.25 * share(early, known)
        assert share(late, met) > 2 * share(late, known)
        assert share(late, met) > 5 * share(early, met)


def test_messages_fail_repeat_and_come_late_now_and_then() -> None:
    berlin, lyon = PLANTS["berlin"], PLANTS["lyon"]
    emissions = list(berlin.emissions())
    repeated = sum(count - 1 for count in Counter(emissions).values())
    newest, late = 0.0, 0
    for emission in emissions:
        late += emission.time_s < newest - 1
        newest = max(newest, emission.time_s)
    assert 0.001 < repeated / len(emissions) < 0.02
    assert 0.001 < late / len(emissions) < 0.02
    nulls = sum(b'"value":null' in e.payload for e in emissions)
    assert 0 < nulls < 0.02 * len(emissions)
    bad = [content(e) for e in lyon.emissions() if b'"BAD"' in e.payload]
    assert bad
    assert all(message["value"] == 0.0 for message in bad)


def test_only_settings_are_retained() -> None:
    for plant in (PLANTS["berlin"], PLANTS["porto"]):
        retained = {e.topic for e in plant.emissions(50) if e.retain}
        sources = sources_by_topic(plant)
        assert {f.name for t in retained for f in sources[t].features} == {"squeegee_pressure", "squeegee_speed"}
    assert not any(e.retain for e in PLANTS["gdansk"].emissions(50))


def test_live_goes_on_where_the_history_ended(plant: SolderPlant) -> None:
    lines = len(plant.lines)
    history = boards_of(plant, list(plant.emissions(40 * lines)))
    live = list(islice(plant.live(2e9, after_boards=40 * lines), 400))
    boards = boards_of(plant, live)
    assert not set(boards) & set(history)
    assert min(int(serial[-6:]) for serial in boards) == 40
    firsts = sorted(e.time_s for serial, e in boards.items() if serial.startswith(plant.lines[0].serial_prefix))
    assert firsts[0] == pytest.approx(2e9, abs=LIVE_BOARD_INTERVAL_S)
    assert mean(b - a for a, b in pairwise(firsts)) == pytest.approx(LIVE_BOARD_INTERVAL_S, rel=0.1)
    for serial, (verdict, _) in verdicts_of(plant, live).items():
        assert 9 < verdict.time_s - boards[serial].time_s < 31


def test_live_boards_are_those_a_longer_history_would_have_had() -> None:
    """How fast boards are published never changes them (a plant whose conditions stay the same)."""
    berlin = PLANTS["berlin"]
    longer = boards_of(berlin, list(berlin.emissions(60)))
    live = boards_of(berlin, list(islice(berlin.live(after_boards=40), 100)))
    for serial in sorted(live)[:15]:
        ours, theirs = content(live[serial]), content(longer[serial])
        for field in ("volume_pct", "height_um", "offset_um"):
            assert None in (ours[field], theirs[field]) or ours[field] == theirs[field]


def test_live_begins_after_the_history_by_default() -> None:
    plant = PLANTS["porto"]
    assert next(plant.live(after_boards=30)).time_s >= max(e.time_s for e in plant.emissions(30))


# Cause and effect


def printed(count: int, operating: OperatingRange, **changes: Any) -> list[Board]:
    phases = (Phase(0.0, replace(operating, **changes)),)
    process = LineProcess(Random(5), phases, NO_CLEAN, board_interval_s=120.0)
    return [process.print_board(0.0) for _ in range(count)]


def average(boards: list[Board], feature: str) -> float:
    return mean(board.readings[feature] for board in boards)


def test_pressure_over_speed_fills_apertures() -> None:
    def volume(**changes: Any) -> float:
        return average(printed(400, MIDDLE, **changes), "paste_volume")

    usual = volume(pressure_n=(60, 60), speed_mm_s=(45, 45))
    assert volume(pressure_n=(85, 85), speed_mm_s=(45, 45)) > usual + 3
    assert volume(pressure_n=(60, 60), speed_mm_s=(65, 65)) < usual - 3
    # The ratio decides: 25 % more of both is nearly nothing.
    both = volume(pressure_n=(72, 72), speed_mm_s=(61, 61))
    assert abs(both - usual) < 1.5


def test_too_much_pressure_scoops_the_paste_out() -> None:
    usual = average(printed(400, MIDDLE, pressure_n=(65, 65)), "paste_height")
    assert average(printed(400, MIDDLE, pressure_n=(130, 130)), "paste_height") < usual - 5


def test_warm_paste_is_thin_and_dry_air_thickens_it() -> None:
    usual = average(printed(400, MIDDLE), "paste_viscosity")
    assert average(printed(400, MIDDLE, temperature_c=29), "paste_viscosity") == pytest.approx(usual * 0.905, rel=0.02)
    assert average(printed(400, MIDDLE, humidity_pct=25), "paste_viscosity") > usual + 2


def test_a_dirty_stencil_clogs_with_thick_paste_and_smears_with_thin() -> None:
    for viscosity_pas, sign in ((235, -1), (150, 1)):
        boards = printed(2000, MIDDLE, viscosity_pas=viscosity_pas, pressure_n=(60, 60), speed_mm_s=(40, 40))
        clean = [b for b in boards if b.readings["stencil_prints"] <= 3]
        dirty = [b for b in boards if b.readings["stencil_prints"] >= 12]
        assert sign * (average(dirty, "paste_volume") - average(clean, "paste_volume")) > 3


def test_stencil_is_cleaned_in_time() -> None:
    prints = [board.readings["stencil_prints"] for board in printed(500, MIDDLE)]
    assert max(prints) <= 18
    assert all(after in (before + 1, 1) for before, after in pairwise(prints))


def odds(chemistry: Any = NO_CLEAN, **changes: float) -> tuple[float, float]:
    conditions = {"viscosity_pas": 190.0, "temperature_c": 25.0, "humidity_pct": 45.0}
    deposit = {"volume_pct": 100.0, "height_um": 118.0, "offset_um": 10.0}
    for name, value in changes.items():
        (conditions if name in conditions else deposit)[name] = value
    full = Conditions(**conditions, paste_age_h=1.0, pressure_n=65.0, speed_mm_s=45.0, prints_since_cleaning=3)
    return joint_log_odds(chemistry, full, Deposit(**deposit))


def test_bridging_takes_much_paste_and_offset_together() -> None:
    bridge, _ = odds()
    much, aside = odds(volume_pct=115)[0] - bridge, odds(offset_um=30)[0] - bridge
    both = odds(volume_pct=115, offset_um=30)[0] - bridge
    assert both > 2 * (much + aside)


def test_open_joints_take_little_and_low_paste_together() -> None:
    _, open_ = odds()
    little, low = odds(volume_pct=85)[1] - open_, odds(height_um=100)[1] - open_
    assert odds(volume_pct=85, height_um=100)[1] - open_ > 1.5 * (little + low)


@pytest.mark.parametrize("change", [{"temperature_c": 30.0}, {"humidity_pct": 65.0}, {"viscosity_pas": 160.0}])
def test_conditions_act_the_other_way_round_on_water_soluble_paste(change: dict[str, float]) -> None:
    usual, other = odds(volume_pct=110), odds(WATER_SOLUBLE, volume_pct=110)
    assert odds(volume_pct=110, **change)[0] > usual[0]
    assert odds(WATER_SOLUBLE, volume_pct=110, **change)[0] < other[0]


def test_joints_follow_their_odds() -> None:
    boards = printed(6000, MIDDLE)
    share = Counter(board.joint for board in boards)
    assert 0.02 < share[Joint.BRIDGE] / 6000 < 0.15
    assert 0.01 < share[Joint.OPEN] / 6000 < 0.15
    by_joint = {joint: [b for b in boards if b.joint is joint] for joint in Joint}
    volumes = {joint: average(by_joint[joint], "paste_volume") for joint in Joint}
    assert volumes[Joint.OPEN] + 5 < volumes[Joint.OK] < volumes[Joint.BRIDGE] - 5
    assert average(by_joint[Joint.BRIDGE], "paste_offset") > average(by_joint[Joint.OK], "paste_offset") + 2
