"""Connections, heads, keys and hosts of strangers."""

from __future__ import annotations

import logging
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from captune.core.errors import UsageError
from captune.server.connections import (
    Connections,
    FileDescriptors,
    Timeouts,
    TrustedProxies,
    client_network,
    is_local_host,
)
from captune.server.keys import RateLimit, WrongKeyLimit
from captune.server.logs import LogRateLimit
from hostile import Hostile, attacked, head, read_all

KEYS = {"phone": "a-long-random-key"}
QUICK = Timeouts(headers=0.3, body=0.3, discard=0.2, write=0.3, linger=0.2, check_interval=0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with attacked(KEYS, Connections(1000, TrustedProxies(()), timeouts=QUICK), max_queue=2, max_body=1.0) as server:
        yield server


def test_neither_place_nor_body_is_for_requests_without_a_key_or_a_route(server: Hostile) -> None:
    seen: list[tuple[int, int, int]] = []
    lines = []
    for path, method in (
        ("/health/live", "POST"),
        ("/v1/caption", "POST"),
        ("/nothing", "POST"),
        ("/v1/caption", "PUT"),
    ):
        line = server.connect()
        line.sendall(head(path, method, content_length="900000") + b"x" * 400_000)
        lines.append(line)
        seen.append((server.admission.images, server.admission.receiving, server.admission.body_bytes))
    statuses = [int(read_all(line).split()[1]) for line in lines]
    assert statuses == [405, 401, 401, 401]
    assert set(seen) == {(0, 0, 0)}
    authorized = {"authorization": "Bearer a-long-random-key"}
    assert server.ask("/nothing", b"{}", **authorized)[0] == 404
    assert server.ask("/v1/models", b"{}", **authorized)[0] == 405
    assert server.ask("/v1/caption", b"{}", **authorized)[0] == 422


def test_a_refused_client_is_not_told_to_continue(server: Hostile) -> None:
    answer = server.send(head("/v1/caption", content_length="900000", expect="100-continue"))
    assert answer.startswith(b"HTTP/1.1 401 ")
    chunked = head("/v1/caption", transfer_encoding="chunked") + b"5\r\nhello\r\n"
    assert server.send(chunked).startswith(b"HTTP/1.1 401 ")
    assert server.send(b"POST /v1/caption HTTP/1.0\r\nContent-Length: 9\r\n\r\nx").startswith(b"HTTP/1.1 401 ")


def test_bodies_that_dawdle_are_dropped_however_many_bytes_they_drop(server: Hostile) -> None:
    line = server.connect()
    line.sendall(head("/v1/caption", content_length="900000", authorization="Bearer a-long-random-key"))
    server.until(lambda: server.admission.receiving == 1)
    assert server.admission.images == 0
    began = time.monotonic()
    answer = b""
    line.settimeout(0.05)
    while not answer and time.monotonic() - began < 5:
        line.sendall(b"x")
        try:
            answer = line.recv(1000)
        except TimeoutError:
            continue
    line.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    server.until(lambda: (server.admission.receiving, server.admission.body_bytes) == (0, 0))


def test_heads_that_dawdle_and_answers_that_are_not_read_end(server: Hostile) -> None:
    slow = server.connect()
    slow.sendall(b"GET /health")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", server.port))
    # Pipelined: the answers are far more than the buffers of both sides hold.
    deaf.settimeout(5)
    asked = head("/openapi.json", "GET", connection="keep-alive", authorization="Bearer a-long-random-key")
    open_ones = server.app.state.connections._open
    server.until(lambda: sum(map(len, open_ones.values())) >= 1)
    try:
        for _ in range(400):
            deaf.sendall(asked)
    except OSError:  # it was closed meanwhile
        pass
    server.until(lambda: sum(map(len, open_ones.values())) == 0)
    slow.close()
    deaf.close()


def test_chunks_of_a_byte_are_cut_off(server: Hostile) -> None:
    line = server.connect()
    line.sendall(head("/v1/caption", transfer_encoding="chunked", authorization="Bearer a-long-random-key"))
    server.until(lambda: server.admission.receiving == 1)
    try:
        line.sendall(b"1\r\nx\r\n" * 20_000)
        assert read_all(line) == b""
    except ConnectionError:
        pass
    line.close()
    server.until(lambda: server.admission.receiving == 0)
    assert server.live() == 200


def test_a_client_has_so_many_connections() -> None:
    with attacked(connections=Connections(3, TrustedProxies(()), timeouts=QUICK)) as server:
        waiting = [server.connect("127.0.0.2") for _ in range(6)]
        open_ones = server.app.state.connections._open
        server.until(lambda: len(open_ones["127.0.0.2"]) <= 3)
        assert server.live() == 200  # another address has its own
        for line in waiting:
            line.close()
        busy = [server.connect("127.0.0.3") for _ in range(3)]
        for line in busy:
            line.sendall(head("/v1/caption", content_length="9000"))
        server.until(lambda: server.admission.receiving == 3)
        assert server.send(head("/v1/models", "GET"), "127.0.0.3").startswith(b"HTTP/1.1 429 ")
        assert server.send(head("/health/live", "GET"), "127.0.0.3").startswith(b"HTTP/1.1 200 ")
        for line in busy:
            line.close()


def test_health_is_answered_where_descriptors_run_short() -> None:
    # Numbers of descriptors are reused, and here lie among those of the clients: they are counted, not compared.
    few, timeouts = FileDescriptors(limit=10_016, reserve=8, count_open=lambda: 10_000), Timeouts(grace=0.02)
    with attacked(connections=Connections(1000, TrustedProxies(()), descriptors=few, timeouts=timeouts)) as server:
        own = server.connect("127.0.0.2")
        open_ones = server.app.state.connections._open
        lines = [own]
        for _ in range(60):  # more than the process has, again and again
            lines.append(server.connect())
            assert server.live() == 200
            assert sum(map(len, open_ones.values())) <= 8 + 5
        time.sleep(2 * timeouts.grace)
        busy = []
        for n in range(1, 8):
            busy.append(server.connect())
            busy[-1].sendall(head("/v1/caption", content_length="9000"))
            server.until(lambda n=n: server.admission.receiving == n)
        time.sleep(2 * timeouts.grace)
        for _ in range(20):  # all are worked on: health, and nothing else
            assert server.live() == 200
        assert server.send(head("/v1/models", "GET")).startswith(b"HTTP/1.1 503 ")
        own.sendall(head("/v1/models", "GET"))  # whoever has few connections does not give way to who has many
        assert read_all(own).startswith(b"HTTP/1.1 200 ")
        for line in lines + busy:
            line.close()


def test_what_the_process_opens_itself_is_made_room_for() -> None:
    others = [20]
    crowds: list[Connections] = []

    def used() -> int:
        return others[0] + sum(map(len, crowds[0]._open.values()))

    crowds.append(Connections(1000, TrustedProxies(()), timeouts=QUICK, descriptors=FileDescriptors(10_060, 20, used)))
    others[0] = 10_010
    with attacked(connections=crowds[0]) as server:
        waiting = [server.connect() for _ in range(25)]
        server.until(lambda: len(crowds[0]._open["127.0.0.1"]) == 25)
        others[0] = 10_030
        server.until(lambda: len(crowds[0]._open["127.0.0.1"]) <= 10)
        for line in waiting:
            line.close()


def test_limits_of_a_process() -> None:
    found = FileDescriptors.of_process()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found is None or found == FileDescriptors(most, min(64, most // 4))


def test_wrong_keys_are_slowed_and_known_clients_are_not() -> None:
    now = [0.0]
    wrong_keys = WrongKeyLimit(lambda: now[0])
    assert wrong_keys.retry_after("a", "phone") == 0
    assert [wrong_keys.retry_after("a", None) for _ in range(11)] == [0] * 10 + [2]
    assert wrong_keys.retry_after("a", "web") == 2  # right, but an answer would tell
    assert wrong_keys.retry_after("a", "phone") == 0
    assert wrong_keys.retry_after("b", "web") == 0
    now[0] = 2.0
    assert [wrong_keys.retry_after("a", None) for _ in range(2)] == [0, 2]
    spread = [wrong_keys.retry_after(f"c{n}", None) for n in range(400)]
    assert 280 <= spread.count(0) <= 310


def test_guesses_over_http() -> None:
    with attacked(KEYS) as server:
        wrong = [server.ask("/v1/models", method="GET", authorization=f"Bearer {n}")[0] for n in range(14)]
        assert wrong == [401] * 10 + [429] * 4
        assert server.ask("/v1/models", method="GET")[0] == 401  # no guess
        assert server.ask("/v1/models", method="GET", authorization="Bearer a-long-random-key")[0] == 429
        assert server.live() == 200


def test_names_of_rates_are_bounded() -> None:
    rate = RateLimit(60, lambda: 0.0)
    for n in range(10_100):
        rate.retry_after(str(n))
    assert len(rate._tokens) == 10_000


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *[
            (h, True)
            for h in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7", "a.localhost.")
        ],
        *[("captions.example:80", True), ("", True)],
        *[(h, False) for h in ("evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "evil", "[x]")],
    ],
)
def test_a_server_without_keys_is_called_by_a_local_name(host: str, local: bool) -> None:
    assert is_local_host(host, ["Captions.example"]) == local


def test_a_page_cannot_rebind_its_name_to_a_server_without_keys() -> None:
    with attacked(hosts=("captions.example",)) as server:
        assert server.ask("/v1/caption", b"{}", host="evil.example")[0] == 421
        assert server.ask("/v1/models", method="GET", host="evil.example:8000")[0] == 421
        assert server.ask("/v1/models", method="GET", host="captions.example")[0] == 200
        assert server.ask("/v1/models", method="GET", host="127.0.0.1")[0] == 200
        assert server.ask("/health/live", method="GET", host="evil.example")[0] == 200
    with attacked(KEYS) as server:
        assert server.ask("/v1/models", method="GET", host="captions.example")[0] == 401


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        (("127.0.0.1",), "127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (("127.0.0.1",), "127.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        (("10.0.0.0/8",), "10.1.2.3", "203.0.113.7:4711, 10.9.9.9", "203.0.113.7"),
        (("10.0.0.0/8",), "10.1.2.3", "[2001:db8::7]:4711", "2001:db8::7"),
        (("127.0.0.1",), "203.0.113.9", "1.2.3.4", "203.0.113.9"),
        (("127.0.0.1",), "127.0.0.1", "1.2.3.4, <script>", "127.0.0.1"),
        (("*",), "203.0.113.9", "1.2.3.4, 5.6.7.8", "1.2.3.4"),
        ((), "127.0.0.1", "1.2.3.4", "127.0.0.1"),
    ],
)
def test_a_client_is_whom_a_trusted_proxy_names(
    trusted: tuple[str, ...], peer: str, forwarded: str, client: str
) -> None:
    from starlette.datastructures import Headers

    headers = Headers({"x-forwarded-for": forwarded})
    assert TrustedProxies(trusted).client_of({"type": "http", "client": (peer, 1)}, headers) == client


def test_addresses_of_proxies_are_checked_and_ipv6_counts_by_64() -> None:
    with pytest.raises(UsageError):
        TrustedProxies(("proxy.example",))
    assert client_network("2001:db8::7") == client_network("2001:db8::8") != client_network("2001:db8:0:1::8")


def test_a_flood_of_lines_is_counted() -> None:
    now = [0.0]
    limit = LogRateLimit(60, lambda: now[0])

    def lines(count: int, **fields: object) -> list[logging.LogRecord]:
        records = [logging.LogRecord("captune.server", logging.INFO, "", 0, "request", (), None) for _ in range(count)]
        for record in records:
            record.fields = fields
        return [record for record in records if limit.filter(record)]

    assert len(lines(1000, status=200)) == 1000
    assert len(lines(1000, status=401)) == 15
    assert len(lines(1000, status=429)) == 15
    now[0] = 5.0
    assert lines(1, status=401)[0].fields == {"status": 401, "left_out": 985}
    other = [logging.LogRecord("asyncio", logging.ERROR, "", 0, "socket.accept() out", (), None) for _ in range(99)]
    assert sum(map(limit.filter, other)) == 15
