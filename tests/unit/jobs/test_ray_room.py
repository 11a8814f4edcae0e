"""Which workers a node has room for, what is told of a death, and Ray where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.jobs.ray_pool import Node, WorkerShare, _death_reason, _freest, connected, is_reachable


def node(cores: float, gpus: float = 0) -> Node:
    return Node("a", "one (127.0.0.1)", ("127.0.0.1", 1), cores, gpus, free_cores=cores, free_gpus=gpus)


@pytest.mark.parametrize(
    ("has", "gpus", "cores", "expected"),
    [
        (node(8), 0, None, WorkerShare(0, 8, 1)),
        (node(8), 0, 3, WorkerShare(0, 3, 2)),
        (node(8), 0, 9, WorkerShare(0, 9, 0)),
        (node(0), 0, None, WorkerShare(0, 0, 0)),
        (node(16, 4), 1, None, WorkerShare(1, 4, 4)),
        (node(16, 1), 0.1, None, WorkerShare(0.1, 1, 10)),
        (node(2, 4), 1, None, WorkerShare(1, 1, 2)),
        (node(16, 4), 1, 8, WorkerShare(1, 8, 2)),
        (node(16), 1, None, WorkerShare(1, 0, 0)),
    ],
)
def test_room(has: Node, gpus: float, cores: int | None, expected: WorkerShare) -> None:
    assert has.share(gpus, cores) == expected


def test_a_worker_begins_where_no_other_work_is() -> None:
    busy, idle = replace(node(4, 1), id="busy", free_gpus=0), replace(node(4, 1), id="idle")
    shares = dict.fromkeys([busy, idle], WorkerShare(1, 4, 2))
    assert _freest([busy, idle], shares, {"busy": 0, "idle": 1}) == idle
    assert (
        _freest(
            [busy, replace(busy, id="too")],
            dict.fromkeys([busy, replace(busy, id="too")], shares[busy]),
            {"busy": 1, "too": 0},
        ).id
        == "too"
    )


def test_a_node_where_nothing_listens_is_gone() -> None:
    assert not is_reachable(node(1))


def test_the_death_reason_is_one_line() -> None:
    said = "The actor died.\n\tpid: 5\nThe worker exits. Worker exit detail: Killed by the kernel. Some common causes"
    assert _death_reason(RuntimeError(said)) == "Killed by the kernel"
    assert _death_reason(RuntimeError("no answer for 3 s")) == "no answer for 3 s"
    assert _death_reason(RuntimeError()) == "RuntimeError"


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CaptuneError, match=r"pip install 'captune\[ray\]'"), connected(None):
        pass


def test_ray_client_is_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'captune[ray]'")
    with pytest.raises(UsageError, match="on a node of its cluster"), connected("ray://10.0.0.1:10001"):
        pass


def test_a_job_without_ray_imports_none() -> None:
    code = "import sys, captune.jobs.job, captune.jobs.ray_worker; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flags_of_ray_without_ray(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--ray-workers needs --engine ray"):
        captune.caption_job(tmp_path, tmp_path / "out", ray_workers=2)
