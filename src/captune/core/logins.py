"""Which services a user has logged in to; keys are looked for, never read out."""

from __future__ import annotations

import netrc
import os

from captune.core.errors import first_line

WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


def logged_in_to_wandb() -> bool:
    """Whether Weights & Biases has a key: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL", "").partition("://")[2].rstrip("/")
    try:
        known = netrc.netrc()
    except (OSError, netrc.NetrcParseError):
        return False
    return any(host and known.authenticators(host) is not None for host in (*WANDB_HOSTS, own))


def wandb_refusal() -> str | None:
    """Why Weights & Biases does not take the key that is there; None where it does."""
    import wandb

    try:
        return None if wandb.login(verify=True, timeout=10) else "the key was not taken"
    except (wandb.errors.Error, ValueError, OSError) as error:
        return first_line(error)
