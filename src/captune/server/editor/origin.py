"""Only the editor's own page may use the editor: no page of another site in the same browser."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captune.server.problems import Problem

COOKIE = "captune-key"
_POLICY = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class SameOrigin:
    """ASGI around everything else: refuses requests that pages of other sites send (403).

    A key that the page has in its cookie counts as one that was sent in `Authorization`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _POLICY.items():
                    answer.setdefault(name, value)
            await send(message)

        if not _is_own(headers, scope["method"]):
            problem = Problem(403, "Another site's page sent this.", "Use the editor's own page, or a program.")
            await problem.response()(scope, receive, send_with_policy)
            return
        key = _cookie(headers)
        if key and "authorization" not in headers:
            scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + key.encode("latin-1", "replace"))]
        await self.app(scope, receive, send_with_policy)


def _is_own(headers: Headers, method: str) -> bool:
    """Whether a program sent a request, or a page of this server, or a person who opened the page itself."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
        return False
    site = headers.get("sec-fetch-site", "none")
    opened = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return site in ("none", "same-origin") or opened


def _cookie(headers: Headers) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
