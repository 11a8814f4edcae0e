"""Why a training ended, as its run folder records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Reason = Literal["all-epochs", "max-steps", "early-stopping", "scst-guard", "signal", "pruned", "watch", "error"]
IN_WORDS: dict[str, str] = {
    "all-epochs": "all epochs done",
    "max-steps": "all steps done",
    "early-stopping": "early stopping",
    "scst-guard": "scst guard",
    "signal": "signal",
    "pruned": "pruned",
    "watch": "ended from outside",
    "error": "error",
}


@dataclass(frozen=True)
class Ending:
    """A reason, in a sentence, with when it came and the numbers behind it."""

    reason: Reason
    text: str
    step: int
    epoch: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def ending_text(manifest: Mapping[str, Any]) -> str:
    """The recorded sentence, or what its absence means."""
    recorded = manifest.get("ended")
    if isinstance(recorded, Mapping) and recorded.get("text"):
        return str(recorded["text"])
    if manifest.get("finished"):
        return "finished; this run does not record why"
    return "not recorded: it is still running, or was killed"


def ending_reason(manifest: Mapping[str, Any]) -> str:
    """The reason in a few words; empty where none is recorded."""
    recorded = manifest.get("ended")
    reason = recorded.get("reason", "") if isinstance(recorded, Mapping) else ""
    return IN_WORDS.get(str(reason), str(reason))
