"""An edge node's births, data and deaths, message by message; docs/sparkplug.md names the statement that each holds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.outputs import Outputs
from edge.sparkplug import Nodes
from edge.sparkplug_node import Publication
from tests.edge.node_world import COMMAND, DEVICE, LINE, NOW_MS, OTHER, STATE, World, kinds, prediction, read
from uns_topics.presence import Variant
from uns_topics.sparkplug import (
    BDSEQ,
    REBIRTH,
    DataType,
    Metric,
    Payload,
    SparkplugTopic,
    encode_payload,
    rebirth_request,
    state_payload,
)

NODE_METRICS = {
    "Properties/Federation", "Properties/Participant", "Model/Version", "Model/Variant", REBIRTH, BDSEQ,
}  # fmt: skip
DEVICE_METRICS = ("quality", "model_version", "variant", "threshold", "alarm", "score")


def test_the_will_is_the_node_s_death_with_the_number_of_the_session_alone() -> None:
    world = World()
    (bdseq,) = world.will.payload.metrics
    assert str(world.will.topic) == "spBv1.0/Headgate/NDEATH/berlin-1"
    assert (bdseq.name, bdseq.datatype, bdseq.value) == (BDSEQ, DataType.INT64, 7)
    assert world.will.payload.seq is None
    assert world.will.payload.timestamp_ms == NOW_MS
    assert world.will.qos == 1


def test_a_death_that_is_said_is_the_same_as_the_will() -> None:
    world = World()
    world.clock_s = 60.0
    (death,) = read([world.node.death(world.now)])
    assert death.topic == world.will.topic
    assert death.values == world.will.values
    assert (death.payload.seq, death.qos) == (None, 1)


def test_a_node_s_birth_has_everything_that_it_will_ever_say() -> None:
    (birth,) = World().born
    assert str(birth.topic) == "spBv1.0/Headgate/NBIRTH/berlin-1"
    assert (birth.qos, birth.payload.seq, birth.payload.timestamp_ms) == (0, 0, NOW_MS)
    assert set(birth.metrics) == NODE_METRICS
    assert all(m.datatype is not None and m.timestamp_ms is not None for m in birth.payload.metrics)
    assert birth.metrics[BDSEQ].value == 7
    assert birth.metrics[BDSEQ].datatype == DataType.INT64
    assert (birth.metrics[REBIRTH].datatype, birth.metrics[REBIRTH].value) == (DataType.BOOLEAN, False)
    assert birth.values["Properties/Federation"] == "solder-defect"
    assert birth.values["Model/Version"] is None  # no model yet: null


def test_nothing_is_said_before_the_session_is_there() -> None:
    world = World(connect=False)
    assert world.predicted(prediction()) == []
    assert world.stale() == []
    assert world.serves(3) == []
    assert world.ask() == []
    world.node.connecting(0, world.now)
    assert world.predicted(prediction(1_700_000_001.0)) == []
    born = read(world.node.connected(world.now))
    assert kinds(born) == ["NBIRTH", "DBIRTH"]  # and then all that holds by now
    assert born[0].values["Model/Version"] == 3
    assert born[1].metrics["score"].timestamp_ms == 1_700_000_001_000
    assert born[1].metrics["threshold"] == Metric(
        "threshold", None, 1_700_000_000_500, DataType.DOUBLE, None, properties={"Quality": 192, "engUnit": "cycles"}
    )


def test_a_device_s_birth_has_all_its_metrics_with_quality_and_unit() -> None:
    world = World()
    (birth,) = world.predicted(prediction(alarm=True, threshold=0.2))
    assert str(birth.topic) == f"spBv1.0/Headgate/DBIRTH/berlin-1/{DEVICE}"
    assert (birth.qos, birth.payload.seq, birth.payload.timestamp_ms) == (0, 1, NOW_MS)
    assert tuple(birth.metrics) == DEVICE_METRICS
    assert birth.values == {
        "quality": 192, "model_version": 3, "variant": "global", "threshold": 0.2, "alarm": True, "score": 0.25,
    }  # fmt: skip
    types = {name: metric.datatype for name, metric in birth.metrics.items()}
    assert types == {
        "quality": DataType.INT32, "model_version": DataType.INT32, "variant": DataType.STRING,
        "threshold": DataType.DOUBLE, "alarm": DataType.BOOLEAN, "score": DataType.DOUBLE,
    }  # fmt: skip
    assert set(birth.qualities.values()) == {192}
    units = {name: metric.properties.get("engUnit") for name, metric in birth.metrics.items()}
    assert {name for name, unit in units.items() if unit == "cycles"} == {"score", "threshold"}
    assert all(m.timestamp_ms == 1_700_000_000_500 for m in birth.payload.metrics)


def test_what_is_not_known_yet_is_null_in_a_birth() -> None:
    (birth,) = World().predicted(prediction(value=math.nan))
    assert birth.values == {
        "quality": 512, "model_version": 3, "variant": "global", "threshold": None, "alarm": None, "score": None,
    }  # fmt: skip
    assert birth.qualities["score"] == 0
    assert all(m.timestamp_ms is not None and m.datatype is not None for m in birth.payload.metrics)


def test_data_has_name_datatype_and_what_changed() -> None:
    world = World()
    world.predicted(prediction(threshold=0.2))
    (same,) = world.predicted(prediction(1_700_000_001.0, threshold=0.2))
    assert str(same.topic) == f"spBv1.0/Headgate/DDATA/berlin-1/{DEVICE}"
    assert (same.qos, same.payload.seq, same.payload.timestamp_ms) == (0, 2, NOW_MS)
    assert same.payload.metrics == (
        Metric("score", None, 1_700_000_001_000, DataType.DOUBLE, 0.25, properties={"Quality": 192}),
    )
    (other,) = world.predicted(prediction(1_700_000_002.0, value=0.75, threshold=0.2, alarm=True))
    assert other.values == {"alarm": True, "score": 0.75}
    (swapped,) = world.predicted(replace(prediction(1_700_000_002.0), version=4, threshold=0.3, alarm=True))
    assert swapped.values == {"model_version": 4, "threshold": 0.3, "score": 0.25}


def test_only_the_newest_of_a_batch_is_said_and_time_never_goes_back() -> None:
    world = World()
    batch = [prediction(t, value=t % 10) for t in (1_700_000_003.0, 1_700_000_005.0, 1_700_000_004.0)]
    (birth,) = world.predicted(*batch)
    assert birth.values["score"] == 5.0
    assert world.predicted(prediction(1_700_000_004.5)) == []


@pytest.mark.parametrize(
    ("code", "quality"), [(192, 192), (203, 192), (255, 192), (256, 0), (512, 0), (516, 500), (0, 0)]
)
def test_qualities_are_the_three_that_there_are(code: int, quality: int) -> None:
    world = World()
    (birth,) = world.predicted(prediction(quality=code))
    assert birth.values["quality"] == code
    assert birth.qualities == dict.fromkeys(DEVICE_METRICS, 192) | {"score": quality}
    raw = encode_payload(birth.payload)
    assert bytes([8, 3, 24]) in raw  # PropertyValue: type 3, int_value (field 3)


def test_a_model_without_a_number_is_null_and_bad_until_it_has_one() -> None:
    world = World()
    world.predicted(prediction(alarm=True, threshold=0.2))
    (failed,) = world.predicted(prediction(1_700_000_001.0, math.nan, alarm=True, threshold=0.2))
    assert failed.values == {"quality": 512, "score": None}  # the last decision stands
    assert failed.qualities == {"quality": 192, "score": 0}
    (again,) = world.predicted(prediction(1_700_000_002.0, alarm=True, threshold=0.2))
    assert again.values == {"quality": 192, "score": 0.25}
    assert again.qualities == {"quality": 192, "score": 192}


def test_what_has_stopped_is_stale_and_the_next_sample_makes_it_good() -> None:
    world = World()
    assert world.stale() == []  # nothing was said of it
    world.predicted(prediction(alarm=True))
    (stale,) = world.stale()
    assert stale.values == {"quality": 516, "alarm": True, "score": 0.25}  # the last values stand
    assert stale.qualities == {"quality": 192, "alarm": 500, "score": 500}
    assert {m.timestamp_ms for m in stale.payload.metrics} == {1_700_000_000_501}
    assert world.predicted(prediction()) == []  # the same sample, judged again, is no news
    (fresh,) = world.predicted(prediction(1_700_000_002.0, alarm=True))
    assert fresh.values == {"quality": 192, "alarm": True, "score": 0.25}
    assert set(fresh.qualities.values()) == {192}


def test_an_instance_that_is_silent_for_long_dies_and_is_born_again() -> None:
    world = World(device_timeout_s=600.0)
    world.predicted(prediction())
    world.clock_s = 300.0
    world.predicted(prediction(instance=OTHER))
    assert world.node.due_s == 600.0
    assert world.tick(299.0) == []
    (death,) = world.tick(1.0)
    assert str(death.topic) == f"spBv1.0/Headgate/DDEATH/berlin-1/{DEVICE}"
    assert (death.payload.seq, death.payload.timestamp_ms, death.payload.metrics) == (3, NOW_MS + 600_000, ())
    assert world.tick() == []
    assert world.stale() == []
    assert kinds(world.ask()) == ["NBIRTH", "DBIRTH"]  # the other one's
    (birth,) = world.predicted(prediction(1_700_000_009.0))
    assert birth.kind == "DBIRTH"
    assert set(birth.metrics) == set(DEVICE_METRICS)


def test_a_death_while_there_is_no_session_is_told_by_the_births_that_lack_it() -> None:
    world = World(device_timeout_s=600.0)
    world.predicted(prediction())
    world.node.disconnected()
    assert world.tick(600.0) == []
    assert kinds(world.connect(8)) == ["NBIRTH"]


def test_the_sequence_counts_over_all_messages_and_begins_anew_after_255() -> None:
    world = World()
    said = [*world.born, *world.serves(3)]
    for index in range(300):
        said += world.predicted(prediction(1_700_000_000.0 + index, instance=(LINE, OTHER)[index % 2]))
        said += world.serves(index)
    assert [one.payload.seq for one in said] == [index % 256 for index in range(len(said))]
    assert {one.kind.value for one in said} == {"NBIRTH", "NDATA", "DBIRTH", "DDATA"}


def test_a_new_model_is_data_of_the_node() -> None:
    world = World()
    (data,) = world.serves(3, Variant.PERSONALISED)
    assert str(data.topic) == "spBv1.0/Headgate/NDATA/berlin-1"
    assert (data.qos, data.payload.seq, data.payload.timestamp_ms) == (0, 1, NOW_MS)
    assert data.payload.metrics == (
        Metric("Model/Version", None, NOW_MS, DataType.INT32, 3),
        Metric("Model/Variant", None, NOW_MS, DataType.STRING, "personalised"),
    )
    assert world.serves(3, Variant.PERSONALISED) == []
    (swapped,) = world.serves(4, Variant.PERSONALISED)
    assert swapped.values == {"Model/Version": 4}


def test_a_rebirth_says_everything_again_with_the_number_of_the_session() -> None:
    world = World()
    world.predicted(prediction(threshold=0.2), prediction(instance=OTHER))
    world.predicted(prediction(1_700_000_001.0, value=0.5))
    world.clock_s = 5.0
    born = world.ask()
    assert kinds(born) == ["NBIRTH", "DBIRTH", "DBIRTH"]
    assert [one.payload.seq for one in born] == [0, 1, 2]
    assert born[0].values[BDSEQ] == 7
    assert born[0].values[REBIRTH] is False
    assert born[1].values["score"] == 0.5
    assert born[1].values["threshold"] == 0.2
    stamps = [m.timestamp_ms or 0 for m in born[1].payload.metrics]
    assert stamps == sorted(stamps)
    assert born[1].metrics["variant"].timestamp_ms == 1_700_000_001_000  # it held then, too
    (data,) = world.predicted(prediction(1_700_000_002.0, value=0.5, threshold=0.2))
    assert data.payload.seq == 3


def test_births_that_are_asked_for_by_many_at_once_are_said_once_a_second() -> None:
    world = World()
    world.clock_s = 0.4
    assert world.ask() == world.ask() == []
    assert world.node.due_s == 1.0
    assert world.tick(0.5) == []
    assert kinds(world.tick(0.1)) == ["NBIRTH"]
    assert world.node.due_s is None
    assert world.tick(5.0) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff", b"{}", encode_payload(Payload(NOW_MS)),
        encode_payload(Payload(NOW_MS, (Metric(REBIRTH, datatype=DataType.BOOLEAN, value=False),))),
        encode_payload(Payload(NOW_MS, (Metric(REBIRTH, datatype=DataType.STRING, value="true"),))),
        encode_payload(Payload(NOW_MS, (Metric("Model/Version", datatype=DataType.INT32, value=1),))),
        b"\0" * (1024 * 1024 + 1),
    ],
)  # fmt: skip
def test_what_is_no_rebirth_command_changes_nothing(payload: bytes) -> None:
    world = World()
    world.clock_s = 10.0
    assert world.hear(COMMAND, payload) == []
    assert world.hear("spBv1.0/Headgate/NCMD/other", rebirth_request(NOW_MS)) == []
    assert world.hear(COMMAND, rebirth_request(NOW_MS), retain=True) == []  # of whom, and when?
    assert world.tick() == []


def test_another_session_has_another_number_and_says_everything_again() -> None:
    world = World()
    world.predicted(prediction())
    world.node.disconnected()
    assert not world.node.is_born
    assert world.predicted(prediction(1_700_000_001.0)) == []
    born = world.connect(8)
    assert world.will.values == {BDSEQ: 8}
    assert kinds(born) == ["NBIRTH", "DBIRTH"]
    assert born[0].values[BDSEQ] == 8
    assert born[1].metrics["score"].timestamp_ms == 1_700_000_001_000


def test_names_that_differ_in_case_alone_are_refused_with_a_sentence() -> None:
    world = World()
    world.predicted(prediction(instance="acme/Line1"))
    assert world.predicted(prediction(instance="acme/line1")) == []
    assert list(world.node.refusals.values()) == [
        "acme/line1 is no Sparkplug device: its id differs from acme/Line1's in case alone"
    ]
    (data,) = world.predicted(prediction(1_700_000_009.0, instance="acme/Line1"))
    assert data.topic.device == "acme:Line1"


# Strict aliases ------------------------------------------------------------------------------------------------------


def test_with_strict_aliases_data_has_nothing_but_the_alias() -> None:
    world = World(strict_alias=True)
    said = [*world.born, *world.predicted(prediction(), prediction(instance=OTHER))]
    aliases = [(m.name, m.alias) for one in said for m in one.payload.metrics]
    assert [name for name, alias in aliases if alias is None] == [REBIRTH]
    numbers = [alias for _, alias in aliases if alias is not None]
    assert len(set(numbers)) == len(numbers)
    (data,) = world.predicted(prediction(1_700_000_001.0, value=0.5))
    alias = said[1].metrics["score"].alias
    assert data.payload.metrics == (Metric(None, alias, 1_700_000_001_000, None, 0.5, properties={"Quality": 192}),)
    (node,) = world.serves(3)
    assert all(m.name is None and m.datatype is None and m.alias is not None for m in node.payload.metrics)
    world.clock_s = 2.0
    again = world.ask()
    assert [(m.name, m.alias) for one in again for m in one.payload.metrics if one.topic.device == DEVICE] == [
        (m.name, m.alias)
        for m in sorted(said[1].payload.metrics, key=lambda m: again[1].metrics[str(m.name)].timestamp_ms or 0)
    ]
    assert world.will.payload.metrics[0].alias is None  # the broker says it, who knows of no birth


def test_without_strict_aliases_there_are_none() -> None:
    world = World()
    said = [*world.born, *world.predicted(prediction()), *world.predicted(prediction(1_700_000_001.0))]
    assert all(m.alias is None and m.name is not None for one in said for m in one.payload.metrics)


# History -------------------------------------------------------------------------------------------------------------


def test_history_is_said_as_such_where_it_is_wanted() -> None:
    world = World(history=True)
    world.predicted(prediction(1_700_000_010.0))
    late, newest = world.predicted(prediction(1_700_000_004.0, value=0.9), prediction(1_700_000_011.0))
    assert all(m.is_historical and m.timestamp_ms == 1_700_000_004_000 for m in late.payload.metrics)
    assert late.values["score"] == 0.9
    assert not any(m.is_historical for m in newest.payload.metrics)
    (replayed,) = world.predicted(prediction(1_700_000_012.0, value=0.8, quality=203))
    assert replayed.metrics["score"].is_historical
    assert replayed.qualities["score"] == 192
    world.clock_s = 5.0
    assert world.ask()[1].values["score"] == 0.25  # the state is that of the newest one in time
    assert world.born[0].kind == "NBIRTH"


def test_without_history_what_is_late_is_left_out_and_what_is_replayed_is_the_newest() -> None:
    world = World()
    world.predicted(prediction(1_700_000_010.0))
    assert world.predicted(prediction(1_700_000_004.0)) == []
    (data,) = world.predicted(prediction(1_700_000_011.0, quality=203))
    assert data.values == {"quality": 203, "score": 0.25}
    assert not any(m.is_historical for m in data.payload.metrics)


# The primary host ----------------------------------------------------------------------------------------------------


def host_world() -> World:
    world = World(primary_host="scada")
    assert world.born == []
    world.predicted(prediction())
    return world


def test_a_node_with_a_primary_host_waits_for_its_state() -> None:
    world = host_world()
    assert world.node.filters == (COMMAND, STATE)
    assert World().node.filters == (COMMAND,)
    assert world.ask() == world.tick(5.0) == world.serves(3) == []
    assert world.hear(STATE, state_payload(False, 10), retain=True) == []
    assert world.hear("spBv1.0/STATE/other", state_payload(True, 10)) == []
    assert not world.node.must_leave  # nothing was said: nobody has to be told
    assert kinds(world.hear(STATE, state_payload(True, 11), retain=True)) == ["NBIRTH", "DBIRTH"]
    assert world.hear(STATE, state_payload(True, 12)) == []


def test_a_state_is_believed_in_the_order_of_its_timestamps() -> None:
    world = host_world()
    world.hear(STATE, state_payload(False, 20))
    assert world.hear(STATE, state_payload(True, 19)) == []
    assert kinds(world.hear(STATE, state_payload(True, 20))) == ["NBIRTH", "DBIRTH"]
    world.hear(STATE, state_payload(False, 19))
    assert not world.node.must_leave
    world.hear(STATE, state_payload(False, 20))
    assert world.node.must_leave


def test_after_its_host_s_death_a_node_begins_anew() -> None:
    world = host_world()
    world.hear(STATE, state_payload(True, 10))
    world.hear(STATE, state_payload(False, 11))
    assert world.node.must_leave
    world.node.disconnected()
    assert not world.node.must_leave
    assert world.connect(8) == []  # what was heard in another session doesn't count
    assert world.hear(STATE, state_payload(True, 10)) == []
    assert kinds(world.hear(STATE, state_payload(True, 12))) == ["NBIRTH", "DBIRTH"]


def test_a_host_that_was_there_in_the_session_before_is_awaited_again() -> None:
    world = host_world()
    world.hear(STATE, state_payload(True, 10))
    world.node.disconnected()
    assert world.connect(8) == []
    assert kinds(world.hear(STATE, state_payload(True, 10), retain=True)) == ["NBIRTH", "DBIRTH"]


def test_a_state_that_comes_before_the_subscription_is_acknowledged_counts() -> None:
    world = World(primary_host="scada", connect=False)
    world.node.connecting(0, world.now)
    assert world.hear(STATE, state_payload(True, 10), retain=True) == []
    assert kinds(read(world.node.connected(world.now))) == ["NBIRTH"]


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"ONLINE", b"[" * 900, b"{}", b'{"online":true}', b'{"online":"true","timestamp":1}',
        b'{"online":1,"timestamp":1}', b'{"online":true,"timestamp":true}', b'{"online":true,"timestamp":"1"}', b"\xff",
        json.dumps({"online": True, "timestamp": 1, "more": "x" * 2000}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_state_is_left_alone(payload: bytes) -> None:
    world = host_world()
    assert world.hear(STATE, payload) == []


# All of it -----------------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(
        st.just("predict"), st.sampled_from([LINE, OTHER]), st.integers(0, 50), st.sampled_from([0.5, 1.5, math.nan])
    ),
    st.tuples(st.just("stale"), st.sampled_from([LINE, OTHER])),
    st.tuples(st.just("ask")),
    st.tuples(st.just("serve"), st.integers(1, 3)),
    st.tuples(st.just("tick"), st.sampled_from([0.3, 2.0, 700.0])),
    st.tuples(st.just("reconnect")),
)


def act(world: World, step: tuple[object, ...]) -> list[Publication]:
    match step:
        case ("predict", str() as instance, int() as at, float() as value):
            return world.node.predicted([prediction(1_700_000_000.0 + at, value, instance)], world.now)
        case ("stale", str() as instance):
            return world.node.stale(instance, world.now)
        case ("ask",):
            return world.node.hear(COMMAND, rebirth_request(NOW_MS), retain=False, now=world.now)
        case ("serve", int() as version):
            return world.node.serves(version, Variant.GLOBAL, world.now)
        case ("tick", float() as after_s):
            world.clock_s += after_s
            return world.node.tick(world.now)
    death = world.node.death(world.now)
    world.node.disconnected()
    world.node.connecting(1, world.now)
    return [death, *world.node.connected(world.now)]


class Host:
    """Our own host, which must never miss anything. Attributes: values: what it knows of each device."""

    def __init__(self) -> None:
        self._nodes = Nodes()
        self.values: dict[str, dict[str, object]] = {}

    def hear(self, one: Publication) -> None:
        topic = SparkplugTopic.parse(one.topic)
        assert topic is not None
        heard = self._nodes.hear(topic, one.payload, retain=False, now_s=1_700_000_000.0)
        assert (heard.problems, heard.rebirth, heard.counted["no-birth"]) == ([], None, 0)
        for update in heard.updates:
            if update.device is not None and update.live:
                self.values.setdefault(update.device, {}).update(update.values)


@given(steps=st.lists(STEPS, max_size=40), strict=st.booleans(), history=st.booleans())
def test_our_own_host_understands_all_that_a_node_says(
    steps: list[tuple[object, ...]], strict: bool, history: bool
) -> None:
    """No gap in `seq`, no metric that no birth named, and in the end the same values."""
    world = World(connect=False, device_timeout_s=600.0, strict_alias=strict, history=history)
    host = Host()
    world.will = read([world.node.connecting(0, world.now)])[0]
    sent = world.node.connected(world.now)
    for step in steps:
        sent += act(world, step)
    world.clock_s += 5.0
    final = world.node.hear(COMMAND, rebirth_request(NOW_MS), retain=False, now=world.now)
    for one in sent:
        host.hear(one)
    for before, after in pairwise(one for one in read(sent) if one.payload.seq is not None):
        assert after.payload.seq == (0 if after.kind == "NBIRTH" else ((before.payload.seq or 0) + 1) % 256)
    for birth in read(final)[1:]:
        assert birth.topic.device is not None
        good = {name: value if birth.qualities[name] == 192 else None for name, value in birth.values.items()}
        assert {name: host.values[birth.topic.device][name] for name in good} == good


def test_the_unit_of_a_pure_number_is_not_said() -> None:
    (birth,) = World(unit="", alarms=False).predicted(prediction())
    assert all("engUnit" not in metric.properties for metric in birth.metrics.values())
    assert tuple(birth.metrics) == ("quality", "model_version", "variant", "score")


@pytest.mark.parametrize("strict_alias", [False, True])
def test_the_output_of_another_contract_is_another_metric(strict_alias: bool) -> None:
    world = World(unit="", strict_alias=strict_alias)
    (birth,) = world.predicted(prediction(threshold=0.5, alarm=True))
    aliases = {metric.alias for metric in birth.metrics.values()}
    assert world.reads(Outputs("solder-defect", "score", alarms=True)) == []
    hours = Outputs("solder-defect", "remaining", alarms=True, unit="h")
    node, device = world.reads(hours)
    assert (kinds([node, device]), node.payload.seq, device.payload.seq) == (["NBIRTH", "DBIRTH"], 0, 1)
    assert device.metrics.keys() == {spec.name for spec in hours.specs}
    assert (device.values["remaining"], device.qualities["remaining"]) == (None, 0)
    assert (device.values["threshold"], device.metrics["threshold"].properties["engUnit"]) == (None, "h")
    assert (device.values["model_version"], device.values["alarm"]) == (3, True)
    new = {device.metrics[name].alias for name in ("remaining", "threshold")}
    assert not strict_alias or not new & aliases
    (data,) = world.predicted(prediction(1_700_000_001.5, value=120.0, threshold=20.0))
    assert data.kind == "DDATA"
    assert 120.0 in data.values.values()
    assert world.reads(Outputs("solder-defect", "remaining", alarms=True, unit="min")) != []
