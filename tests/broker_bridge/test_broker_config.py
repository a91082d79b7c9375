from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerMisconfigured
from tests.aio import Inbox, run
from tests.servers import Certificates


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "address"),
    [
        ("mqtt://broker", "broker", 1883, False, "mqtt://broker:1883"),
        ("mqtts://broker", "broker", 8883, True, "mqtts://broker:8883"),
        ("mqtt://10.0.0.1:1884/", "10.0.0.1", 1884, False, "mqtt://10.0.0.1:1884"),
        ("mqtts://[fd00::1]", "fd00::1", 8883, True, "mqtts://[fd00::1]:8883"),
        ("mqtt://[::1]:1885", "::1", 1885, False, "mqtt://[::1]:1885"),
    ],
)
def test_urls(url: str, host: str, port: int, *, tls: bool, address: str) -> None:
    config = BrokerConfig(url=url)
    assert (config.host, config.port, config.tls, config.address) == (host, port, tls, address)


def test_defaults_are_written_down() -> None:
    config = BrokerConfig()
    assert (config.address, config.protocol) == ("mqtt://127.0.0.1:1883", "3.1.1")
    assert (config.keepalive_s, config.connect_timeout_s) == (30, 10.0)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"url": "broker:1883"}, "is no broker URL"),
        ({"url": "http://broker"}, "is no broker URL"),
        ({"url": "mqtt://"}, "is no broker URL"),
        ({"url": "mqtt://broker:99999"}, "a number from 1 to 65535"),
        ({"url": "mqtt://broker:port"}, "a number from 1 to 65535"),
        ({"url": "mqtt://broker:0"}, "port 0"),
        ({"url": "mqtt://broker/topic"}, "has something after host and port"),
        ({"url": "mqtt://broker?x=1"}, "has something after host and port"),
        ({"password_file": "secret"}, "needs a 'username'"),
        ({"url": "mqtts://b", "client_key_file": "k"}, "go together"),
        ({"ca_file": "ca.pem"}, "certificates need TLS"),
        ({"protocol": "4"}, "'3.1.1' or '5'"),
        ({"keepalive_s": 0}, "greater than or equal to 1"),
        ({"hostname": "x"}, "not permitted"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BrokerConfig.model_validate(values)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError, match="use 'username' and 'password_file'") as refusal:
        BrokerConfig(url="mqtt://lyon:hunter2@broker")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("library", [AiomqttConnector, PahoConnector])
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_password_file_that_cannot_be_read_is_named(
    library: type[PahoConnector], content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)

    async def main() -> None:
        config = BrokerConfig(username="lyon", password_file=path)
        with pytest.raises(BrokerMisconfigured, match=str(path)):
            async with library(config).connect("one", on_message=Inbox()):
                pass

    run(main())


def test_an_encrypted_key_is_an_error_and_not_a_question_on_the_terminal(
    certificates: Certificates, tmp_path: Path
) -> None:
    encrypted = tmp_path / "encrypted.key"
    # What matters is the header: OpenSSL asks for the passphrase before it looks at the content.
    body = certificates.client_key.read_text("ascii").splitlines()[1:-1]
    header = ["-----BEGIN EC PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC," + "0" * 32, ""]
    encrypted.write_text("\n".join([*header, *body, "-----END EC PRIVATE KEY-----", ""]), "ascii")

    async def main() -> None:
        config = BrokerConfig(
            url="mqtts://127.0.0.1",
            ca_file=certificates.ca,
            client_certificate_file=certificates.client,
            client_key_file=encrypted,
        )
        with pytest.raises(BrokerMisconfigured, match="the key is encrypted"):
            async with PahoConnector(config).connect("one", on_message=Inbox()):
                pass

    run(main())


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "tls", "address"),
    [
        ("ws://broker", "broker", 80, "/mqtt", False, "ws://broker:80/mqtt"),
        ("wss://broker", "broker", 443, "/mqtt", True, "wss://broker:443/mqtt"),
        ("ws://broker:8080/", "broker", 8080, "/", False, "ws://broker:8080/"),
        ("wss://[::1]:9001/a/b%20c", "::1", 9001, "/a/b%20c", True, "wss://[::1]:9001/a/b%20c"),
    ],
)
def test_websocket_urls(url: str, host: str, port: int, path: str, *, tls: bool, address: str) -> None:
    config = BrokerConfig(url=url)
    assert config.websocket
    assert (config.host, config.port, config.path, config.tls, config.address) == (host, port, path, tls, address)
    assert (BrokerConfig().websocket, BrokerConfig().path) == (False, "")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"url": "ws://broker/mqtt?token=1"}, "has something after its path"),
        ({"url": "ws://broker/mqtt#x"}, "has something after its path"),
        ({"url": "ws://broker/mq tt"}, "must be percent-encoded"),
        ({"url": "ws://broker/größe"}, "must be percent-encoded"),
        ({"url": "ws://bro ker"}, "is no host name and no address"),
        ({"url": "mqtt://bro\u2028ker"}, "is no host name and no address"),
        ({"url": "mqtt://a..b"}, "is no host name and no address"),
        ({"url": "mqtt://[broker]"}, "brackets that hold no IPv6 address"),
        ({"url": "ws://lyon:hunter2@broker"}, "carries no user name"),
        ({"url": "ws://b", "ca_file": "ca.pem"}, "certificates need TLS: write the URL as wss://host"),
        ({"alpn": ["mqtt"]}, "'alpn' needs TLS: write the URL as mqtts://host"),
        ({"url": "ws://b", "tls_server_name": "b"}, "'tls_server_name' needs TLS: write the URL as wss://host"),
        ({"url": "mqtts://b", "alpn": [""]}, "is no ALPN protocol"),
        ({"url": "mqtts://b", "alpn": ["x" * 256]}, "is no ALPN protocol"),
        ({"url": "mqtts://b", "tls_server_name": "a b"}, "is no host name and no address"),
        ({"proxy": {"url": "https://proxy:3128"}}, "spoken to over http:// only"),
        ({"proxy": {"url": "socks5://proxy:1080"}}, "is no proxy URL"),
        ({"proxy": {"url": "proxy:3128"}}, "is no proxy URL"),
        ({"proxy": {"url": "http://proxy"}}, "names no port"),
        ({"proxy": {"url": "http://proxy:3128/x"}}, "has something after host and port"),
        ({"proxy": {"url": "http://proxy:0"}}, "port 0"),
        ({"proxy": {"url": "http://proxy:1", "username": "a"}}, "go together"),
        ({"proxy": {"url": "http://proxy:1", "password_file": "a"}}, "go together"),
        ({"proxy": {"url": "http://proxy:1", "username": "a:b", "password_file": "a"}}, "can't contain a colon"),
        ({"socket": {"bind_address": "eth0"}}, "not a valid IPv4 or IPv6 address"),
        ({"socket": {"tcp_keepalive_s": 0}}, "greater than or equal to 1"),
        ({"socket": {"nodelay": True}}, "not permitted"),
    ],
)
def test_ways_that_make_no_sense_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BrokerConfig.model_validate(values)


def test_a_password_in_a_proxy_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError, match="use 'username' and 'password_file'") as refusal:
        BrokerConfig.model_validate({"proxy": {"url": "http://lyon:hunter2@proxy:3128"}})
    assert "hunter2" not in str(refusal.value)


def test_files_of_a_proxy_count_from_the_configurations_folder() -> None:
    values = {"proxy": {"url": "http://proxy:3128", "username": "a", "password_file": "secret"}}
    config = BrokerConfig.model_validate(values, context={"folder": "/etc/headgate"})
    assert config.proxy is not None
    assert config.proxy.password_file == Path("/etc/headgate/secret")
