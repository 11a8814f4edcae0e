"""Starting the page of `captune app` by Streamlit."""

from __future__ import annotations

import os
from pathlib import Path

from captune.core.errors import missing_extra
from captune.core.options import AppOptions
from captune.web.listening import listen
from captune.web.settings import PageSettings

PAGE = Path(__file__).with_name("page.py")


def run_page(settings: PageSettings, options: AppOptions) -> None:
    """Serve the page until a signal ends it; raises `CaptuneError` where the port is taken."""
    try:
        from streamlit.web import bootstrap
    except ImportError:
        raise missing_extra("streamlit", "app", "The web app") from None
    listen(options.host, options.port).close()  # to say it in words where the port is taken
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
