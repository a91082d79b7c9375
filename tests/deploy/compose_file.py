"""The parts of the Compose specification that compose.yaml uses, declared strictly: an unknown key is an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).parent.parent.parent


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Build(Part):
    context: str
    target: str
    args: dict[str, str] = {}


class Dependency(Part):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class HealthCheck(Part):
    test: list[str]
    interval: str
    timeout: str
    retries: int
    start_period: str


class Subpath(Part):
    subpath: str


class VolumeMount(Part):
    """The long form, for what the short one can't say."""

    type: Literal["volume"]
    source: str
    target: str
    read_only: bool
    volume: Subpath


class Mount(Part):
    """A mount as it works: a path of the repository or a named volume, at a path in the container."""

    source: str
    target: str
    read_only: bool
    subpath: str | None = None

    @property
    def is_bind(self) -> bool:
        return self.source.startswith((".", "/"))

    @property
    def path(self) -> Path:
        """Of a bind mount, in the repository."""
        return ROOT / self.source


class Network(Part):
    internal: bool = False


class Attachment(Part):
    aliases: list[str] = []


class Volume(Part):
    pass


class Service(Part):
    image: str
    profiles: list[str] = Field(min_length=1)
    user: str
    read_only: bool
    restart: Literal["no", "unless-stopped"]
    cap_drop: list[str]
    security_opt: list[str]
    init: bool
    tmpfs: list[str]
    pids_limit: int
    mem_limit: str
    stop_grace_period: str
    depends_on: dict[str, Dependency]
    command: list[str] | None = None
    build: Build | None = None
    group_add: list[str] = []
    environment: dict[str, str] = {}
    networks: list[str] | dict[str, Attachment] = []
    network_mode: Literal["none"] | None = None
    ports: list[str] = []
    volumes: list[str | VolumeMount] = []
    healthcheck: HealthCheck | None = None
    tty: bool = False

    @property
    def mounts(self) -> list[Mount]:
        """All mounts in one form."""
        found = []
        for one in self.volumes:
            if isinstance(one, VolumeMount):
                found.append(
                    Mount(source=one.source, target=one.target, read_only=one.read_only, subpath=one.volume.subpath)
                )
            else:
                source, target, *mode = one.split(":")
                assert mode in ([], ["ro"]), one
                found.append(Mount(source=source, target=target, read_only=mode == ["ro"]))
        return found

    def is_in(self, network: str) -> bool:
        return network in self.networks


class Compose(Part):
    name: str
    services: dict[str, Service]
    networks: dict[str, Network]
    volumes: dict[str, Volume]

    def profile(self, name: str) -> dict[str, Service]:
        """The services that `--profile NAME` starts."""
        return {key: service for key, service in self.services.items() if name in service.profiles}

    def names(self, service: str) -> set[str]:
        """The host names of a service."""
        networks = self.services[service].networks
        aliases = networks.values() if isinstance(networks, dict) else ()
        return {service, *(alias for attachment in aliases for alias in attachment.aliases)}


def read_compose() -> Compose:
    """compose.yaml, with every variable at its default and without the `x-` parts that others are merged from."""
    content = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return Compose.model_validate(_interpolated({k: v for k, v in content.items() if not k.startswith("x-")}))


def _interpolated(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolated(inner) for inner in value]
    if isinstance(value, str):
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        assert "$" not in text, f"{value!r}: a variable without a default"
        return text
    return value
