"""The address that a server or a page listens at."""

from __future__ import annotations

import socket

from captune.core.errors import CaptuneError


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
