"""Real brokers and proxies for tests: each a process of its own, on a free loopback port, ended with the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

_START_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running broker or proxy."""

    host: str
    port: int
    process: subprocess.Popen[bytes]
    directory: Path
    scheme: str = "mqtt"
    log: Path = field(default=Path("/dev/null"))

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Certificates:
    """PEM files of one certificate authority, one server (127.0.0.1, ::1, localhost) and one client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


@contextmanager
def mosquitto(
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    websockets: bool = False,
    passwords: dict[str, str] | None = None,
    certificates: Certificates | None = None,
    max_packet_size: int | None = None,
    message_size_limit: int | None = None,
    max_queued_messages: int = 100_000,
    acl: str | None = None,
    extra: str = "",
) -> Iterator[Server]:
    """Run Mosquitto.

    Args:
        host: the address to listen on.
        port: a port to come back on after a kill; by default a free one.
        websockets: listen for WebSocket instead of plain MQTT.
        passwords: by user name; None lets everybody in.
        certificates: listen with TLS and demand a client certificate.
        max_packet_size: bytes above which a packet ends the connection (announced in MQTT 5).
        message_size_limit: payload bytes above which a message is acknowledged and dropped.
        max_queued_messages: per client; more are dropped.
        acl: content of an ACL file.
        extra: further lines of its configuration.
    """
    with TemporaryDirectory(prefix="mosquitto-") as name:
        directory = Path(name)
        port = port or free_port(host)
        lines = [
            # Mosquitto 2.0.11 doesn't start with WebSocket listeners alone, and listens everywhere without the domain.
            *([f"listener 0 {directory / 'socket'}"] if websockets else []),
            f"listener {port} {host}",
            *(["protocol websockets", f"socket_domain {'ipv6' if ':' in host else 'ipv4'}"] if websockets else []),
            "set_tcp_nodelay true",
            "persistence false",
            f"max_queued_messages {max_queued_messages}",
            f"allow_anonymous {'false' if passwords is not None else 'true'}",
            f"log_dest file {directory / 'log'}",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # it would change to a user who can't read this directory
        if passwords is not None:
            lines.append(f"password_file {_password_file(directory, passwords)}")
        if acl is not None:
            (directory / "acl").write_text(acl, "utf-8")
            lines.append(f"acl_file {directory / 'acl'}")
        if certificates is not None:
            lines += [
                f"cafile {certificates.ca}",
                f"certfile {certificates.server}",
                f"keyfile {certificates.server_key}",
                "require_certificate true",
            ]
        if max_packet_size is not None:
            lines.append(f"max_packet_size {max_packet_size}")
        if message_size_limit is not None:
            lines.append(f"message_size_limit {message_size_limit}")
        config = directory / "mosquitto.conf"
        config.write_text("\n".join([*lines, extra, ""]), "utf-8")
        command = [_program("mosquitto"), "-c", str(config)]
        scheme = ("wss" if certificates else "ws") if websockets else ("mqtts" if certificates else "mqtt")
        with _running(command, port, directory, scheme, host) as server:
            yield server


@contextmanager
def tinyproxy(*allowed: int, users: dict[str, str] | None = None) -> Iterator[Server]:
    """Run an HTTP proxy.

    Args:
        allowed: ports that CONNECT may lead to.
        users: passwords by user name that it demands; None lets everybody through.
    """
    with TemporaryDirectory(prefix="tinyproxy-") as name:
        directory, port = Path(name), free_port()
        lines = [
            f"Port {port}",
            "Listen 127.0.0.1",
            "Timeout 600",
            f'LogFile "{directory / "log"}"',
            "LogLevel Connect",
            *(f"ConnectPort {target}" for target in allowed),
            *(f"BasicAuth {user} {password}" for user, password in (users or {}).items()),
        ]
        config = directory / "tinyproxy.conf"
        config.write_text("\n".join([*lines, ""]), "utf-8")
        with _running([_program("tinyproxy"), "-d", "-c", str(config)], port, directory, "http") as server:
            yield server


@contextmanager
def mosquitto_on(config: str, port: int) -> Iterator[Server]:
    """Run Mosquitto on a complete configuration that listens with TLS on this port of 127.0.0.1."""
    with TemporaryDirectory(prefix="mosquitto-") as name:
        directory = Path(name)
        if os.geteuid() == 0:
            config += "user root\n"  # it would change to a user who can't read its files
        (directory / "mosquitto.conf").write_text(config, "utf-8")
        command = [_program("mosquitto"), "-c", str(directory / "mosquitto.conf")]
        with _running(command, port, directory, "mqtts") as server:
            yield server


@contextmanager
def postgresql() -> Iterator[Server]:
    """Run PostgreSQL with a user `headgate` without a password; its commits return before they are on disk."""
    with TemporaryDirectory(prefix="postgresql-") as name:
        directory, port = Path(name), free_port()
        user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if user is not None:
            shutil.chown(directory, user)
        data = directory / "data"
        initdb = [_postgresql("initdb"), "-D", str(data), "-U", "headgate", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, user=user, cwd=directory)
        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={directory}", "fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        command = [_postgresql("postgres"), "-D", str(data), "-p", str(port), *options]
        with _running(command, port, directory, "postgresql+psycopg", user=user, stop=signal.SIGINT) as server:
            yield server


def _postgresql(program: str) -> str:
    """Debian keeps its programs apart, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(found[-1]) if found else _program(program)


@contextmanager
def amqtt_server(*, port: int | None = None) -> Iterator[Server]:
    """Run the embedded broker in a process of its own."""
    port = port or free_port()
    code = f"import asyncio; from broker_bridge.embedded import serve; asyncio.run(serve(port={port}))"
    command = [sys.executable, "-c", code]
    with TemporaryDirectory(prefix="amqtt-") as name, _running(command, port, Path(name)) as server:
        yield server


def make_certificates(directory: Path) -> Certificates:
    """Make an authority, a server and a client certificate with the openssl command, valid for a day."""
    openssl = _program("openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-days", "1", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
    for who in ("server", "client"):
        (directory / f"{who}.ext").write_text("subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost\n", "utf-8")
        run("req", *key, "-subj", f"/CN={who}", "-keyout", f"{who}.key", "-out", f"{who}.csr")
        run(
            *("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "1", "-extfile", f"{who}.ext", "-out", f"{who}.pem"),
        )
    return Certificates(
        ca=directory / "ca.pem",
        server=directory / "server.pem",
        server_key=directory / "server.key",
        client=directory / "client.pem",
        client_key=directory / "client.key",
    )


@contextmanager
def _running(
    command: list[str],
    port: int,
    directory: Path,
    scheme: str = "mqtt",
    host: str = "127.0.0.1",
    *,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[Server]:
    output = directory / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, user=user, cwd=directory
        )
    try:
        wait_until_listening(process, host, port, output)
        yield Server(host, port, process, directory, scheme, directory / "log")
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(stop)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_listening(process: subprocess.Popen[bytes], host: str, port: int, output: Path) -> None:
    """Return when somebody listens there. Raises: AssertionError: the process ended, or time is up."""
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket(_family(host)) as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{process.args!r} doesn't listen on port {port}: {output.read_text()!r}")
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)  # returns at once if it ends


def _password_file(directory: Path, passwords: dict[str, str]) -> Path:
    path = directory / "passwords"
    path.write_text("".join(f"{user}:{password}\n" for user, password in passwords.items()), "utf-8")
    subprocess.run([_program("mosquitto_passwd"), "-U", str(path)], check=True, capture_output=True)
    return path


def _program(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if path is None:
        raise AssertionError(f"{name} is not installed. On Debian or Ubuntu: scripts/need-test-programs")
    return path


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of this address that nobody listens on."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
