"""Whose request it is: the address of the connection, or behind a proxy that is trusted the one it names."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

from captune.core.errors import UsageError

_ANY = "*"


class Clients:
    """`trusted` are addresses and networks of proxies whose X-Forwarded-For is believed; `*`: everyone's."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._any = _ANY in trusted
        try:
            self._trusted = [ip_network(each, strict=False) for each in trusted if each != _ANY]
        except ValueError as error:
            raise UsageError(
                f"--forwarded-allow-ips: {error}.", "Give addresses or networks, such as 10.0.0.0/8, or *."
            ) from None

    def is_proxy(self, address: str | None) -> bool:
        """Whether what an address says of others is believed."""
        found = _parsed(address or "")
        return found is not None and (self._any or any(found in network for network in self._trusted))

    def of(self, scope: Scope, headers: Headers) -> str | None:
        """The address of the client: the last one of X-Forwarded-For that no trusted proxy has; None: not known."""
        peer: str | None = (scope.get("client") or [None])[0]
        if not self.is_proxy(peer):
            return peer
        for part in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")[-20:]):
            found = _parsed(part)
            if found is None:  # not an address: what stands before it is not believed either
                break
            peer = str(found)
            if not self.is_proxy(peer):
                break
        return peer


def neighbourhood(address: str | None) -> str:
    """What limits are counted for: an address, of IPv6 the /64 that one client has to itself."""
    found = _parsed(address or "")
    return str(IPv6Network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(address)


def is_loopback(address: str | None) -> bool:
    """Whether only this machine reaches an address."""
    found = _parsed(address or "")
    return found is not None and found.is_loopback


def is_local_name(host: str, allowed: Sequence[str]) -> bool:
    """Whether a Host header names a server of this machine: an address, localhost, or a name that is allowed.

    A page on the web can have its own name resolve to 127.0.0.1, but not change the Host that its browser sends.
    """
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    if not name or name == "localhost" or name.endswith(".localhost") or name in {each.lower() for each in allowed}:
        return True
    return _parsed(name) is not None


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: perhaps in brackets, perhaps with a port."""
    text = text.strip()[:100]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
