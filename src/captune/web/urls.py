"""Images by http(s) address, without a way to the machines behind the server.

The host is resolved once, every address it has must be a public one, and the connection goes to
that very address; each redirect is checked the same way. Bytes and time are bounded.
"""

from __future__ import annotations

from captune.core.http import NETWORK, Network, WebError, get
from captune.web.problems import Problem

_LONGEST = 2000


def fetch(url: str, *, most_bytes: int, seconds: float, network: Network = NETWORK) -> bytes:
    """The bytes at an address; blocks. Raises `Problem` (422) where it is not public or not fetched in time."""
    try:
        if any(ord(sign) <= 32 or ord(sign) == 127 for sign in url) or len(url) > _LONGEST:
            raise WebError("it is not an address")
        return get(url, most_bytes=most_bytes, seconds=seconds, public=True, network=network)
    except WebError as error:
        raise Problem(422, f"The picture's address cannot be used: {error}.", "Send the picture itself.") from None
