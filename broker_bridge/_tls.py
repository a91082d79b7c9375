"""TLS on an open connection, without blocking the event loop."""

from __future__ import annotations

import socket
import ssl

from broker_bridge._ready import readable, reason_of, writable
from broker_bridge.config import BrokerConfig
from broker_bridge.session import BrokerMisconfigured, BrokerUnreachable


def tls_context(config: BrokerConfig) -> ssl.SSLContext:
    """Read the certificate files. Raises: BrokerMisconfigured: one can't be used."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise BrokerMisconfigured(f"the CA file {config.ca_file} can't be used: {reason_of(error)}") from error
    if config.client_certificate_file is not None:
        try:
            context.load_cert_chain(config.client_certificate_file, config.client_key_file, _no_passphrase)
        except (OSError, ValueError) as error:
            raise BrokerMisconfigured(
                f"the client certificate {config.client_certificate_file} with the key {config.client_key_file} "
                f"can't be used: {reason_of(error)}"
            ) from error
    if config.alpn:
        context.set_alpn_protocols(list(config.alpn))
    return context


async def encrypt(plain: socket.socket, context: ssl.SSLContext, config: BrokerConfig) -> ssl.SSLSocket:
    """Shake hands; the plain socket is closed if that fails. Raises: BrokerUnreachable."""
    encrypted = plain
    try:
        encrypted = context.wrap_socket(plain, server_hostname=config.server_name, do_handshake_on_connect=False)
        await _handshake(encrypted)
    except (OSError, ValueError) as error:
        encrypted.close()
        raise BrokerUnreachable(f"broker {config.address} unreachable: TLS failed: {reason_of(error)}") from error
    except BaseException:
        encrypted.close()
        raise
    return encrypted


async def _handshake(sock: ssl.SSLSocket) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await readable(sock)
        except ssl.SSLWantWriteError:
            await writable(sock)
        else:
            return


def _no_passphrase() -> str:
    # Without this OpenSSL asks on the terminal, and a service hangs.
    raise ValueError("the key is encrypted; write it unencrypted into a file that only this service may read")
