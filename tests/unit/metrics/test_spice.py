"""SPICE's jars are not ours to ship: a stand-in for Java shows what is asked of them and made of their answer."""

from __future__ import annotations

import json
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from captune.core.errors import MetricUnavailable
from captune.metrics import spice as module
from captune.metrics.corpus import MetricContext
from captune.metrics.measure import measure

HYPOTHESES = {"x": "a dog", "y": "a cat", "z": "..."}
REFERENCES = {"x": ["a dog runs"], "y": ["the cat", "it sits"], "z": ["nothing"]}
JAVA = """#!{python}
import json, sys
if sys.argv[1:] == ["-version"]:
    print('openjdk version "17.0.1"', file=sys.stderr)
    sys.exit(0)
given, made = sys.argv[sys.argv.index("-out") - 1], sys.argv[sys.argv.index("-out") + 1]
rows = json.load(open(given))
json.dump([sys.argv[1:], rows], open({log!r}, "w"))
{body}
"""
ANSWER = """
scores = {0: 0.5, 1: 0.25, 2: float("nan")}
made_rows = [{"image_id": row["image_id"], "scores": {"All": {"f": scores[row["image_id"]]}}} for row in rows]
json.dump(made_rows, open(made, "w"))
"""


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    folder = tmp_path / "jars"
    (folder / "lib").mkdir(parents=True)
    with zipfile.ZipFile(folder / module.JAR, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nMain-Class: org.example.Spice\r\n")
    for name in module.PARSER:
        (folder / "lib" / name).write_bytes(b"jar")
    return folder


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """A `java` on the path that notes what it was asked in the returned file, then runs `body`."""
    log, java = tmp_path / "asked.json", tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(JAVA.format(python=sys.executable, log=str(log), body=body))
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(java.parent))
    return log


def test_the_answer_of_the_program_is_the_score(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stand_in(tmp_path, monkeypatch, ANSWER)
    report = measure(HYPOTHESES, REFERENCES, ["spice"], MetricContext(spice_jars=str(jars)))
    assert report.scores == {"spice": pytest.approx(0.25)}
    assert {key: scores["spice"] for key, scores in report.per_image.items()} == {"x": 0.5, "y": 0.25, "z": 0.0}
    assert report.intervals["spice"].low < 0.25 < report.intervals["spice"].high
    command, rows = json.loads(log.read_text())
    assert rows == [
        {"image_id": n, "test": HYPOTHESES[key], "refs": REFERENCES[key]} for n, key in enumerate(HYPOTHESES)
    ]
    assert "org.example.Spice" in command
    path = command[command.index("-cp") + 1].split(":")
    assert [Path(jar).name for jar in path[:3]] == [module.JAR, *module.PARSER]
    assert "--add-opens=java.base/java.lang=ALL-UNNAMED" in command


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('Exception in thread main: out of memory', file=sys.stderr); sys.exit(3)", "status 3: Exception in"),
        ("json.dump([], open(made, 'w'))", "left out 3 images, 'x' first"),
    ],
)
def test_a_program_that_fails_costs_only_its_own_score(
    jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    stand_in(tmp_path, monkeypatch, body)
    report = measure(HYPOTHESES, REFERENCES, ["rouge_l", "spice"], MetricContext(spice_jars=str(jars)))
    assert list(report.scores) == ["rouge_l"]
    assert said in report.settings["left_out"]["spice"]
    with pytest.raises(MetricUnavailable, match="SPICE"):
        measure(HYPOTHESES, REFERENCES, ["spice"], MetricContext(spice_jars=str(jars)))


def test_what_is_missing_is_named(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, ANSWER)
    (jars / "lib" / module.PARSER[1]).unlink()
    with pytest.raises(MetricUnavailable, match=r"does not hold stanford-corenlp-3\.6\.0-models\.jar") as error:
        measure(HYPOTHESES, REFERENCES, ["spice"], MetricContext(spice_jars=str(jars)))
    assert "CAPTUNE_SPICE_HOME" in (error.value.hint or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MetricUnavailable, match="needs Java"):
        measure(HYPOTHESES, REFERENCES, ["spice"], MetricContext(spice_jars=str(jars)))
