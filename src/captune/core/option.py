"""What an option is: a field with its help, in a group that refuses unknown keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def option(default: Any, help: str, *, env: str | None = None, **checks: Any) -> Any:
    """A field with its help and, where another tool's users expect one, an environment variable."""
    extra: Any = {"env": env} if env else None
    return Field(default, description=help, json_schema_extra=extra, **checks)


class Options(BaseModel):
    """A frozen group of options; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
