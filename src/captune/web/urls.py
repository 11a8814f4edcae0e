"""Pictures by http(s) address, without a way to the machines behind the server.

The host is resolved once, every address it has must be a public one, and the connection goes to
that very address; each redirect is checked the same way. Bytes and time are bounded.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, urljoin, urlsplit

from captune.web.problems import Problem

REDIRECTS = 3
_BLOCK = 64 * 1024
_PORTS = {"http": 80, "https": 443}
# Addresses that carry an IPv4 address inside, which a gateway on the way would go to.
_CARRIERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(url: str, *, most_bytes: int, seconds: float) -> bytes:
    """The bytes at an address; blocks. Raises `Problem` (422) where it is not public or not fetched in time."""
    deadline = time.monotonic() + seconds
    for _ in range(REDIRECTS + 1):
        found, url = _fetch_once(url, most_bytes, deadline)
        if found is not None:
            return found
    raise _refused("redirects too often")


def public_address(host: str, port: int) -> str:
    """The one address to connect to; raises `Problem` unless every address of the host is public."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _refused("its host is not known") from None
    addresses = [str(answer[4][0]) for answer in answers]
    if not addresses or not all(is_public(address) for address in addresses):
        raise _refused("its host is not a public one")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, and carries no other one inside."""
    try:
        ip: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip.is_site_local or any(ip in network for network in _CARRIERS):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


def _fetch_once(url: str, most_bytes: int, deadline: float) -> tuple[bytes | None, str]:
    """The bytes, or None and where they are instead."""
    parts, port = _parts(url)
    assert parts.hostname is not None
    address = public_address(parts.hostname, port)
    connection: socket.socket | None = None
    try:
        connection = _connect(address, port, _left(deadline))
        # A server that sends a byte now and then never lets a read time out: at the end the line is cut.
        cut = threading.Timer(_left(deadline), _cut, [connection])
        cut.daemon = True
        cut.start()
        try:
            if parts.scheme == "https":
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
            return _ask(connection, parts, most_bytes, deadline)
        finally:
            cut.cancel()
    except ssl.SSLError:
        raise _refused("its certificate or encryption is not right") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise _refused("it did not answer as it should, or not in time") from None
    finally:
        if connection is not None:
            connection.close()


def _parts(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("it is not an address") from None
    if parts.scheme not in _PORTS:
        raise _refused("only http and https are fetched")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise _refused("it has no host, or a user's name in it")
    if any(ord(sign) <= 32 or ord(sign) == 127 for sign in url) or len(url) > 2000:
        raise _refused("it is not an address")
    return parts, port or _PORTS[parts.scheme]


def _connect(address: str, port: int, seconds: float) -> socket.socket:
    """A connection to this address and no other: nothing is resolved any more."""
    connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _ask(connection: socket.socket, parts: SplitResult, most_bytes: int, deadline: float) -> tuple[bytes | None, str]:
    asking = http.client.HTTPConnection(parts.hostname or "", parts.port or _PORTS[parts.scheme])
    asking.sock = connection
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    asking.request("GET", path, headers={"User-Agent": "captune", "Accept": "image/*", "Connection": "close"})
    answer = asking.getresponse()
    if answer.status in (301, 302, 303, 307, 308):
        return None, urljoin(parts.geturl(), answer.headers.get("Location", ""))
    if answer.status != 200:
        raise _refused(f"it answered {answer.status}")
    found = bytearray()
    while block := answer.read(_BLOCK):
        found += block
        if len(found) > most_bytes:
            raise _refused("it is too large")
        connection.settimeout(_left(deadline))
    if answer.length:
        raise _refused("it was cut off")
    return bytes(found), ""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _refused(why: str) -> Problem:
    return Problem(422, f"The picture's address cannot be used: {why}.", "Send the picture itself.")
