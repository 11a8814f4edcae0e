"""A server that nobody here wrote: `transformers serve` with a tiny LLaVA of random weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import captune
from captune.core.errors import CaptuneError
from noise import noise
from tiny_vlms import lively

pytestmark = pytest.mark.slow
ASKED = {"sight_check": False, "max_new_tokens": 6, "environment": {}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models") / "llava"
    lively("llava").save(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    around = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [*command, "--device", "cpu"], env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, server.stdout.read() if server.stdout else ""
                assert time.monotonic() < end, "it does not start"
                time.sleep(0.2)
        yield f"openai:{folder}@http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_it_says_what_the_model_says(model: str, tmp_path: Path) -> None:
    """JPEG changes an image a little: the model itself reads the same JPEG."""
    from captune.decoding.encoding import DESCRIBE
    from captune.inference.endpoint.messages import to_jpeg

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        noise((60 + 20 * number, 80), 50, number).convert("RGB").save(photos / f"{number}.png")
    report = captune.caption_job(photos, tmp_path / "out", model=model, **ASKED)
    rows = [json.loads(line) for line in next((tmp_path / "out").glob("*.jsonl")).open()]
    assert (report.done, report.failed) == (5, 0)
    assert [row["confidence"] for row in rows] == [None] * 5
    own = captune.Captioner.load(model.partition("@")[0].removeprefix("openai:"), device="cpu", precision="fp32")
    reader = captune.Captioner.load(model)
    for row in rows:
        (tmp_path / "sent.jpg").write_bytes(to_jpeg(reader.read(row["image"])))
        assert own(tmp_path / "sent.jpg", prompt=DESCRIBE, max_new_tokens=6).text == row["caption"]


def test_a_model_of_random_weights_sees_nothing(model: str) -> None:
    with pytest.raises(CaptuneError, match="does not see: it named 0 of 4 colours"):
        captune.Captioner.load(model)(Image.new("RGB", (50, 50)))
