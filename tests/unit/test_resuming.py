"""A run goes on with the model and the data that it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.app.resuming import check_same_start
from captune.core.errors import UsageError
from captune.core.runs import Run


def test_another_model_or_other_data_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_manifest({"model": "new:blip-tiny", "data": "/data", "data_digest": "a"})
    check_same_start(run, "new:blip-tiny", "a")
    with pytest.raises(UsageError, match="began with new:blip-tiny, not new:git-tiny") as caught:
        check_same_start(run, "new:git-tiny", "a")
    assert "Leave --model out" in caught.value.hint
    with pytest.raises(UsageError, match="other data"):
        check_same_start(run, "new:blip-tiny", "b")
    run.write_manifest({"model": "./start", "data_digest": "a"})
    check_same_start(run, "start/", "a")
