"""`deploy/mosquitto` on real brokers: who may do what is what the access rules say."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import yaml

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerRefused, BrokerUnreachable
from edge.outputs import alive_topic
from tests.aio import Inbox, run
from tests.deploy.deployed import DEPLOY, PROBE, ROOT, broker, login, make_secrets, substituted
from tests.servers import Server
from uns_topics.access import Access, BrokerAccess, PlantEdge, enterprise_access, plant_access
from uns_topics.acl_files import native_bridge_topics
from uns_topics.filters import TopicPattern
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import DEFAULT_CHUNK_BYTES, MAX_CHUNKS, WRAPPING_BYTES

FEDERATION = "solder-defect"
PLANTS = ("berlin", "gdansk")
ENTERPRISE_USERS = ("aggregator", "observer", *PLANTS)
PLANT_USERS = ("bridge", "observer", "operator", "line", *PLANTS)

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: `enterprise`, `plant` and all their users."""
    folder = tmp_path_factory.mktemp("secrets")
    arguments: list[str] = []
    for name, users in (("enterprise", ENTERPRISE_USERS), ("plant", PLANT_USERS)):
        arguments += ["--broker", name, "--san", f"DNS:{name},DNS:localhost,IP:127.0.0.1"]
        arguments += [word for user in (*users, PROBE) for word in ("--user", user)]
    make_secrets(folder, "--client-certificates", *arguments)
    return folder


@pytest.fixture(scope="module")
def enterprise(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = DEPLOY / "mosquitto"
    data = tmp_path_factory.mktemp("enterprise")
    with broker(home / "enterprise.conf", home / "enterprise.acl", secrets / "enterprise/broker", data) as server:
        yield server


@pytest.fixture(scope="module", params=PLANTS)
def plant(
    request: pytest.FixtureRequest, secrets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Server]]:
    acl = DEPLOY / "compose" / request.param / "plant.acl"
    data = tmp_path_factory.mktemp("plant")
    with broker(DEPLOY / "mosquitto/plant.conf", acl, secrets / "plant/broker", data) as server:
        yield request.param, server


def fl_topics() -> list[str]:
    """One topic of each kind, for each participant where it has one; and two that nobody declares."""
    fields = {"bridge": "gate", "transfer": "0123456789abcdef", "version": 3, "index": 0}
    topics = []
    for kind in Kind:
        for participant in PLANTS if "{participant}" in kind.path else (None,):
            values = {"participant": participant, **fields}
            used = {name: value for name, value in values.items() if f"{{{name}}}" in kind.path}
            topics.append(str(FlTopic(FEDERATION, kind, **used)))  # type: ignore[arg-type]
    return [*topics, f"fl/v1/{FEDERATION}/down/other", f"fl/v1/{FEDERATION}/up/berlin/other", "elsewhere"]


def plant_rules(name: str) -> tuple[BrokerAccess, list[str]]:
    """The rules of a plant from its signal map, written out once more; and topics of its own tree."""
    signals = yaml.safe_load((DEPLOY / "compose" / name / "signal-map.yaml").read_text("utf-8"))
    tags = tuple(f for source in signals["sources"] for f in TopicPattern(source["topic"]).filters)
    home = signals["instance"].partition("/{")[0]
    writes = (f"{home}/+/_inference/{FEDERATION}/+", alive_topic(home, FEDERATION, name))
    pause = f"acme/{name}/_headgate/pause"
    access = plant_access((PlantEdge(name, tags, writes),), pause)
    own = [topic.replace("+", "x") for topic in (*tags, *writes)]
    return access, [*own, pause, f"acme/{name}/other", f"{home}/x/_inference/other/score"]


async def attempts(
    server: Server, secrets: Path, name: str, users: tuple[str, ...], topics: list[str]
) -> set[tuple[str, Access, str]]:
    """What each user could do: everybody publishes on every topic and subscribes to every topic."""
    could: set[tuple[str, Access, str]] = set()
    async with AsyncExitStack() as stack:
        inboxes = {user: Inbox() for user in (PROBE, *users)}
        sessions = {
            user: await stack.enter_async_context(
                PahoConnector(login(server, secrets, name, user)).connect(f"test-{user}", on_message=inboxes[user])
            )
            for user in inboxes
        }
        probe = sessions[PROBE]
        await probe.subscribe("#")
        for user in users:
            await asyncio.gather(*(sessions[user].publish(topic, user.encode()) for topic in topics))
        await probe.publish("end", b"")
        await inboxes[PROBE].topic("end")  # behind all that the others could write
        could |= {(m.payload.decode(), Access.WRITE, m.topic) for m in inboxes[PROBE].messages if m.topic != "end"}
        for user in users:
            with suppress(BrokerRefused):  # Mosquitto 2.0 grants every subscription and keeps back the messages
                await sessions[user].subscribe(*topics, qos=0)
        await asyncio.gather(*(probe.publish(topic, b"probe") for topic in topics))
        for user in users:
            with suppress(BrokerRefused):
                await sessions[user].subscribe("end", qos=0)  # its answer comes behind the messages
            could |= {(user, Access.READ, m.topic) for m in inboxes[user].messages if m.topic != "end"}
    return could


def expected(access: BrokerAccess, users: tuple[str, ...], topics: list[str]) -> set[tuple[str, Access, str]]:
    ways = (Access.READ, Access.WRITE)
    return {(u, way, topic) for u in users for way in ways for topic in topics if access.allows(u, way, topic)}


def test_enterprise_access(enterprise: Server, secrets: Path) -> None:
    topics = fl_topics()
    found = run(attempts(enterprise, secrets, "enterprise", ENTERPRISE_USERS, topics))
    assert found == expected(enterprise_access(), ENTERPRISE_USERS, topics)


def test_plant_access(plant: tuple[str, Server], secrets: Path) -> None:
    name, server = plant
    access, own = plant_rules(name)
    topics = [*fl_topics(), *own]
    found = run(attempts(server, secrets, "plant", PLANT_USERS, topics))
    assert found == expected(access, PLANT_USERS, topics)


def connects(config: BrokerConfig) -> None:
    async def body() -> None:
        async with PahoConnector(config).connect("test", on_message=Inbox()):
            pass

    run(body())


def test_nobody_gets_in_without_password_or_trust(enterprise: Server, secrets: Path, tmp_path: Path) -> None:
    good = login(enterprise, secrets, "enterprise", "berlin")
    connects(good)
    for change in (
        {"username": None, "password_file": None},
        {"username": "gdansk"},  # with berlin's password
        {"username": "aggregator"},
    ):
        with pytest.raises(BrokerRefused):
            connects(good.model_copy(update=change))
    make_secrets(tmp_path, "--broker", "foreign")
    with pytest.raises((BrokerRefused, BrokerUnreachable)):
        connects(good.model_copy(update={"ca_file": tmp_path / "foreign/broker/ca.pem"}))


def test_certificates_in_place_of_passwords(secrets: Path, tmp_path: Path) -> None:
    """The lines that the file's comment offers: the name in the certificate is the user."""
    home = DEPLOY / "mosquitto"
    text = (home / "enterprise.conf").read_text("utf-8")
    offered = re.findall(r"^#   (require_certificate .*|use_identity_as_username .*)$", text, re.MULTILINE)
    assert len(offered) == 2
    conf = tmp_path / "enterprise.conf"
    conf.write_text(substituted(text, {f"#   {line}": line for line in offered}), "utf-8")
    with broker(conf, home / "enterprise.acl", secrets / "enterprise/broker", tmp_path) as server:
        plain = login(server, secrets, "enterprise", "berlin")
        with pytest.raises((BrokerRefused, BrokerUnreachable)):
            connects(plain)
        folder = secrets / "enterprise/berlin"
        own = {"client_certificate_file": folder / "client.pem", "client_key_file": folder / "client.key"}
        certified = plain.model_copy(update={**own, "username": None, "password_file": None})

        async def body() -> list[str]:
            inbox = Inbox()
            probe_folder = secrets / "enterprise" / PROBE
            files = {
                "client_certificate_file": probe_folder / "client.pem",
                "client_key_file": probe_folder / "client.key",
            }
            probe = certified.model_copy(update=files)
            async with (
                PahoConnector(probe).connect("probe", on_message=inbox) as watching,
                PahoConnector(certified).connect("berlin", on_message=Inbox()) as session,
            ):
                await watching.subscribe("#")
                for who in ("gdansk", "berlin"):
                    await session.publish(f"fl/v1/{FEDERATION}/up/{who}/status", b"{}")
                await inbox.count(1)
            return inbox.topics

        assert run(body()) == [f"fl/v1/{FEDERATION}/up/berlin/status"]


def settings(conf: Path) -> dict[str, str]:
    """The settings of a Mosquitto file; none but the kinds of log lines stands twice."""
    said = [line for line in conf.read_text("utf-8").splitlines() if line and line[0] != "#"]
    lines = [line.partition(" ") for line in said if not line.startswith("log_type ")]
    assert len({name for name, _, _ in lines}) == len(lines)
    return {name: value for name, _, value in lines}


@pytest.mark.parametrize("name", ["enterprise", "plant"])
def test_limits_fit_transfers(name: str) -> None:
    said = settings(DEPLOY / "mosquitto" / f"{name}.conf")
    chunk = DEFAULT_CHUNK_BYTES + WRAPPING_BYTES
    assert int(said["max_packet_size"]) > chunk
    # The packet limit is met first: an oversized message ends the connection instead of vanishing.
    assert int(said["message_size_limit"]) >= int(said["max_packet_size"])
    assert int(said["max_queued_messages"]) >= 3 * MAX_CHUNKS
    assert int(said["max_queued_bytes"]) >= 3 * MAX_CHUNKS * chunk
    assert (said["allow_anonymous"], said["set_tcp_nodelay"], said["persistence"]) == ("false", "true", "true")
    assert int(said["autosave_interval"]) <= 60


def test_a_chunk_of_the_default_size_passes_and_is_kept(enterprise: Server, secrets: Path) -> None:
    payload = bytes(DEFAULT_CHUNK_BYTES + WRAPPING_BYTES - 100)
    topic = f"fl/v1/{FEDERATION}/down/model/7/0"

    async def body() -> None:
        inbox = Inbox()
        aggregator, berlin = (login(enterprise, secrets, "enterprise", user) for user in ("aggregator", "berlin"))
        async with PahoConnector(aggregator).connect("aggregator", on_message=Inbox()) as writing:
            await writing.publish(topic, payload, retain=True)
            async with PahoConnector(berlin).connect("berlin", on_message=inbox) as reading:
                await reading.subscribe(topic)
                assert (await inbox.topic(topic)).payload == payload
            await writing.publish(topic, b"", retain=True)

    run(body())


def test_the_native_bridge_carries_what_its_list_says(secrets: Path, tmp_path: Path, enterprise: Server) -> None:
    file = DEPLOY / "mosquitto/native-bridge.conf"
    text = file.read_text("utf-8")
    assert tuple(line for line in text.splitlines() if line.startswith("topic ")) == native_bridge_topics(
        FEDERATION, "berlin"
    )
    password = (secrets / "enterprise/berlin/password").read_text("utf-8").strip()
    trust = str(secrets / "enterprise/berlin/ca.pem")
    names = {
        "address enterprise:8883": f"address 127.0.0.1:{enterprise.port}",
        "/mosquitto/headgate/enterprise/ca.pem": trust,
        "remote_password PASSWORD": f"remote_password {password}",
    }
    up, down = f"fl/v1/{FEDERATION}/up/berlin", f"fl/v1/{FEDERATION}/down"

    async def body(server: Server) -> None:
        there, here, free = Inbox(), Inbox(), Inbox()
        aggregator = PahoConnector(login(enterprise, secrets, "enterprise", "aggregator"))
        berlin = PahoConnector(login(server, secrets, "plant", "berlin"))
        probe = PahoConnector(login(server, secrets, "plant", PROBE))
        async with (
            aggregator.connect("aggregator", on_message=there) as remote,
            berlin.connect("berlin", on_message=here) as local,
            probe.connect("probe", on_message=free) as unbound,
        ):
            await remote.subscribe(f"fl/v1/{FEDERATION}/up/#")
            await local.subscribe(f"{down}/plan")
            await remote.publish(f"{down}/plan", b"plan", retain=True)
            await here.topic(f"{down}/plan")  # the bridge is up
            await unbound.publish(f"{up}/other", b"not on the list")
            await unbound.publish("acme/berlin/tag", b"not on the list")
            await local.publish(f"{up}/status", b"status", retain=True)
            await there.topic(f"{up}/status")
            assert there.topics == [f"{up}/status"]
            for session, topic in ((remote, f"{down}/plan"), (local, f"{up}/status")):
                await session.publish(topic, b"", retain=True)

    plant, acl = DEPLOY / "mosquitto/plant.conf", DEPLOY / "compose/berlin/plant.acl"
    with broker(plant, acl, secrets / "plant/broker", tmp_path, extra=substituted(text, names)) as server:
        run(body(server))


def test_generated_files_are_those_in_the_repository(tmp_path: Path) -> None:
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    subprocess.run([ROOT / "scripts/generate", tmp_path], check=True, env=environment, timeout=60)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 6
    for path in made:
        assert (ROOT / path).read_text("utf-8") == (tmp_path / path).read_text("utf-8"), f"run scripts/generate: {path}"
