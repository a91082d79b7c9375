"""Programs of others read inference and write tags: MQTT.js, and Node-RED with flows of `headgate export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.outputs import Profile
from headgate.cli import main as headgate
from headgate.exits import Exit
from tests.aio import run
from tests.e2e.federation import FEDERATION, federation
from tests.interop.js_client import JsClient, js_client
from tests.interop.node_red import Flow, node_red
from tests.servers import mosquitto

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(180)]
PLANTS = {"berlin": Profile.UMH, "lyon": Profile.VQT, "porto": Profile.SCALAR}


def instance(plant: str) -> str:
    return f"acme/{plant}/smt/line1"


def root(plant: str) -> str:
    return f"{instance(plant)}/_inference/{FEDERATION}"


def value_of(payload: bytes, profile: Profile) -> float:
    """The value of the output's leaf, whatever the profile."""
    said = json.loads(payload)
    return float(said if profile is Profile.SCALAR else said["value"])


def exported(folder: Path, plant: str) -> Flow:
    """The flow that the command writes for a running edge: its store knows the instance."""
    out = folder / f"{plant}.json"
    assert headgate(["export", "node-red", "--config", str(folder / plant / "edge.yaml"), "--out", str(out)]) == Exit.OK
    flow: Flow = json.loads(out.read_text("utf-8"))
    return flow


def last(client: JsClient, topic: str) -> bytes | None:
    found = [message["payload"] for message in client.messages if message["topic"] == topic]
    return found[-1] if found else None


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_mqttjs_and_node_red_see_what_the_edges_say(tmp_path: Path, base_model: Path, protocol: str) -> None:
    """berlin's boards come from MQTT.js; each plant has another profile; both programs read all leaves."""

    async def main() -> None:
        with mosquitto() as broker:
            async with (
                federation(tmp_path, broker, protocol=protocol, tolerances={"rounds": 1, "quorum": 3}) as f,
                js_client(broker, protocol) as js,
            ):
                await js.subscribe("acme/+/smt/+/_inference/#")
                f.plants["berlin"] = js  # type: ignore[assignment] - it publishes, which is all that is asked of it
                for plant, profile in PLANTS.items():
                    await f.start_edge(plant, inference={"profile": profile.value, **DECIDES})
                for plant in PLANTS:
                    await f.listening(plant)
                    await f.publish_boards(plant, 120)
                await f.start_aggregator(base_model)
                await f.until(lambda: f.rests, "the round")
                assert f.view.current is not None
                version = f.view.current.version
                for plant in PLANTS:
                    await f.until(lambda plant=plant: f.serves(plant, version), f"{plant} serves {version}")
                flows = [node for plant in PLANTS for node in exported(tmp_path, plant)]
                async with node_red(tmp_path / "node-red", flows) as red:
                    await red.until(lambda seen: has_all(seen), "what is retained of all plants")
                    for plant in PLANTS:  # a fresh board is seen live
                        await f.publish_boards(plant, 1)
                        key = f.boards[plant] - 1
                        await js.until(
                            lambda plant=plant, key=key: event_of(js, plant, f"B{key}"), f"an event of {plant}"
                        )
                        check_js(js, plant, version)
                    await red.until(lambda seen: same(seen, js), "what MQTT.js has")
                    await f.stop("lyon")
                    seen = await red.until(lambda seen: seen[alive("lyon")]["payload"] is False, "lyon's end")
                    assert seen[alive("berlin")]["payload"] is True

    run(main(), timeout_s=170)


def alive(plant: str) -> str:
    return f"{root(plant)}/_edge/{plant}/alive"


DECIDES = {"alarm": {"rule": "above", "value": 0.5}, "probation": {"rows": 1, "positives": 0}}
"""The site's rule, without waiting for more labels than a test has."""
LEAVES = ("quality", "model_version", "variant", "threshold", "alarm", "score")


def has_all(seen: dict[str, dict[str, Any]]) -> bool:
    return all(f"{root(plant)}/{leaf}" in seen for plant in PLANTS for leaf in LEAVES) and all(
        seen.get(alive(plant), {}).get("payload") is True for plant in PLANTS
    )


def event_of(js: JsClient, plant: str, key: str) -> dict[str, Any] | None:
    events = [json.loads(m["payload"]) for m in js.messages if m["topic"] == f"{root(plant)}/event"]
    return next((event for event in events if event["key"] == key), None)


def check_js(js: JsClient, plant: str, version: int) -> None:
    """Leaves came at QoS 1, live ones without the retain flag, in the plant's own profile."""
    heard = [m for m in js.messages if m["topic"].startswith(root(plant)) and "_edge" not in m["topic"]]
    assert {m["qos"] for m in heard} == {1}
    assert not any(m["retain"] for m in heard)
    assert event_of(js, plant, "B120")["model_version"] == version  # type: ignore[index] - waited for


def same(seen: dict[str, dict[str, Any]], js: JsClient) -> bool:
    """Whether Node-RED has the values that MQTT.js heard last, with the times that the profile says."""
    for plant, profile in PLANTS.items():
        topic = f"{root(plant)}/score"
        raw = last(js, topic)
        message = seen[topic]
        if raw is None or message["payload"] != pytest.approx(value_of(raw, profile)):
            return False
        assert (message["leaf"], message["instance"]) == ("score", instance(plant))
        assert isinstance(seen[f"{root(plant)}/variant"]["payload"], str)
        assert isinstance(seen[f"{root(plant)}/quality"]["payload"], int)
        assert isinstance(seen[f"{root(plant)}/alarm"]["payload"], bool)
        assert seen[f"{root(plant)}/threshold"]["payload"] == 0.5
        expected = None if profile is Profile.SCALAR else 1_700_000_000_000 + 120 * 30_000
        if message.get("timestamp") != expected:
            return False
    return True
