"""What the server and the page need to start: models by name, and the address to listen at."""

import re
import socket
from collections.abc import Sequence
from pathlib import Path, PurePath

from captune.core.errors import CaptuneError, UsageError

_NAMED = re.compile(r"([^=/]+)=(.+)")


def parse_models(models: Sequence[str], *, short: bool = False) -> dict[str, str]:
    """`NAME=MODEL` or MODEL (named after its folder, or its id on the Hub) as names and models.

    With `short` a Hub id is named by its last part as well. Raises `UsageError` where two have the same name.
    """
    if not models:
        raise UsageError("There is no model.", "For example: --model runs/x")
    sources: dict[str, str] = {}
    for argument in models:
        if argument.startswith("=") or argument.endswith("="):
            raise UsageError(f"--model {argument}: a name or a model is missing.", "For example: --model mine=runs/x")
        match = None if Path(argument).exists() else _NAMED.fullmatch(argument)
        local = argument.startswith((".", "/", "~")) or Path(argument.rpartition("@")[0] or argument).exists()
        if match:
            name, source = match.groups()
        elif local:
            name, source = Path(argument).resolve().name, argument
        else:
            name, source = PurePath(argument).name if short else argument, argument
        if name in sources:
            raise UsageError(
                f"Two models are called {name}.", f"Name them: --model base={sources[name]} --model mine=…"
            )
        sources[name] = source
    return sources


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; raises `CaptuneError` where it is in use or not of this machine."""
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
        raise CaptuneError(f"{host} is not an address of this machine.", "Use --host 127.0.0.1 or 0.0.0.0.") from None
    except OSError as error:
        raise CaptuneError(
            f"Cannot listen at {host}:{port}: {error.strerror}.",
            "Stop what runs there, or take another port: --port 8001 (0: any that is free).",
        ) from None
