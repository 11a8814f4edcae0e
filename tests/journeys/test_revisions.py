"""A revision of a model on the Hub, from a cache that holds two: `org/name@revision`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import copies
from captune.core.model_names import hub_name, local_folder
from serving import picture, save_tiny

SCRIPT = """
import json, sys
import captune
from captune.models.loading.identity import revision_of
from captune.models.loading.loader import family_of
said = {}
for name in sys.argv[2:]:
    try:
        captioner = captune.Captioner.load(name, num_beams=1, max_new_tokens=6, precision="fp32", device="cpu")
        said[name] = [captioner(sys.argv[1]).tokens, family_of(name), revision_of(name)]
    except captune.CaptuneError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def test_a_revision_is_the_model_of_that_revision(warm: str, tmp_path: Path) -> None:
    kept = tmp_path / "hub" / "models--org--captioner"
    for number, name in enumerate(("main", "v1.0")):
        save_tiny(kept / "snapshots" / f"commit-{name}", seed=number)
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / name).write_text(f"commit-{name}")
    (tmp_path / "a.png").write_bytes(picture(1))
    names = ["org/captioner", "org/captioner@main", "org/captioner@v1.0", "org/captioner@v2.0"]
    folders = [str(kept / "snapshots" / f"commit-{name}") for name in ("main", "v1.0")]
    script = tmp_path / "revisions.py"
    script.write_text(SCRIPT)
    done = copies.run(
        warm, str(tmp_path / "a.png"), *names, *folders, script=script, HF_HUB_CACHE=str(tmp_path / "hub")
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    main, older = (said[folder][0] for folder in folders)
    assert main != older
    assert said["org/captioner"] == said["org/captioner@main"] == [main, "blip", "commit-main"]
    assert said["org/captioner@v1.0"] == [older, "blip", "commit-v1.0"]
    assert "hf download org/captioner --revision v2.0" in said["org/captioner@v2.0"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("org/name", ("org/name", None)),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("org/name@refs/pr/3", ("org/name", "refs/pr/3")),
        ("gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e", ("gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e")),
        ("org/name@", ("org/name@", None)),
    ],
)
def test_a_hub_id_may_name_a_revision(name: str, told: tuple[str, str | None]) -> None:
    assert hub_name(name) == told
    if told[1] is not None:
        assert local_folder(name) is None
