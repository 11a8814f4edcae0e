"""A folder for the Hugging Face Hub, and its upload."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, UsageError, first_line
from captune.core.files import disk_error, write_text
from captune.exporters.card import CardFacts, card

# What belongs to a training, not to a model.
LEFT_BEHIND = frozenset(
    (
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "training_args.bin",
        "complete.json",
        "README.md",
    )
)
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def check_repo(repo: str) -> None:
    """Raise `UsageError` for what cannot be the name of a repository."""
    if not repo:
        raise UsageError("No repository of the Hub was named.", "captune push MODEL user/name, or set HF_REPO_NAME.")
    if not _REPO.fullmatch(repo):
        raise UsageError(f"'{repo}' is not a repository of the Hub.", "Give it as user/name or organisation/name.")


def check_login(token: str | None = None) -> None:
    """Raise `CaptuneError` where nobody is logged in to the Hub, or the Hub does not answer or take the login."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    token = token or os.environ.get("HF_TOKEN") or os.environ.get("HUGGINGFACE_TOKEN") or get_token()
    if not token:
        raise CaptuneError("There is no login for the Hugging Face Hub.", _LOGIN)
    broken: Any = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    try:
        HfApi(token=token).whoami()
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise CaptuneError(f"The Hugging Face Hub refused the login ({status}): {first_line(error)}", _LOGIN) from None
    except (OSError, ValueError, broken) as error:
        raise CaptuneError(
            f"The Hugging Face Hub cannot be reached: {first_line(error)}",
            "Check the network, or push later: captune push.",
        ) from None


def write_folder(model: Path, folder: Path, facts: CardFacts) -> list[str]:
    """Copy a model without its training's state, write its card beside it; returns the names of all files.

    Raises `CaptuneError` where a file cannot be copied.
    """
    for file in sorted(model.rglob("*")):
        target = folder / file.relative_to(model)
        if file.is_file() and file.name not in LEFT_BEHIND and not file.name.startswith("rng_state"):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            except OSError as error:
                raise disk_error(error, target) from error
    write_text(folder / "README.md", card(facts))
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def upload(folder: Path, repo: str, *, private: bool, token: str | None, message: str) -> str:
    """Create the repository where it is not there, upload the folder as one commit; returns its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    # The Hub's client speaks through httpx or its successor; both raise this for a broken line.
    broken: Any = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=message)
    except LocalTokenNotFoundError:
        raise CaptuneError("There is no login for the Hugging Face Hub.", _LOGIN) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        hint = _LOGIN if status in (401, 403) else "Nothing here was changed; try again, or look at --dry-run."
        raise CaptuneError(f"The Hub refused {repo}: {first_line(error)}", hint) from None
    except (OSError, ValueError, broken) as error:
        raise CaptuneError(
            f"{repo} could not be uploaded: {first_line(error)}",
            "Check the network; the folder of --dry-run can be pushed later.",
        ) from None
    return str(address)


_LOGIN = "Log in with a token that may write: hf auth login, or set HF_TOKEN (or HUGGINGFACE_TOKEN)."
