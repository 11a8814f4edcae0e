"""A run goes to the Hub: a folder with a filled card, sent to a stand-in that speaks its protocol."""

from __future__ import annotations

import base64
import json
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

import captune
import copies
from captune.core.errors import CaptuneError, UsageError


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("push") / "run"
    captune.train(
        tiny_data, "new:blip-tiny", out, max_steps=4, eval_steps=2, batch_size=6, trackers=("none",),
        validation_images=0, train_prompt="there is", environment={}, max_new_tokens=6,
    )  # fmt: skip
    captune.evaluate(str(out), tiny_data, split="test", metrics=("bleu", "cider"), resamples=50, draw_report=False)
    return out


class Hub(BaseHTTPRequestHandler):
    """Takes a repository, asks for every file in the commit, keeps what comes."""

    kept: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self._chunks()
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.kept["repo"] = json.loads(body)
            here = f"http://{self.headers['Host']}/mine/captioner"
            self._answer(200, {"url": here, "id": "mine/captioner"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self._answer(200, {"files": files})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            self.kept["message"] = lines[0]["value"]["summary"]
            self.kept["files"] = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]
            }
            self._answer(
                200, {"commitUrl": f"http://{self.headers['Host']}/mine/captioner/commit/1", "commitOid": "1" * 40}
            )
        else:
            self._answer(404, {"error": self.path})

    def do_GET(self) -> None:
        self._answer(200, {"id": "mine/captioner", "siblings": [], "sha": "0" * 40})

    def _chunks(self) -> bytes:
        found = b""
        while (size := int(self.rfile.readline(), 16)) > 0:
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.kept = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def cli(warm: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    return partial(copies.run, warm, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1")


def test_a_full_disk_leaves_no_half_of_a_folder(run: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(CaptuneError, match="annot write"):
            captune.push(str(run), "me/captioner", dry_run=True, out=tmp_path / "hub", environment={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    pushed = captune.push(str(run), "me/captioner", dry_run=True, out=tmp_path / "hub", environment={})
    assert "model.safetensors" in pushed.files


def test_a_run_is_pushed_with_its_card(cli: Any, run: Path, hub: str) -> None:
    done = cli(
        "push", str(run), "--json", "--license", "mit", "--data-license", "cc0-1.0",
        HF_ENDPOINT=hub, HF_TOKEN="hf_right", HF_REPO_NAME="mine/captioner", HF_PRIVATE="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["repo"] == "mine/captioner"
    asked = Hub.kept["repo"]
    assert asked.get("private") is True or asked.get("visibility") == "private"
    files = Hub.kept["files"]
    assert {"README.md", "config.json", "tokenizer.json", "generation_config.json", "captune.json"} <= set(files)
    assert not {"optimizer.pt", "complete.json", "trainer_state.json"} & set(files)


def test_a_training_publishes_what_is_best(cli: Any, tiny_data: Path, hub: str, tmp_path: Path) -> None:
    words = [
        "train", "--data", str(tiny_data), "--model", "new:blip-tiny", "--out", str(tmp_path / "run"),
        "--max-steps", "4", "--eval-steps", "2", "--batch-size", "6", "--trackers", "none", "--validation-images", "0",
        "--push-to", "mine/captioner",
    ]  # fmt: skip
    done = cli(*words, HF_ENDPOINT=hub, HF_TOKEN="hf_right")
    assert done.returncode == 0, done.stderr
    assert Hub.kept["message"] == f"captune: {(tmp_path / 'run' / 'best-metric').resolve().name}"
    assert "is published as mine/captioner" in done.stderr
    # A Hub that refuses does not end a training.
    words[words.index(str(tmp_path / "run"))] = str(tmp_path / "other")
    done = cli(*words, HF_ENDPOINT=hub, HF_TOKEN="hf_wrong")
    assert done.returncode == 0, done.stderr
    assert "was not published" in done.stderr


def test_a_wrong_token_says_how_to_log_in(cli: Any, run: Path, hub: str) -> None:
    done = cli("push", str(run), "mine/captioner", HF_ENDPOINT=hub, HF_TOKEN="hf_wrong")
    assert done.returncode == 1
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hf_wrong" not in done.stderr


def test_without_a_network_nothing_is_lost(cli: Any, run: Path) -> None:
    done = cli("push", str(run), "mine/captioner", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_right")
    assert done.returncode == 1
    assert "could not be uploaded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("which", ["", "@last", "@best-loss"])
def test_a_dry_run_leaves_a_folder_that_plain_transformers_loads(run: Path, which: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    done = captune.push(f"{run}{which}", "mine/captioner", dry_run=True, out=tmp_path / "hub", environment={})
    assert done.address == ""
    AutoModelForImageTextToText.from_pretrained(done.folder)
    AutoProcessor.from_pretrained(done.folder)
    text = (tmp_path / "hub" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["pipeline_tag"] == "image-to-text"
    assert head["library_name"] == "transformers"
    assert "there is" in text
    assert '"batch_size": 6' in text
    measured = [
        metric["type"]
        for metric in head.get("model-index", [{"results": [{"metrics": []}]}])[0]["results"][0]["metrics"]
    ]
    best = (run / "best-metric").resolve().name
    same = {"": best, "@last": "checkpoint-4", "@best-loss": (run / "best-loss").resolve().name}[which] == best
    assert ("cider" in measured) == same, "scores are those of the checkpoint that goes out"
    if same:
        assert "95 % interval" in text
        assert "## Samples" in text
    # Its own use, as the card shows it.
    captioner = captune.Captioner.load(done.folder)
    assert captioner.backbone.prompt == "there is"


def test_the_card_s_code_runs(warm: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    done = captune.push(str(run), "mine/captioner", dry_run=True, out=tmp_path / "hub", environment={})
    text = (tmp_path / "hub" / "README.md").read_text()
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for block in text.split("```python\n")[1:]:
        (tmp_path / "code.py").write_text(block.split("```")[0].replace("mine/captioner", done.folder))
        said = copies.run(warm, script=tmp_path / "code.py")
        assert said.returncode == 0, said.stderr


def test_what_cannot_be_pushed_is_said(run: Path, tmp_path: Path) -> None:
    for repo in ("", "captioner", "a/b/c", "mine/cap tioner"):
        with pytest.raises(UsageError, match=r"not a repository|No repository"):
            captune.push(str(run), repo, environment={})
    with pytest.raises(CaptuneError, match="is not here"):
        captune.push("mine/other", "mine/captioner", environment={})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(CaptuneError, match="not empty"):
        captune.push(str(run), "mine/captioner", dry_run=True, out=tmp_path / "full", environment={})
