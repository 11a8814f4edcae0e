"""The proxy that the environment names (`http_proxy`, `https_proxy`, `no_proxy`), as other programs take it."""

from __future__ import annotations

import base64
import http.client
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from captune.core.errors import CaptuneError


@dataclass(frozen=True)
class Proxy:
    """Where it is, and the header that lets one in."""

    host: str
    port: int
    authorization: dict[str, str] = field(default_factory=dict)


def proxy_of(parts: urllib.parse.SplitResult) -> Proxy | None:
    """The proxy for an address; None: none is named, or not for this host.

    Raises `CaptuneError` for one of another kind than http.
    """
    named = urllib.request.getproxies().get(parts.scheme)
    if not named or urllib.request.proxy_bypass(parts.netloc):
        return None
    proxy = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise CaptuneError(
            f"A proxy of the kind {proxy.scheme}:// is not supported.",
            "Name one of http:// in http_proxy and https_proxy.",
        )
    header = {}
    if proxy.username is not None:
        words = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
        header = {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
    return Proxy(proxy.hostname, proxy.port or 80, header)


def tunnel(line: Any, parts: urllib.parse.SplitResult, port: int, proxy: Proxy) -> None:
    """Have a proxy connect a line to the host of an address; raises `OSError` where it does not."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    header = "".join(f"{name}: {text}\r\n" for name, text in proxy.authorization.items())
    line.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{header}\r\n".encode("ascii"))
    answer = http.client.HTTPResponse(line, method="CONNECT")
    answer.begin()
    if answer.status != 200:
        raise OSError(f"the proxy answered {answer.status}")
