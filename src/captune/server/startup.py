"""What the server and the page need to start: models by name, and the address to listen at."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path, PurePath

from captune.core.errors import CaptuneError, UsageError

_NAMED = re.compile(r"([^=/]+)=(.+)")


def parse_models(models: Sequence[str], *, short: bool = False) -> dict[str, str]:
    """`NAME=MODEL` or MODEL (named after its folder, or its id on the Hub) as names and models.

    With `short` a Hub id is named by its last part as well. Raises `UsageError` where two have one name.
    """
    if not models:
        raise UsageError("No model was named.", "For example: --model runs/x")
    found: dict[str, str] = {}
    for given in models:
        if given.startswith("=") or given.endswith("="):
            raise UsageError(f"--model {given}: a name or a model is missing.", "For example: --model mine=runs/x")
        match = None if Path(given).exists() else _NAMED.fullmatch(given)
        local = given.startswith((".", "/", "~")) or Path(given.rpartition("@")[0] or given).exists()
        if match:
            name, source = match.groups()
        elif local:
            name, source = Path(given).resolve().name, given
        else:
            name, source = PurePath(given).name if short else given, given
        if name in found:
            raise UsageError(f"Two models are called {name}.", f"Name them: --model base={found[name]} --model mine=…")
        found[name] = source
    return found


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; raises `CaptuneError` where it is taken or none of this machine's."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        return listener
    except PermissionError:
        raise CaptuneError(f"Port {port} may not be used.", "Take one above 1023 with --port.") from None
    except socket.gaierror:
        raise CaptuneError(f"{host} is no address of this machine.", "Use --host 127.0.0.1 or 0.0.0.0.") from None
    except OSError as error:
        raise CaptuneError(
            f"Cannot listen at {host}:{port}: {error.strerror}.",
            "Stop what runs there, or take another port: --port 8001 (0: any that is free).",
        ) from None
