"""Where a service answers questions about its health."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator

from uns_topics.model import FileValue


class HealthConfig(FileValue):
    """The `health` group of a service's configuration file."""

    listen: str | None = Field(
        default=None,
        description=(
            "address and port of /healthz, /readyz and /metrics, such as 127.0.0.1:9464 or [::1]:9464; left out: off. "
            "They have no password and no TLS: 0.0.0.0:9464 or another address off the loopback shows them to that "
            "network, and is only listened on because it stands here"
        ),
    )

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str | None) -> str | None:
        if listen is not None:
            _split(listen)
        return listen

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address (IPv6 without brackets) and port to listen on; None where nothing is listened on."""
        return None if self.listen is None else _split(self.listen)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can ask; true where nobody can."""
        address = self.address
        return address is None or ipaddress.ip_address(address[0]).is_loopback

    @property
    def url(self) -> str | None:
        """Where a process of the same machine asks: the loopback where every address is listened on."""
        address = self.address
        if address is None:
            return None
        ip = ipaddress.ip_address(address[0])
        if ip.is_unspecified:
            return f"http://{'127.0.0.1' if ip.version == 4 else '[::1]'}:{address[1]}"
        return f"http://{ip if ip.version == 4 else f'[{ip}]'}:{address[1]}"


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    is_six = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_six else host
    try:
        fits = (ipaddress.ip_address(bare).version == 6) == is_six
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{listen!r} is no address to listen on: write 127.0.0.1:9464, or [::1]:9464 for IPv6")
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65_535):
        raise ValueError(f"the port of {listen!r} is a number from 1 to 65535")
    return bare, int(port)
