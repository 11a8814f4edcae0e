"""compose.yaml, its keys, Prometheus' files and the Kubernetes example say what captune does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from captune.cli.main import load
from captune.core.config import leaves, resolve
from captune.core.errors import UsageError
from captune.core.verbs import VERBS
from captune.server.middleware import ServerMetrics
from scripts import ROOT, script

SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports",
    "read_only", "restart", "secrets", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "start_period", "start_interval", "retries"}


@pytest.fixture(scope="module")
def stages() -> set[str]:
    """The targets of the Dockerfile."""
    return set(script("tools/dockerfile.py").parse((ROOT / "Dockerfile").read_text(encoding="utf-8")).stages)


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def substituted(text: str) -> str:
    """Compose's ${NAME:-otherwise} with nothing set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


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


def test_what_services_name_is_declared(compose: Any, stages: set[str]) -> None:
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
            assert service["build"]["target"] in stages
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
    assert int(grace.removesuffix("s")) > resolve("serve").values.serve.drain


def test_variables_of_compose_are_no_options_of_captune(compose: Any) -> None:
    used = set(re.findall(r"\$\{(\w+):-", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
    options = {f"CAPTUNE_{name.upper()}" for config in ("serve", "app") for name in leaves(config)}
    assert used == {"CAPTUNE_MODEL", "CAPTUNE_MODELS_DIR", "CAPTUNE_CPUS", "CAPTUNE_RAM", "CAPTUNE_BIND"}
    assert not used & options


def test_threads_and_cpus_are_one_number(compose: Any) -> None:
    for name in ("api", "app"):
        service = compose["services"][name]
        assert service["environment"]["OMP_NUM_THREADS"] == service["deploy"]["resources"]["limits"]["cpus"]


def test_the_overlay_for_cards_changes_services_that_exist(compose: Any, stages: set[str]) -> None:
    overlay = yaml.safe_load((ROOT / "compose.cuda.yaml").read_text(encoding="utf-8"))
    assert set(overlay["services"]) == {"api", "app"} <= set(compose["services"])
    for service in overlay["services"].values():
        assert service["build"]["target"] in stages
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


# Keys and Prometheus


def made_keys(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    (folder / "deploy").mkdir(exist_ok=True)
    tool = shutil.copy(ROOT / "deploy" / "make-keys", folder / "deploy")
    return subprocess.run([tool, *names], capture_output=True, text=True, check=False)


def test_made_keys_are_read_by_the_server(tmp_path: Path) -> None:
    from captune.server.keys import Keys, read_keys

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
    from captune.server.server import create_app

    routes = {path for path in create_app({}).openapi()["paths"] if path.startswith("/v1/")}
    measures = ServerMetrics()
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
            assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", chosen)) <= labels[name], (
                f"{rule['alert']}: {name}{{{chosen}}}"
            )
        assert set(re.findall(r'route!~"([^"]*)"', rule["expr"])) <= {"/metrics|/health/.*"}  # asked by machines
        for pattern in re.findall(r'route=~"([^"]*)"', rule["expr"]):
            wanted = {route for route in routes if re.fullmatch(pattern, route)}
            assert len(wanted) == pattern.count("|") + 1, pattern
        assert {"summary", "next"} == set(rule["annotations"])


def test_what_the_page_says_for_kubernetes_fits() -> None:
    from captune.server.middleware import PUBLIC_PATHS

    text = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    spec = yaml.safe_load(block)
    (api,) = spec["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert api[name]["httpGet"]["path"] in PUBLIC_PATHS
        assert api[name]["httpGet"]["port"] == 8000
    verb, *arguments = api["args"]
    assert load(verb).make_context(verb, arguments).params["keys_file"] == "/keys/keys"
    assert {mount["name"] for mount in api["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    assert spec["terminationGracePeriodSeconds"] > resolve("serve").values.serve.drain + 5
    # Why the page says enableServiceLinks: false.
    with pytest.raises(UsageError, match="CAPTUNE_PORT"):
        resolve("serve", environment={"CAPTUNE_PORT": "tcp://10.0.0.1:8000"})
