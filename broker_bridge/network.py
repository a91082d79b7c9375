"""What a plant's network asks of a connection: a proxy to go through, and options of the TCP socket."""

from __future__ import annotations

from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, field_validator, model_validator

from broker_bridge.settings import FilePath


class ProxyConfig(BaseModel):
    """An HTTP proxy that opens a tunnel to the broker by CONNECT."""

    # A refused URL may carry a password: it must not come back in the error's text.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(description="http://host:port; environment variables such as HTTPS_PROXY are not read")
    username: str | None = Field(default=None, min_length=1, description="User name for the proxy (Basic)")
    password_file: FilePath | None = Field(default=None, description="File whose content is the proxy's password")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = split_url(url, "proxy")
        if parts.scheme == "https":
            raise ValueError(
                "a proxy is spoken to over http:// only; what goes through its tunnel is TLS with mqtts://"
            )
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no proxy URL: write http://host:port")
        if parts.port is None:
            raise ValueError(f"proxy URL {url!r} names no port: proxies often listen on 3128 or 8080")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"proxy URL {url!r} has something after host and port")
        return url

    @field_validator("username")
    @classmethod
    def _check_username(cls, username: str | None) -> str | None:
        if username is not None and ":" in username:
            raise ValueError("a proxy's user name can't contain a colon (Basic authentication ends it there)")
        return username

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("a proxy's 'username' and 'password_file' go together")
        return self

    @property
    def host(self) -> str:
        """Host name or address, an IPv6 address without its brackets."""
        return split_url(self.url, "proxy").hostname or ""

    @property
    def port(self) -> int:
        """TCP port."""
        return split_url(self.url, "proxy").port or 0

    @property
    def address(self) -> str:
        """The URL in full, for messages to people."""
        return f"http://{bracketed(self.host)}:{self.port}"


class SocketConfig(BaseModel):
    """Options of the TCP socket, to the broker or to the proxy; what is left out is the system's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tcp_keepalive_s: int | None = Field(
        default=None, ge=1, le=32_767, description="Seconds of silence before TCP keepalive probes; default: no probes"
    )
    tcp_user_timeout_s: float | None = Field(
        default=None, ge=0.001, le=86_400, description="Sent data unacknowledged for so long ends the connection"
    )
    send_buffer_bytes: int | None = Field(
        default=None, ge=1024, le=2**30, description="Kernel's send buffer (SO_SNDBUF; Linux doubles and caps it)"
    )
    receive_buffer_bytes: int | None = Field(
        default=None, ge=1024, le=2**30, description="Kernel's receive buffer (SO_RCVBUF; Linux doubles and caps it)"
    )
    bind_address: IPvAnyAddress | None = Field(
        default=None, description="Own address to connect from, where a plant has several networks"
    )


def split_url(url: str, whose: str) -> SplitResult:
    """Split a URL of a host that is connected to. Raises: ValueError: port, host or user name can't be used."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the {whose} URL has brackets that hold no IPv6 address") from None
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"the port of a {whose} URL is a number from 1 to 65535") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"a {whose} URL carries no user name or password, because URLs end up in logs: "
            "use 'username' and 'password_file'"
        )
    if port == 0:
        raise ValueError(f"{whose} URL {url!r}: port 0 can't be connected to")
    try:
        wire_host(parts.hostname or "")
    except ValueError:
        raise ValueError(f"the host of {whose} URL {url!r} is no host name and no address") from None
    return parts


def wire_host(host: str) -> str:
    """Return a host as HTTP headers carry it: in ASCII, without an IPv6 zone. Raises: ValueError: no host name."""
    # A host goes into request lines: a space or a control character there would be another request.
    if any(character.isspace() or not character.isprintable() for character in host):
        raise ValueError("a host name has no spaces")
    return host.encode("idna").decode("ascii").partition("%")[0]


def bracketed(host: str) -> str:
    """Return a host as URLs write it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
