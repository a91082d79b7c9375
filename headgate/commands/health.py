"""`headgate health`: is a service ready? For container health checks, service managers and people."""

from __future__ import annotations

import argparse
import http.client
import os
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from broker_bridge.health_config import HealthConfig
from broker_bridge.settings import ConfigError, override, read_yaml, validate
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command, number_to

PAGE = "/readyz"
MAX_ANSWER_BYTES = 64 * 1024
_GROUP = "health"
_seconds = number_to(3600, "no number of seconds from 0 to 3600")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "health",
        "Ask a service whether it is ready: exit code 0, or 6 with what is missing, or 4 where nobody answers.",
        ("headgate health --config edge.yaml", "headgate health http://127.0.0.1:9464"),
        run_health,
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("url", nargs="?", metavar="URL", help="where the service listens")
    asked.add_argument(
        "--config", type=Path, metavar="FILE", help="the service's own configuration, of which only `health` is read"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="S", help="seconds to wait for the answer (default 5)"
    )


def run_health(arguments: argparse.Namespace) -> int:
    """`headgate health`."""
    url = arguments.url if arguments.config is None else _url_of(arguments.config)
    host, port = _host_and_port(url)
    status, text = _ask(host, port, arguments.timeout)
    if status == HTTPStatus.OK:
        print(text)
        return Exit.OK
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        print(text)
        return Exit.FINDINGS
    raise CommandError(f"{url} answers {status} where a service of Headgate says whether it is ready")


def _url_of(path: Path) -> str:
    """Where the service of a configuration file listens. Raises: ConfigError, CommandError."""
    content = read_yaml(path)
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of keys was expected, not {type(content).__name__}")
    group = {_GROUP: (content or {}).get(_GROUP) or {}}
    override(group, os.environ, frozenset({_GROUP}))
    url = validate(HealthConfig, group[_GROUP], f"{path}: {_GROUP}").url
    if url is None:
        raise CommandError(f"{path}: health.listen is not set, so this service can't be asked", Exit.USAGE)
    return url


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path not in ("", "/", PAGE) or parts.query:
        raise CommandError(f"{url!r} is no place to ask: write http://127.0.0.1:9464", Exit.USAGE)
    return host, port


def _ask(host: str, port: int, timeout_s: float) -> tuple[int, str]:
    """Status and text of the answer. Raises: CommandError: there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    place = f"{f'[{host}]' if ':' in host else host}:{port}"
    try:
        connection.request("GET", PAGE)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER_BYTES).decode("utf-8", "replace").strip()
    except http.client.HTTPException:
        raise CommandError(f"{place} answers, but not as a service of Headgate does") from None
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise CommandError(f"nobody answers at {place}: {why}", Exit.BROKER) from None
    finally:
        connection.close()
