"""Starting the page of `captune app` by Streamlit."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from captune.core.errors import CaptuneError, missing_extra
from captune.core.options import AppOptions
from captune.web.settings import PageSettings

PAGE = Path(__file__).with_name("page.py")


def run_page(settings: PageSettings, options: AppOptions) -> None:
    """Serve the page until a signal ends it; raises `CaptuneError` where the port is taken."""
    try:
        from streamlit.web import bootstrap
    except ImportError:
        raise missing_extra("streamlit", "app", "The web app") from None
    _check_port(options.host, options.port)
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
        "theme_light_codeFont": "sans-serif",
        "theme_light_primaryColor": "#0b57d0",
        "theme_dark_codeFont": "sans-serif",
        "theme_dark_primaryColor": "#8ab4f8",
    }
    bootstrap.load_config_options(flags)
    bootstrap.run(str(PAGE), False, [], flags)


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CaptuneError(
                f"The app cannot listen on {host}:{port}: {error.strerror}.", "Choose another --port, or --host."
            ) from None
