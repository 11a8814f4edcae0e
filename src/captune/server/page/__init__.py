"""The web page of `captune app`: its settings, and its start in Streamlit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from captune.core.endpoints import is_endpoint, parse_endpoint
from captune.core.errors import missing_extra
from captune.core.options import AppOptions
from captune.server.startup import listen

VARIABLE = "CAPTUNE_APP"


@dataclass(frozen=True)
class PageSettings:
    """`models` are names for the page and what they load; `options` are those that they are loaded with.

    `languages` are those to choose from, the first one chosen at the start; "" is the models' own. `translator`
    names a model for them.
    """

    models: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    languages: list[str] = field(default_factory=lambda: [""])
    translator: str | None = None

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    @property
    def servers(self) -> list[str]:
        """Addresses of the servers that images are sent to, each once."""
        endpoints = [
            parse_endpoint(name, self.options.get("base_url")) for name in self.models.values() if is_endpoint(name)
        ]
        return list(dict.fromkeys(endpoint.url for endpoint in endpoints))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PageSettings:
        return cls(**json.loads(environment[VARIABLE]))


PAGE = Path(__file__).with_name("page.py")


def run_page(settings: PageSettings, options: AppOptions) -> None:
    """Serve the page until a signal ends it; raises `CaptuneError` where the port is taken."""
    try:
        from streamlit.web import bootstrap
    except ImportError:
        raise missing_extra("streamlit", "app", "The web app") from None
    listen(options.host, options.port).close()  # a plain message where the port is taken
    os.environ.update(settings.to_environment())
    flags = {
        "server_address": options.host,
        "server_port": options.port,
        "server_headless": not options.open_browser,
        "server_maxUploadSize": options.max_upload_mb,
        "server_fileWatcherType": "none",
        "browser_gatherUsageStats": False,
        "client_toolbarMode": "minimal",
        "client_showErrorDetails": "none",
        "theme_headingFontSizes": ["2rem", "1.5rem", "1.125rem"],
        "theme_light_primaryColor": "#0a4bb5",
        "theme_dark_primaryColor": "#8ab4f8",
    }
    bootstrap.load_config_options(flags)
    bootstrap.run(str(PAGE), False, [], flags)
