"""How to reach one broker: address, credentials, certificates, protocol version."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from broker_bridge.settings import FilePath

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerConfig(BaseModel):
    """One broker as it stands in a configuration file.

    Secrets are named by file and read at each connection, so that a rotated password needs no restart.
    """

    # A refused URL may carry a password: it must not come back in the error's text.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(default="mqtt://127.0.0.1", description="mqtt://host[:1883] or mqtts://host[:8883] (TLS)")
    username: str | None = Field(default=None, min_length=1, description="User name for the broker")
    password_file: FilePath | None = Field(default=None, description="File whose content is the password")
    ca_file: FilePath | None = Field(default=None, description="CA certificates in PEM; without it the system's")
    client_certificate_file: FilePath | None = Field(default=None, description="Own certificate in PEM, for mutual TLS")
    client_key_file: FilePath | None = Field(default=None, description="Key of the own certificate, unencrypted PEM")
    protocol: Literal["3.1.1", "5"] = Field(default="3.1.1", description="MQTT version")
    keepalive_s: int = Field(default=30, ge=1, le=65_535, description="A silent connection is lost after about twice")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="From name resolution to CONNACK")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = _split(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "a broker URL carries no user name or password, because URLs end up in logs: "
                "use 'username' and 'password_file'"
            )
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no broker URL: write mqtt://host[:1883], or mqtts://host[:8883] for TLS")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"broker URL {url!r} has something after host and port: MQTT over TCP has no path")
        if parts.port == 0:
            raise ValueError(f"broker URL {url!r}: port 0 can't be connected to")
        return url

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("'password_file' needs a 'username'")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            raise ValueError("'client_certificate_file' and 'client_key_file' go together")
        if not self.tls and (self.ca_file is not None or self.client_certificate_file is not None):
            raise ValueError("certificates need TLS: write the URL as mqtts://host")
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return _split(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """Host name or address, an IPv6 address without its brackets."""
        return _split(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port, by default that of the scheme."""
        parts = _split(self.url)
        return parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def address(self) -> str:
        """The URL in full, for messages to people: `mqtt://host:1883`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        parts.port  # noqa: B018 - the property parses, and raises for text or a number out of range
    except ValueError:
        raise ValueError("the port of a broker URL is a number from 1 to 65535") from None
    return parts
