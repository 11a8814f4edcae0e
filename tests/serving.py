"""A server in a thread, with tiny models on disk whose captions depend on the picture."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from PIL import Image

from captune.core.config import resolve
from captune.models import FAMILIES
from captune.models.blip_matcher import BlipMatcher
from captune.server.connections import Connection
from captune.server.server import create_app
from captune.server.service import Service
from random_weights import LIVELY


def save_tiny(folder: Path, family: str = "blip", seed: int = 1) -> str:
    """A tiny model that says different things of different images; `matcher` is BLIP's matching."""
    torch.manual_seed(seed)
    if family == "matcher":
        BlipMatcher.tiny().save(folder)
        return str(folder)
    backbone = FAMILIES[family].tiny()
    with torch.no_grad():
        LIVELY[family](backbone.model)
    backbone.save(folder)
    return str(folder)


def picture(seed: int, size: int = 40) -> bytes:
    """A PNG of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{encoded(data)}"


class Serving:
    """A server that runs: `url`, `app` and `service`."""

    def __init__(self, app: Any, port: int) -> None:
        self.app, self.service, self.port = app, app.state.service, port
        self.url = f"http://127.0.0.1:{port}"

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **settings)

    def until(self, true: Any, seconds: float = 10) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)


@contextmanager
def running(
    models: Mapping[str, str],
    keys: Mapping[str, str] | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Serving]:
    """A server with these models and options at a port of its own; `parts` replace some of its `Service`."""
    config = resolve("serve", flags={"device": "cpu", "precision": "fp32", **options})
    app = create_app(models, config, keys, service=Service(models, config, **(parts or {})))
    settings = uvicorn.Config(app, port=0, http=Connection, log_config=None, ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"  # noqa: PT018
        time.sleep(0.01)
    try:
        yield Serving(app, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
