"""What the app was started with, handed to the page that Streamlit runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

VARIABLE = "CAPTUNE_APP"


@dataclass(frozen=True)
class PageSettings:
    """`models` are names for the page and what they load; `run_on` are options of where they run.

    `languages` are those to choose from, the first one chosen at the start; "" is the models' own. `translator`
    names a model for them.
    """

    models: dict[str, str]
    run_on: dict[str, Any] = field(default_factory=dict)
    languages: list[str] = field(default_factory=lambda: [""])
    translator: str | None = None

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PageSettings:
        return cls(**json.loads(environment[VARIABLE]))
