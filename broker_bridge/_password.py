"""Reading a password from the file that a configuration names."""

from __future__ import annotations

from pathlib import Path

from broker_bridge.session import BrokerMisconfigured


def read_password(path: Path | None) -> str | None:
    """Read a password file, without its last line break. Raises: BrokerMisconfigured."""
    if path is None:
        return None
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise BrokerMisconfigured(f"the password file {path} can't be read: {reason}") from error
