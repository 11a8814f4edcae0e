from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from captune.api import doctor as room
from captune.api.doctor import CHECKS, Check, Installed, SelfTestResult, doctor, failed, installed_version
from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.models.loading.devices import check_torchvision, torchvision_fault

BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist\\nand more")'


def found(name: str, installed: Installed = installed_version, **given: Any) -> dict[str, Check]:
    """The rows of one check by name."""
    return {check.name: check for check in CHECKS[name](installed, **given)}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Leave these rows as all that the doctor finds."""

    def leave(*checks: Check) -> None:
        monkeypatch.setattr(room, "CHECKS", {"all": lambda installed: iter(checks)})

    return leave


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Install a torchvision with this source."""

    def install(source: str) -> None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)

    yield install
    sys.modules.pop("torchvision", None)


def test_a_broken_torchvision_is_named_with_the_command_that_removes_it(torchvision: Any) -> None:
    torchvision(BROKEN)
    assert torchvision_fault() == "operator torchvision::nms does not exist"
    check = found("torchvision")["torchvision"]
    assert check.status == "fail"
    assert "pip uninstall torchvision" in check.next
    with pytest.raises(CaptuneError, match="operator torchvision::nms does not exist") as caught:
        check_torchvision()
    assert "pip uninstall torchvision" in caught.value.hint


def test_a_working_torchvision_is_left_alone(torchvision: Any) -> None:
    torchvision("")
    assert torchvision_fault() is None
    check_torchvision()
    assert found("torchvision")["torchvision"].status == "ok"


def test_every_required_package_is_looked_at() -> None:
    rows = found("packages")
    assert {"torch", "transformers", "tokenizers", "accelerate", "pillow", "numpy", "captune"} <= set(rows)
    assert all(check.status == "ok" for check in rows.values())
    assert rows["pillow"].detail.startswith(f"{version('pillow')} (at least ")


def test_an_old_and_a_missing_package_fail() -> None:
    versions = {"numpy": "1.26.4", "pillow": None}
    rows = found("packages", lambda name: versions.get(name, installed_version(name)))
    assert rows["numpy"].status == rows["pillow"].status == "fail"
    assert rows["numpy"].detail.startswith("1.26.4, captune needs ")
    assert rows["pillow"].next.startswith("pip install 'pillow>=")
    assert rows["torch"].status == "ok"


@pytest.mark.parametrize(("runner", "status"), [(True, "ok"), (False, "warn")])
def test_a_machine_without_torch_is_told_what_it_can_do(runner: bool, status: str) -> None:
    """Without torch nothing about devices, families or the Hub is asked; exports run where their runtime is."""
    absent = {"torch", "huggingface_hub", "openvino", *(() if runner else ("onnxruntime",))}

    def installed(name: str) -> str | None:
        return None if name in absent else "99.0"

    rows = found("packages", installed)
    assert rows["torch"].status == status
    assert rows["torch"].next.endswith("pip install 'captune[torch]'")
    assert rows["numpy"].status == "ok"
    for check in ("torchvision", "devices", "models", "hub", "hub login"):
        assert found(check, installed) == {}
    assert ("onnxruntime 99.0" in found("exports", installed)["exports"].detail) == runner


def test_an_optional_package_that_is_missing_is_no_fault() -> None:
    rows = found("extras", lambda name: None if name == "wandb" else "1.0")
    assert rows["[wandb]"].status == "ok"
    assert rows["[wandb]"].next == "pip install 'captune[wandb]'"
    assert rows["[hub]"].next == ""
    assert "[dev]" not in rows


def test_a_family_that_breaks_does_not_hide_the_others() -> None:
    def self_test(family: str, folder: Path) -> SelfTestResult:
        if family == "bad":
            raise RuntimeError("operator does not exist\nand more")
        return SelfTestResult(Caption("a dog", 0.5), "captune")

    rows = found("models", names=["bad", "good"], test=self_test)
    assert rows["model bad"].status == "fail"
    assert rows["model bad"].detail == "RuntimeError: operator does not exist"
    assert rows["model good"].status == "ok"
    assert "searched by captune" in rows["model good"].detail


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("gib", "status"), [(0.1, "fail"), (3, "warn"), (100, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, gib: float, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(gib * 1024**3)))
    (check,) = found("disk").values()
    assert check.status == status
    assert f"{gib:.1f} GiB free" in check.detail
    assert bool(check.next) == (status != "ok")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert found("hub")["hub access"].status == "warn"
    assert found("hub")["hub access"].next == "To download models: unset HF_HUB_OFFLINE"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert found("hub")["hub access"].status == "ok"


def test_a_token_is_found_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (check,) = found("hub login").values()
    assert check.detail == "a token is there"
    assert "hf_secret" not in repr(check)


def test_a_wanted_tracker_has_to_be_ready(only: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only()
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    assert doctor() == []
    (missing,) = doctor(tracker="wandb")
    assert (missing.status, missing.next) == ("fail", "pip install 'captune[wandb]'")
    assert failed(doctor(tracker="abacus"))


class _Refused(Exception):
    pass


@pytest.fixture
def wandb(only: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A stand-in for the package, with no key anywhere; `answer` is what its server says."""
    only()
    fake = SimpleNamespace(answer=True, asked=0, errors=SimpleNamespace(Error=_Refused))

    def login(**given: Any) -> bool:
        fake.asked += 1
        if fake.answer is None:
            raise _Refused("API key is invalid\nand more")
        return bool(fake.answer)

    fake.login = login
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    return fake


def test_a_wanted_tracker_without_a_key_fails(wandb: SimpleNamespace) -> None:
    assert doctor(tracker="wandb")[0].status == "fail"
    assert not failed(doctor())
    assert wandb.asked == 0


def test_a_key_from_netrc_is_tried_and_never_shown(wandb: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n", encoding="utf-8")
    (tmp_path / ".netrc").chmod(0o600)
    (check,) = doctor(tracker="wandb")
    assert (check.status, wandb.asked) == ("ok", 1)
    assert "secret" not in repr(check)


@pytest.mark.parametrize(("answer", "detail"), [(None, "API key is invalid"), (False, "the key was not taken")])
def test_a_refused_key_fails(
    wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, answer: bool | None, detail: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    wandb.answer = answer
    (check,) = doctor(tracker="wandb")
    assert (check.status, check.detail) == ("fail", detail)
    assert doctor()[0].detail == "a key is there"  # nobody asked for it: not tried


def test_offline_needs_no_key(wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert doctor(tracker="wandb")[0].status == "ok"
    assert wandb.asked == 0


def test_the_exit_code_and_json(only: Any, capsys: pytest.CaptureFixture[str]) -> None:
    only(Check("disk", "ok", "much"), Check("torch", "fail", "missing", "pip install torch"))
    assert run(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["checks"][1] == {"name": "torch", "status": "fail", "detail": "missing", "next": "pip install torch"}
    assert run(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "-> pip install torch" in captured.out
    assert captured.err == "Mend: torch.\n"
    only(Check("memory", "warn", "little", "Close other programs."))
    assert run(["doctor", "--quiet"]) == 0
    assert "little" in capsys.readouterr().out


def test_every_check_says_what_it_looks_at() -> None:
    assert all(check.__doc__ for check in CHECKS.values())
