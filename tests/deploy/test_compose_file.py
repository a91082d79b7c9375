"""compose.yaml and the files that it names: zones, privileges, health, secrets. Needs no container engine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import yaml

from aggregator.config import AggregatorConfig
from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.bridge.policy import Export
from broker_bridge.bridge.service import read_policy
from broker_bridge.config import BrokerConfig
from broker_bridge.settings import load, read_yaml, validate
from edge.binding import bind
from edge.config import EdgeConfig
from edge.signal_map import SignalMap
from headgate.cli import build_parser
from headgate.demo.simulator import SimulatorConfig
from headgate.scenarios import build_scenario
from tests.deploy.compose_file import ROOT, Service, read_compose
from uns_topics.contract import Contract

COMPOSE = read_compose()
SERVICES = COMPOSE.services
FOLDER = ROOT / "deploy/compose"
PLANTS = ("berlin", "gdansk")
LONG_RUNNING = {name: s for name, s in SERVICES.items() if s.restart == "unless-stopped"}


def by_name(services: dict[str, Service]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", services.values(), ids=services.keys())


def test_every_profile_has_what_it_says() -> None:
    both = {"secrets", "model", "aggregator"}
    plants = {f"{what}-{plant}" for what in ("plant", "edge", "bridge", "line") for plant in PLANTS}
    assert set(COMPOSE.profile("demo")) == both | plants | {"enterprise"}
    assert set(COMPOSE.profile("hivemq")) == both | plants | {"enterprise-hivemq"}
    assert set(COMPOSE.profile("aggregator")) == both | {"enterprise"}
    assert set(COMPOSE.profile("edge")) == {"edge"}


@by_name(SERVICES)
def test_no_service_has_more_than_it_needs(service: Service) -> None:
    user, group = service.user.split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service.read_only
    assert service.cap_drop == ["ALL"]
    assert service.security_opt == ["no-new-privileges:true"]
    assert service.init
    assert all(mount.read_only for mount in service.mounts if mount.is_bind)
    assert re.fullmatch(r"\d+[mg]", service.mem_limit)


@by_name(LONG_RUNNING)
def test_long_running_services_have_a_health_check(service: Service) -> None:
    assert service.healthcheck is not None
    assert service.healthcheck.test[0] == "CMD"
    assert "curl" not in service.healthcheck.test


@by_name(SERVICES)
def test_ports_stay_on_loopback(service: Service) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:8883", port) for port in service.ports)
    # A port of a network that is cut off is never published.
    assert not service.ports or any(not COMPOSE.networks[network].internal for network in service.networks)


def test_published_ports_differ() -> None:
    for profile in ("demo", "hivemq", "aggregator", "edge"):
        ports = [port for service in COMPOSE.profile(profile).values() for port in service.ports]
        assert len(set(ports)) == len(ports)


def test_zones_are_apart() -> None:
    def zone(network: str) -> set[str]:
        return {name for name, service in SERVICES.items() if service.is_in(network)}

    assert zone("wan") == {"enterprise", "enterprise-hivemq", *(f"bridge-{plant}" for plant in PLANTS)}
    assert zone("enterprise") == {"enterprise", "enterprise-hivemq", "aggregator", "watch-enterprise"}
    for plant in PLANTS:
        inside = {f"{what}-{plant}" for what in ("plant", "edge", "bridge", "line")}
        assert zone(plant) - {f"watch-{plant}"} == inside
        assert COMPOSE.networks[plant].internal
        assert zone(f"{plant}-desk") == {f"plant-{plant}"}
    assert COMPOSE.networks["enterprise"].internal
    assert [name for name, service in SERVICES.items() if not service.networks and service.network_mode != "none"] == []


def test_networks_and_volumes_are_declared_and_used() -> None:
    networks = {network for service in SERVICES.values() for network in service.networks}
    volumes = {mount.source for service in SERVICES.values() for mount in service.mounts if not mount.is_bind}
    assert networks == set(COMPOSE.networks)
    assert volumes == set(COMPOSE.volumes)


@by_name(SERVICES)
def test_every_file_that_is_mounted_exists(service: Service) -> None:
    for mount in service.mounts:
        assert not mount.is_bind or mount.path.exists(), mount.source
    assert set(service.depends_on) <= set(SERVICES)
    for name in service.depends_on:
        assert set(service.profiles) <= set(SERVICES[name].profiles)


def test_secrets_go_to_who_needs_them() -> None:
    """Each service mounts its own folders of the volume; the authority's key leaves the one-shot service for nobody."""
    command = SERVICES["secrets"].command or []
    made, name = set(), ""
    for option, _, value in (word.partition("=") for word in command):
        if option == "--broker":
            name = value
            made |= {f"{name}/broker"}
        elif option == "--user":
            made.add(f"{name}/{value}")
        elif option == "--hivemq":
            made |= {f"{name}/hivemq", f"{name}/rbac"}
        elif option == "--san":
            assert {f"DNS:{name}", "DNS:localhost", "IP:127.0.0.1"} == set(value.split(","))
    used = {
        (name, mount.subpath)
        for name, service in SERVICES.items()
        for mount in service.mounts
        if mount.source == "secrets" and name != "secrets"
    }
    assert {subpath for _, subpath in used} <= made
    plants = {
        (f"{what}-{plant}", f"plant-{plant}/{user}")
        for plant in PLANTS
        for what, user in (("plant", "broker"), ("edge", plant), ("bridge", "bridge"), ("line", "line"))
    }
    assert used == plants | {(f"bridge-{plant}", f"enterprise/{plant}") for plant in PLANTS} | {
        ("enterprise", "enterprise/broker"),
        ("enterprise-hivemq", "enterprise/hivemq"),
        ("enterprise-hivemq", "enterprise/rbac"),
        ("aggregator", "enterprise/aggregator"),
        ("watch-berlin", "plant-berlin/observer"),
        ("watch-enterprise", "enterprise/observer"),
    }


def test_no_secret_is_in_the_repository() -> None:
    kept = [path for path in (ROOT / "deploy").rglob("*") if path.is_file() and "secrets" not in path.parts]
    for file in (*kept, ROOT / "compose.yaml", ROOT / "Dockerfile"):
        assert file.suffix not in (".key", ".p12", ".jks", ".pem")
        assert file.name not in ("password", "passwords")
        text = file.read_text("utf-8")
        assert "PRIVATE KEY" not in text
        assert not re.search(r"^\s*password:", text, re.MULTILINE)
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert "deploy/compose/*/secrets/" in ignored
    for service in SERVICES.values():
        assert not [name for name in service.environment if "PASSWORD" in name or "SECRET" in name]


# Configuration files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plants_files_belong_together(plant: str) -> None:
    contract = validate(Contract, read_yaml(FOLDER / "contract.yaml"), "contract.yaml")
    edge = load(EdgeConfig, FOLDER / plant / "edge.yaml", {})
    assert edge.contract is not None
    assert edge.contract.resolve() == FOLDER / "contract.yaml"
    assert (edge.federation, edge.participant) == (contract.federation, plant)
    assert edge.broker.username == plant  # the access rules stand on it
    assert bind(validate(SignalMap, read_yaml(edge.signal_map), "signal-map.yaml"), contract).is_labelled
    bridge = read_yaml(FOLDER / plant / "bridge.yaml")
    (served,) = bridge["participants"]
    policy = read_yaml(FOLDER / plant / bridge["policy"])
    assert [rule["federation"] for rule in policy["allow"]] == [contract.federation]
    assert (served["federation"], served["participant"]) == (contract.federation, plant)
    acl = (FOLDER / plant / "plant.acl").read_text("utf-8")
    assert f"topic read {policy['pause']['topic']}\n" in acl


def test_the_plants_are_those_of_the_scenario() -> None:
    scenario = build_scenario("solder", 1, None, None)
    assert read_yaml(FOLDER / "contract.yaml") == scenario.contract
    maps = {plant.participant: plant.signal_map for plant in scenario.plants}
    for plant in PLANTS:
        assert read_yaml(FOLDER / plant / "signal-map.yaml") == maps[plant]


def test_a_bridge_carries_its_plant_alone() -> None:
    for plant in PLANTS:
        config = load(BridgeConfig, FOLDER / plant / "bridge.yaml", {})
        (carried,) = config.participants
        assert (carried.federation, carried.participant) == ("solder-defect", plant)
        assert config.uplink_of(carried).username == plant
        policy = read_policy(config)
        assert all(policy.line("solder-defect", plant, export) for export in get_args(Export))
        assert policy.pause.topic == f"acme/{plant}/_headgate/pause"
        assert policy.pause.file == FOLDER / plant / "pause"  # as deploy/compose/README.md has it


def test_the_aggregator_knows_its_participants() -> None:
    config = load(AggregatorConfig, FOLDER / "aggregator.yaml", {})
    assert config.participants == PLANTS
    out = (SERVICES["model"].command or [])[-1]
    assert str(config.model) == out


def test_the_example_of_a_site_is_valid() -> None:
    edge = load(EdgeConfig, FOLDER / "site/edge.yaml", {})
    assert edge.contract is not None
    contract = validate(Contract, read_yaml(edge.contract), "contract.yaml")
    assert bind(validate(SignalMap, read_yaml(edge.signal_map), "signal-map.yaml"), contract).is_labelled
    assert edge.broker.tls


def brokers_named(path: Path) -> list[BrokerConfig]:
    """Every broker in a configuration file."""
    content = read_yaml(path)
    return [BrokerConfig.model_validate(content[key]) for key in ("broker", "plant", "uplink") if key in content]


@by_name(
    {n: s for n, s in SERVICES.items() if n not in ("secrets", "model", "edge") and s.image.startswith("headgate")}
)
def test_every_hop_is_tls_to_a_broker_in_reach(service: Service) -> None:
    command = service.command or []
    if "--config" in command:
        target = Path(command[command.index("--config") + 1])
        (mount,) = (m for m in service.mounts if target.is_relative_to(m.target))
        found = brokers_named(mount.path / target.relative_to(mount.target))
    else:
        found = [BrokerConfig(url=next(w.removeprefix("--broker=") for w in command if w.startswith("--broker=")))]
    assert found
    for config in found:
        assert config.tls
        assert config.port == 8883
        (name,) = {n for n in SERVICES if config.host in COMPOSE.names(n) and n != "enterprise-hivemq"}
        assert set(SERVICES[name].networks) & set(service.networks), f"{config.host} is in no network of this service"
    for config in (c for c in found if c.password_file):
        assert any(Path(config.password_file or "").is_relative_to(m.target) for m in service.mounts)


def test_simulated_lines_use_the_simulators_configuration() -> None:
    for plant in PLANTS:
        assert load(SimulatorConfig, FOLDER / plant / "line.yaml", {}).broker.username == "line"


@by_name({name: s for name, s in SERVICES.items() if s.image.startswith("headgate:") and name != "secrets"})
def test_every_command_can_be_typed(service: Service) -> None:
    checks = [service.healthcheck.test[2:]] if service.healthcheck is not None else []
    for words in (service.command or [], *checks):
        assert callable(build_parser().parse_args(words).run)


# Dockerfile ----------------------------------------------------------------------------------------------------------

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def stages() -> dict[str, list[str]]:
    """Instructions by stage, continuation lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    found: dict[str, list[str]] = {}
    for line in joined:
        if line.startswith("FROM "):
            found[line.split(" AS ")[1]] = []
            name = line.split(" AS ")[1]
        found[name].append(line)
    return found


def test_the_images_are_those_that_compose_builds() -> None:
    targets = {service.build.target: service.image for service in SERVICES.values() if service.build is not None}
    assert targets == {target: f"headgate:{target}" for target in ("runtime", "edge-train", "tools")}
    for target in targets:
        instructions = stages()[target]
        assert "USER 10001:10001" in instructions
        assert any(line.startswith("ENTRYPOINT [") for line in instructions)
        # compose.yaml's user is the one that owns the image's folders.
        assert all(s.user == "10001:10001" for s in SERVICES.values() if s.image == f"headgate:{target}")


def test_images_are_small_and_name_no_registry() -> None:
    bases = {line.split()[1] for lines in stages().values() for line in lines if line.startswith("FROM ")}
    assert bases == {"python:3.11-slim", "base"}
    assert "://" not in DOCKERFILE
    for lines in stages().values():
        assert all("--no-cache-dir" in line for line in lines if re.match("RUN .*pip (install|wheel)", line))
    assert not re.search("^HEALTHCHECK", DOCKERFILE, re.MULTILINE)  # compose.yaml knows each service's file


def test_what_is_copied_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"
    kept = {line[1:] for line in ignored if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert packages | {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= kept
    for line in (line for lines in stages().values() for line in lines if re.match("COPY (?!.*--from)", line)):
        for source in [word for word in shlex.split(line)[1:-1] if not word.startswith("--") and word != "."]:
            assert (ROOT / source).exists()
            assert any(source == one or source.startswith(one + "/") for one in kept), source


def test_folders_that_volumes_take_their_owner_from_are_in_the_images() -> None:
    """A fresh named volume belongs to root unless the image has a folder there."""
    made = set(re.findall(r"(/[\w/-]+)", " ".join(line for line in DOCKERFILE.splitlines() if "install -d" in line)))
    for service in SERVICES.values():
        if service.image.startswith("headgate:"):
            for mount in service.mounts:
                assert mount.is_bind or mount.read_only or mount.target in made, mount


def test_compose_readme_names_what_exists() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    for profile in re.findall(r"--profile (\w+)", text):
        assert COMPOSE.profile(profile)
    for name in re.findall(r"docker compose (?:run --rm|logs -f|stop|start|kill) ([\w-]+)", text):
        assert name in SERVICES
    for file in re.findall(r"`(deploy/[\w./-]+)`", text):
        assert (ROOT / file).exists(), file
    assert yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["name"] == COMPOSE.name
