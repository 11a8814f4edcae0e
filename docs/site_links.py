"""For the site: links out of docs/ (`../notebooks/…`) lead to the repository, where they lead on GitHub."""

from __future__ import annotations

import re
from typing import Any

_OUT = re.compile(r"\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    return _OUT.sub(rf"]({config.repo_url}/blob/main/\1)", markdown)
