"""SPICE by its own Java program, with the parser that the user brings.

Anderson et al. 2016: F-score over the tuples of scene graphs. The program is in the
pycocoevalcap package (`captune[meteor]`); Stanford CoreNLP 3.6, which it parses with, is not.
"""

import json
import os
import shutil
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captune.core.errors import MetricUnavailable
from captune.core.files import scratch_folder
from captune.core.files.limits import parse_json
from captune.metrics.corpus import Corpus, MetricResult, averaged

JAR = "spice-1.0.jar"
PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
NEXT_STEP = (
    f"Fetch {PARSER[0]} and {PARSER[1]} (the Maven package edu.stanford.nlp:stanford-corenlp:3.6.0) into a folder "
    "and name it: --spice-jars FOLDER, or CAPTUNE_SPICE_HOME. Leave spice out to do without."
)
# The program's serializer reaches into packages that Java closed in version 9.
OPENED = ("java.lang", "java.util", "java.math", "java.text", "java.nio", "sun.nio.ch")
HEAP = "8G"


def spice(corpus: Corpus) -> MetricResult:
    """Key `spice`, 0–1: the F-score of each image's caption; the corpus score is their mean.

    An image whose caption and references give no tuples counts as 0. Raises
    `MetricUnavailable` where Java or a jar is missing, or the program fails.
    """
    java = shutil.which("java")
    if java is None:
        raise MetricUnavailable("SPICE needs Java, and there is no 'java' on the path.", NEXT_STEP)
    jars = _jars(corpus.context.spice_jars)
    entries = [
        {"image_id": n, "test": caption, "refs": list(references)}
        for n, (caption, references) in enumerate(zip(corpus.hypotheses, corpus.references, strict=True))
    ]
    with scratch_folder() as work, corpus.progress.task("SPICE"):
        given, made = work / "in.json", work / "out.json"
        given.write_text(json.dumps(entries), encoding="utf-8")
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED] if _is_modular(java) else []
        program = ["-cp", os.pathsep.join(map(str, jars)), _main_class(jars[0])]
        command = [java, f"-Xmx{HEAP}", *opened, *program, str(given), "-out", str(made), "-subset", "-silent"]
        ran = subprocess.run(command, cwd=work, capture_output=True, text=True, errors="replace", check=False)
        if ran.returncode or not made.is_file():
            lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
            why = next((line.strip() for line in lines if "Error" in line or "Exception" in line), "no output")
            raise MetricUnavailable(f"SPICE's program ended with status {ran.returncode}: {why}", NEXT_STEP)
        rows = parse_json(made.read_text(encoding="utf-8"))
    each = {row["image_id"]: _f_score(row) for row in rows}
    missing = [image for n, image in enumerate(corpus.ids) if n not in each]
    if missing:
        raise MetricUnavailable(f"SPICE's program left out {len(missing)} images, {missing[0]!r} first.", NEXT_STEP)
    return averaged({"spice": [each[n] for n in range(len(corpus.ids))]}, {"spice_jars": str(jars[0].parent)})


def _f_score(row: dict[str, Any]) -> float:
    value = row["scores"]["All"]["f"]
    return float(value) if value is not None and value == value else 0.0


def _jars(given: str | None) -> list[Path]:
    """The program, then the parser, then what the program needs besides: from `given`, else from the package."""
    if not given:
        raise MetricUnavailable("SPICE needs Stanford CoreNLP 3.6, and no folder that holds it was named.", NEXT_STEP)
    places = [place for home in (Path(given).expanduser(), _package()) if home for place in (home, home / "lib")]
    found = {path.name: path.resolve() for place in reversed(places) for path in sorted(place.glob("*.jar"))}
    missing = [name for name in (JAR, *PARSER) if name not in found]
    if missing:
        step = "pip install 'captune[meteor]' brings it." if missing == [JAR] else NEXT_STEP
        raise MetricUnavailable(f"SPICE: {given} does not hold {', '.join(missing)}.", step)
    first = [found.pop(name) for name in (JAR, *PARSER)]
    return [*first, *found.values()]


def _package() -> Path | None:
    spec = find_spec("pycocoevalcap")
    return Path(spec.submodule_search_locations[0], "spice") if spec and spec.submodule_search_locations else None


def _main_class(jar: Path) -> str:
    """What the jar's manifest says is to be run."""
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = archive.read("META-INF/MANIFEST.MF").decode("utf-8", "replace")
        return next(line.split(":", 1)[1].strip() for line in manifest.splitlines() if line.startswith("Main-Class:"))
    except (OSError, KeyError, StopIteration, zipfile.BadZipFile):
        raise MetricUnavailable(f"{jar} is not SPICE's program.", "Fetch it again.") from None


def _is_modular(java: str) -> bool:
    """Whether this is Java 9 or later, which must be told what may be reached into."""
    version = subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False)
    return 'version "1.' not in version.stderr + version.stdout
