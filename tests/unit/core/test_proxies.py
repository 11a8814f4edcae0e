"""The proxy that the environment names: addresses go through it, with its own name and password."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from attacks import RawServer, raw_server, said
from captune.core import http
from captune.core.errors import CaptuneError

IMAGE = said(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    with raw_server() as running:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, running.url.replace("//", "//me:p%40ss@"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield running


def fetched(url: str, *, public: bool = False) -> bytes:
    return http.get(url, max_bytes=100, seconds=2, public=public)


def test_http_goes_through_it_with_its_password(proxy: RawServer) -> None:
    proxy.answers["http://photos.example/a.jpg"] = IMAGE
    assert fetched("http://photos.example/a.jpg") == b"image"
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:p@ss').decode()}" in proxy.requests[0]


def test_https_is_joined_through_it_and_its_refusal_is_named(proxy: RawServer) -> None:
    proxy.answers["photos.example:443"] = said(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(http.WebError, match="the proxy answered 407"):
        fetched("https://photos.example/a.jpg")
    head = proxy.requests[0]
    assert head.startswith("CONNECT photos.example:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic" in head


def test_hosts_of_no_proxy_and_public_hosts_do_without(proxy: RawServer) -> None:
    with raw_server() as own:
        own.answers["/a.jpg"] = IMAGE
        assert fetched(f"{own.url}/a.jpg") == b"image"
    with pytest.raises(http.WebError, match="not a public one"):
        fetched("http://localhost/a.jpg", public=True)
    assert proxy.requests == []


def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(CaptuneError, match="socks5"):
        fetched("http://photos.example/a.jpg")
