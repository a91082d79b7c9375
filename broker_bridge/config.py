"""How to reach one broker: address, credentials, certificates, the way through the network, protocol version."""

from __future__ import annotations

import re
from typing import Literal, Self
from urllib.parse import SplitResult

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from broker_bridge.network import ProxyConfig, SocketConfig, bracketed, split_url, wire_host
from broker_bridge.settings import FilePath

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_DEFAULT_PATH = "/mqtt"
# What a request line takes unencoded (RFC 3986, section 3.3).
_PATH = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:@/-]*")


class BrokerConfig(BaseModel):
    """One broker as it stands in a configuration file.

    Secrets are named by file and read at each connection, so that a rotated password needs no restart.
    """

    # A refused URL may carry a password: it must not come back in the error's text.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(
        default="mqtt://127.0.0.1",
        description="mqtt://host[:1883], mqtts://host[:8883] (TLS), or over WebSocket ws://host[:80][/mqtt], "
        "wss://host[:443][/mqtt] (TLS)",
    )
    username: str | None = Field(default=None, min_length=1, description="User name for the broker")
    password_file: FilePath | None = Field(default=None, description="File whose content is the password")
    ca_file: FilePath | None = Field(default=None, description="CA certificates in PEM; without it the system's")
    client_certificate_file: FilePath | None = Field(default=None, description="Own certificate in PEM, for mutual TLS")
    client_key_file: FilePath | None = Field(default=None, description="Key of the own certificate, unencrypted PEM")
    tls_server_name: str | None = Field(
        default=None, min_length=1, description="Name in the broker's certificate, where it isn't the URL's host"
    )
    alpn: tuple[str, ...] = Field(
        default=(), description="ALPN protocols to offer, for brokers that share port 443, e.g. x-amzn-mqtt-ca"
    )
    proxy: ProxyConfig | None = Field(
        default=None, description="HTTP proxy on the way to this broker; only what stands here is used"
    )
    socket: SocketConfig = Field(default=SocketConfig(), description="Options of the TCP socket")
    protocol: Literal["3.1.1", "5"] = Field(default="3.1.1", description="MQTT version")
    keepalive_s: int = Field(default=30, ge=1, le=65_535, description="A silent connection is lost after about twice")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="From name resolution to CONNACK")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(
                f"{url!r} is no broker URL: write mqtt://host[:1883], mqtts://host[:8883] for TLS, "
                "or ws://host[:80][/path], wss://host[:443][/path] for WebSocket"
            )
        if parts.query or parts.fragment or (parts.path.strip("/") and not _is_websocket(parts)):
            what = "its path" if _is_websocket(parts) else "host and port: MQTT over TCP has no path"
            raise ValueError(f"broker URL {url!r} has something after {what}")
        if not _PATH.fullmatch(parts.path):
            raise ValueError(f"the path of broker URL {url!r} has characters that must be percent-encoded")
        return url

    @field_validator("tls_server_name")
    @classmethod
    def _check_tls_server_name(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                wire_host(name)
            except ValueError:
                raise ValueError(f"{name!r} is no host name and no address") from None
        return name

    @field_validator("alpn")
    @classmethod
    def _check_alpn(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not (name.isascii() and name.isprintable() and 1 <= len(name) <= 255):
                raise ValueError(f"{name!r} is no ALPN protocol: it has 1 to 255 printable ASCII characters")
        return names

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("'password_file' needs a 'username'")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            raise ValueError("'client_certificate_file' and 'client_key_file' go together")
        if self.tls:
            return self
        with_tls = "wss://host" if self.websocket else "mqtts://host"
        if self.ca_file is not None or self.client_certificate_file is not None:
            raise ValueError(f"certificates need TLS: write the URL as {with_tls}")
        for name in ("tls_server_name", "alpn"):
            if getattr(self, name):
                raise ValueError(f"'{name}' needs TLS: write the URL as {with_tls}")
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return _split(self.url).scheme in {"mqtts", "wss"}

    @property
    def websocket(self) -> bool:
        """Whether MQTT travels in WebSocket frames."""
        return _is_websocket(_split(self.url))

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
    def path(self) -> str:
        """The path that a WebSocket is asked for; empty without WebSocket."""
        parts = _split(self.url)
        return (parts.path or _DEFAULT_PATH) if _is_websocket(parts) else ""

    @property
    def server_name(self) -> str:
        """The name that the broker's certificate must have."""
        return self.tls_server_name or self.host

    @property
    def address(self) -> str:
        """The URL in full, for messages to people: `mqtt://host:1883`, `wss://host:443/mqtt`."""
        return f"{_split(self.url).scheme}://{bracketed(self.host)}:{self.port}{self.path}"


def _split(url: str) -> SplitResult:
    return split_url(url, "broker")


def _is_websocket(parts: SplitResult) -> bool:
    return parts.scheme in {"ws", "wss"}
