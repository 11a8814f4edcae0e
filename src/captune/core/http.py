"""The one HTTP client: total deadlines, size limits, proxies, and no way to machines behind this one.

A clock runs over a whole exchange, from the connection to the last byte (of a stream: over each read), whatever comes
in between: slow heads, handshakes, single bytes. Bytes are counted where they arrive, so that no answer, however
framed, is larger than its reader allows. Redirects lead to http and https alone, and never from the public internet
to an address behind it.

Not on httpx: its time-outs hold for one read at a time (5 of the 39 attacks of `test_http.py` never end), so clock,
count of bytes, address check and redirects would stay here, as a network backend; it saves some 45 lines.
"""

import base64
import http.client
import io
import ipaddress
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from captune.core.errors import CaptuneError

# Addresses that carry an IPv4 address inside, which a gateway on the way would go to.
_CARRIERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def addresses_of(host: str, port: int) -> list[str]:
    """All IP addresses of a host, in the system's order; raises `socket.gaierror` or `UnicodeError`."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


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


REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_BLOCK = 64 * 1024
_HEAD_BYTES = 256 * 1024  # of an answer's head, and of what frames each read
_LONGEST_ADDRESS = 8000
_LOOK_UP_SECONDS = 0.25  # after which one looks up whether anybody still waits


class WebError(Exception):
    """Why an address gave nothing, in a few words.

    `status` is that of the answer where there was one; `absent`: nobody is there, so that trying again at once does
    not help; `large`: more bytes than allowed.
    """

    def __init__(self, reason: str, *, status: int | None = None, absent: bool = False, large: bool = False) -> None:
        super().__init__(reason)
        self.status, self.absent, self.large = status, absent, large


class Clock:
    """What is left of the seconds and of the bytes of an exchange; `stopped`: whether nobody waits for it any more."""

    def __init__(self, seconds: float, stopped: Callable[[], bool]) -> None:
        self.seconds, self._stopped = seconds, stopped
        self._bytes = _HEAD_BYTES
        self.restart()

    def restart(self) -> None:
        """Begin again: the next reads are another step."""
        self._end = time.monotonic() + self.seconds

    def pause(self, seconds: float) -> None:
        """Leave out seconds that the reader took."""
        self._end += seconds

    def left(self) -> float:
        """Seconds; raises `TimeoutError` where there are none."""
        if self._stopped():
            raise WebError("not fetched any more")
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def allow(self, count: int) -> None:
        """As many bytes may come now, and what frames them."""
        self._bytes = 2 * count + _HEAD_BYTES

    def count(self, count: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            raise WebError("its answer is not valid HTTP (more came than it may hold)", large=True)


@dataclass(frozen=True)
class Network:
    """How hosts are found and connected to: `resolve` gives all addresses of a host, `connect` takes one of them."""

    resolve: Callable[[str, int], list[str]]
    connect: Callable[[str, int, float], socket.socket]


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


NETWORK = Network(addresses_of, _connect)


class Answer:
    """An answer whose body has not been read, with its `clock`; `length` in bytes, None where the server sends none."""

    def __init__(self, url: str, answer: http.client.HTTPResponse, clock: Clock) -> None:
        self.url, self.status, self.headers = url, answer.status, answer.headers
        self._answer, self.clock = answer, clock
        self._came = 0
        self.length = _length(answer)

    def check(self, *statuses: int) -> None:
        """Raise `WebError` unless the answer is one of these, and its body as it is, not compressed."""
        if self.status not in statuses:
            phrase = f" ({HTTPStatus(self.status).phrase})" if self.status in _KNOWN else ""
            raise WebError(f"the server answered {self.status}{phrase}", status=self.status)
        packed = self.headers.get("Content-Encoding", "identity").strip().lower()
        if packed not in ("", "identity"):
            raise WebError("its answer is compressed, which was not asked for")

    def read(self, most: int) -> bytes:
        """The next bytes, `most` of them unless the end comes first; none at the end. Raises `WebError`."""
        if self.length is not None:
            most = min(most, self.length - self._came)
        self.clock.allow(most)
        with _explained():
            self.clock.left()  # a quick server does not wait for it
            block = self._answer.read(most) if most else b""
        self._came += len(block)
        if not block and self.length is not None and self._came < self.length:
            raise WebError(f"the connection broke after {self._came:,} of {self.length} bytes")
        return block


def get(
    url: str,
    *,
    max_bytes: int,
    seconds: float,
    public: bool = False,
    grown: Callable[[int], None] = lambda count: None,
    stopped: Callable[[], bool] = lambda: False,
    network: Network = NETWORK,
) -> bytes:
    """The bytes at an address, whole, in `seconds`; raises `WebError`, soon where `stopped` says so.

    `grown` is called with the bytes that have come, and may wait for room: that time does not count.
    """
    found = io.BytesIO()
    accept = {"Accept": "image/*"}
    with opened(url, seconds=seconds, headers=accept, public=public, stopped=stopped, network=network) as answer:
        answer.check(200)
        if answer.length is not None and answer.length > max_bytes:
            raise _too_large(max_bytes)
        while block := answer.read(min(_BLOCK, max_bytes + 1 - found.tell())):
            found.write(block)
            if found.tell() > max_bytes:
                raise _too_large(max_bytes)
            before = time.monotonic()
            grown(found.tell())
            answer.clock.pause(time.monotonic() - before)
    return found.getvalue()


@contextmanager
def opened(
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    public: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    network: Network = NETWORK,
) -> Iterator[Answer]:
    """The answer at an address, redirects followed; raises `WebError`.

    With `public` every host on the way has to be on the public internet with all its addresses, and no proxy is used.
    """
    clock = Clock(seconds, stopped)
    outside = public  # whether the way has led over the public internet
    for _ in range(REDIRECTS + 1):
        parts = _parts(url)
        proxy = None if public else proxy_of(parts)
        with _explained():
            if proxy is None:
                addresses = _addresses(parts, network, outside, public)
                outside = outside or all(map(is_public, addresses))
                connection = _reach(addresses, _port(parts), clock, network)
            else:
                connection = _reach(network.resolve(proxy.host, proxy.port), proxy.port, clock, network)
        try:
            with _explained():
                if proxy is not None and parts.scheme == "https":
                    tunnel(_Line(connection, clock), parts, _port(parts), proxy)
                if parts.scheme == "https":
                    connection.settimeout(clock.left())
                    connection = _certificates().wrap_socket(connection, server_hostname=parts.hostname)
                plain = proxy is not None and parts.scheme == "http"
                extra = proxy.authorization if proxy is not None and plain else {}
                answer = _ask(_Line(connection, clock), parts, {**(headers or {}), **extra}, whole_address=plain)
                found = Answer(url, answer, clock)
            if answer.status not in _REDIRECTING:
                yield found
                return
            url = urllib.parse.urljoin(urllib.parse.urlunsplit(parts), answer.headers.get("Location", ""))
        finally:
            connection.close()
    raise WebError("it redirects too often")


class _Line:
    """What `http.client` takes for a socket; `opened` closes the connection behind it."""

    def __init__(self, connection: socket.socket, clock: Clock) -> None:
        self._connection, self._clock = connection, clock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._connection, self._clock), _BLOCK)

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._clock.left())
        self._connection.sendall(data)

    def close(self) -> None:
        """Left to `opened`: an answer is read after `http.client` is done with its socket."""


class _Incoming(io.RawIOBase):
    """Bytes as they arrive: each wait ends with the clock, and each byte counts."""

    def __init__(self, connection: socket.socket, clock: Clock) -> None:
        self._connection, self._clock = connection, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._connection.settimeout(min(self._clock.left(), _LOOK_UP_SECONDS))
            try:
                count = self._connection.recv_into(buffer)
            except TimeoutError:
                continue  # the clock says whether it is time
            self._clock.count(count)
            return count


_KNOWN = frozenset(status.value for status in HTTPStatus)


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


def _parts(url: str) -> urllib.parse.SplitResult:
    """An address in its parts, host and letters as they are sent; raises `WebError` for what is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except (ValueError, UnicodeError):
        raise WebError("it is not an address") from None
    if parts.scheme not in _PORTS:
        raise WebError("only http and https are fetched")
    if not host or parts.username is not None or parts.password is not None:
        raise WebError("it has no host, or a user's name in it")
    if len(url) > _LONGEST_ADDRESS:
        raise WebError("its address is too long")
    path, query = (urllib.parse.quote(part, safe="%/:=&?~+!$,;'@()*[]|") for part in (parts.path or "/", parts.query))
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return urllib.parse.SplitResult(parts.scheme, place, path, query, "")


def _port(parts: urllib.parse.SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def _addresses(parts: urllib.parse.SplitResult, network: Network, outside: bool, public: bool) -> list[str]:
    """All addresses of a host; raises `WebError` where it may not be gone to."""
    found = network.resolve(parts.hostname or "", _port(parts))
    if not found:
        raise WebError("its host is not known", absent=True)
    if outside and not all(map(is_public, found)):
        raise WebError("its host is not a public one" if public else "it redirects to a host that is not a public one")
    return found


def _reach(addresses: list[str], port: int, clock: Clock, network: Network) -> socket.socket:
    """A connection to the first address that takes one."""
    for number, address in enumerate(addresses, start=1):
        try:
            return network.connect(address, port, clock.left() / (len(addresses) + 1 - number))
        except OSError:
            if number == len(addresses):
                raise
    raise WebError("its host is not known", absent=True)


def _ask(
    line: _Line, parts: urllib.parse.SplitResult, headers: Mapping[str, str], *, whole_address: bool
) -> http.client.HTTPResponse:
    asking = http.client.HTTPConnection(parts.hostname or "", _port(parts))
    asking.default_port = _PORTS[parts.scheme]  # else https has :443 in its Host
    asking.sock = line  # which has all that is used of a socket
    path = urllib.parse.urlunsplit(parts if whole_address else ("", "", parts.path, parts.query, ""))
    every = {"User-Agent": "captune", "Accept-Encoding": "identity", "Connection": "close", **headers}
    asking.request("GET", path, headers=every)
    return asking.getresponse()


def _length(answer: http.client.HTTPResponse) -> int | None:
    """Bytes of a body as the server says; raises `WebError` where it contradicts itself."""
    coding = answer.headers.get("Transfer-Encoding", "").strip().lower()
    if coding not in ("", "identity", "chunked"):
        raise WebError("its answer is in an unknown transfer encoding")
    if answer.chunked:
        return None
    lengths = {each.strip() for line in answer.headers.get_all("Content-Length", []) for each in line.split(",")}
    if not lengths:
        return None
    if len(lengths) > 1 or not all(each.isascii() and each.isdigit() and len(each) < 19 for each in lengths):
        raise WebError("its answer states no valid length")
    return int(lengths.pop())


def _too_large(most: int) -> WebError:
    return WebError(f"more than {most:,} bytes", large=True)


@contextmanager
def _explained() -> Iterator[None]:
    """What connections and `http.client` raise, in a user's words."""
    try:
        yield
    except TimeoutError:
        raise WebError("no whole answer in time") from None
    except ssl.SSLCertVerificationError as error:
        raise WebError(f"its certificate is not accepted ({error.verify_message})") from None
    except ssl.SSLError as error:
        raise WebError(f"its encryption is not right ({error.reason or 'broken off'})") from None
    except socket.gaierror:
        raise WebError("its host is not known", absent=True) from None
    except ConnectionRefusedError:
        raise WebError("not reached (connection refused)", absent=True) from None
    except http.client.RemoteDisconnected:
        raise WebError("the server hung up without an answer") from None
    except http.client.IncompleteRead:
        raise WebError("the connection broke within its answer") from None
    except (http.client.HTTPException, ValueError):
        raise WebError("its answer is not valid HTTP") from None
    except OSError as error:
        raise WebError(f"not reached ({error.strerror or error})") from None
