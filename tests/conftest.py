"""Fixtures that every room's tests share."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from torch_import import on_torch_import

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("journeys", "conformance", "real", "laws", "unit")  # with the longest tests first
# METEOR's index is built once for all tests and all runs of them, and not in the user's own cache.
os.environ.setdefault("CAPTUNE_CACHE", str(REPOSITORY / ".pytest_cache" / "captune"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-torch", action="store_true", help="skip every test as soon as it imports torch")


def pytest_configure(config: pytest.Config) -> None:
    """Only the tests that need torch load it; with `--no-torch` they are skipped."""
    on_torch_import(skip=config.getoption("--no-torch"))
    os.fsync = lambda file: None  # nothing of a test has to outlive a power cut
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a shell that runs this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms with long tests come first, Ray's before all: at the end no worker waits for another's long test."""
    items.sort(
        key=lambda item: (
            ROOMS.index(item.path.relative_to(REPOSITORY / "tests").parts[0]),
            item.path.stem != "test_ray",
        )
    )


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through it in every test."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Each test, its module's fixtures too, draws the same numbers whatever ran before it."""
    import numpy as np

    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """All tests compute with the threads that OMP_NUM_THREADS says: with more, many workers take six times as long."""
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads and "torch" in sys.modules and sys.modules["torch"].get_num_threads() != int(threads):
        left = sys.modules["torch"].get_num_threads()
        sys.modules["torch"].set_num_threads(int(threads))
        raise AssertionError(f"{item.nodeid} leaves {left} threads to torch, of {threads}")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos, or a skip that says where it is looked for."""
    folder = Path(os.environ.get("CAPTUNE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "flickr8k").is_dir():
        pytest.skip(f"real photos not found in {folder}; set CAPTUNE_TEST_DATA to the folder that holds flickr8k/")
    return folder


@pytest.fixture(scope="session")
def hub() -> Path:
    """The folder of published models' configuration and tokenizer files, or a skip that says where it is looked for."""
    folder = Path(os.environ.get("CAPTUNE_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "hub"
    if not folder.is_dir():
        pytest.skip(
            f"published models' files not found in {folder}; set CAPTUNE_TEST_DATA to the folder that holds hub/"
        )
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of the tests share; what is made there is made under a lock."""
    ours = tmp_path_factory.getbasetemp()
    return ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours


@pytest.fixture
def no_children() -> Callable[[], bool]:
    """Whether all processes end soon that a test began; of others, such as `warm`, this worker may be the parent."""
    import psutil

    here = psutil.Process()
    before = set(here.children())

    def check() -> bool:
        deadline = time.monotonic() + 10
        while left := set(here.children()) - before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return not left

    return check


@pytest.fixture(scope="session")
def pages_hub(shared_folder: Path) -> dict[str, str]:
    """The environment of a cache of the Hub that holds tiny models by the names that pages use."""
    from filelock import FileLock

    from doc_fixtures import fill_hub

    home, part = shared_folder / "pages-hub", shared_folder / "pages-hub.part"
    with FileLock(f"{home}.lock"):
        if not home.is_dir():
            fill_hub(part / "hub")
            part.rename(home)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def warm(shared_folder: Path, pages_hub: dict[str, str]) -> str:
    """The address of a process that has imported torch, for `typed` and `copies`; all workers share it."""
    from filelock import FileLock

    from typed import listens, start_warm_process

    if sys.platform != "linux":
        pytest.skip("runs copies of a process that has imported torch: safe on Linux only")
    known = shared_folder / "warm-process"
    with FileLock(f"{known}.lock"):
        if not (known.is_file() and listens(known.read_text())):
            tests = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            known.write_text(start_warm_process(pages_hub, tests))
        return known.read_text()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 20 coloured squares with one to three references each (12 train, 4 val, 4 test)."""
    import captune
    from noise import noise

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "Images").mkdir()
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "yellow": (200, 200, 30)}
    lines = ["image,caption"]
    for number in range(20):
        name, colour = list(colours.items())[number % 4]
        image = noise((40, 40), 20 + number, number).convert("RGB")
        image.paste(colour, (4 + number % 7, 6, 30, 28 + number % 5))
        image.save(folder / "Images" / f"{number:02}.png")
        said = [f"a {name} square", f"there is a {name} thing , in noise", f"one {name} square on the left"]
        lines += [f'{number:02}.png,"{text}"' for text in said[: 1 + number % 3]]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    captune.prepare(folder, folder / "data", split="60/20/20", seed=1, duplicates=False)
    return folder / "data"


@pytest.fixture(scope="module")
def traced_once(shared_folder: Path) -> Iterator[Path]:
    """Exports of a model that was exported before, by whichever test, take its ONNX graphs from then: this folder."""
    from captune.export import onnx
    from exported import traced_once

    folder = shared_folder / "traced"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "write_graph", traced_once(folder, onnx.write_graph))
        yield folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server that keeps everything in memory."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its file system, with an empty bucket `photos`; the environment as a user sets it."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    if fs.exists("photos"):
        fs.rm("photos", recursive=True)
    fs.mkdir("photos")
    return fs
