"""Models behind an OpenAI-compatible server, by their names: `openai:MODEL@http://host:8000/v1`."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from captune.core.errors import UsageError

FAMILY = "openai"
PREFIX = f"{FAMILY}:"
HOSTED = "https://api.openai.com/v1"
# What is asked for where nobody says otherwise.
GENERATION = {"num_beams": 1, "max_new_tokens": 256}
_EXAMPLE = f"For example: --model {PREFIX}qwen2.5vl:7b@http://localhost:11434/v1"


@dataclass(frozen=True)
class Endpoint:
    """A model as its server calls it, and the address of the server's API, without a slash at the end."""

    model: str
    url: str


def is_endpoint(name: str) -> bool:
    """Whether `name` names a model behind a server."""
    return name.startswith(PREFIX)


def with_address(name: str, base_url: str | None) -> str:
    """The name of a model behind a server with its server's address, `base_url` where it has none; others as they are.

    Raises `UsageError` as `parse_endpoint` does.
    """
    if not is_endpoint(name):
        return name
    endpoint = parse_endpoint(name, base_url)
    return f"{PREFIX}{endpoint.model}@{endpoint.url}"


def parse_endpoint(name: str, base_url: str | None = None) -> Endpoint:
    """The model and the server of a name; raises `UsageError` where it names none.

    A name without an address has that of `base_url`, else OpenAI's own; an address without a path gets `/v1`, where
    such servers have their API.
    """
    named = name.removeprefix(PREFIX)
    at = max(named.rfind("@http://"), named.rfind("@https://"))
    model, url = (named, base_url or HOSTED) if at < 0 else (named[:at], named[at + 1 :])
    parts = urllib.parse.urlsplit(url)
    if not model:
        raise UsageError(f"{name} names no model.", _EXAMPLE)
    if at < 0 and ("://" in named or "@" in named):
        raise UsageError(f"{name}: the address of the server begins with http:// or https://.", _EXAMPLE)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{url} is not the address of an API.", _EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "A key in an address would stand in logs and manifests.",
            "Leave it out, and set OPENAI_API_KEY, or --api-key-file FILE.",
        )
    return Endpoint(model, url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1")
