"""For the site: links out of docs/ (`../notebooks/…`) lead to the repository, and no link is called `x.md`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_OUT = re.compile(r"\]\(\.\./([^)\s]+)\)")
_FILE_NAME = re.compile(r"\[([\w-]+)\.md\]\(")


def on_config(config: Any) -> Any:
    """Leave out pages that are not there; one that is there and is not in `nav` fails the build."""
    pages = Path(config.docs_dir)
    for group in config.nav:
        for name, entries in group.items():
            group[name] = [entry for entry in entries if all((pages / page).is_file() for page in entry.values())]
    return config


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    inside = _OUT.sub(rf"]({config.extra['repository']}/blob/main/\1)", markdown)
    return _FILE_NAME.sub(r"[\1](", inside)


def on_post_page(output: str, **_: Any) -> str:
    # The theme names its search dialog for nobody who cannot see it.
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
