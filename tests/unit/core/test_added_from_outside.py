"""Another package adds a verb in three files, an option of it in one, and a metric in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VERB = {
    "captune_shout.py": '''
from captune.core.config import resolve
from captune.core.options.option import Options, option
from captune.core.verbs import Verb


class ShoutOptions(Options, section="shout", panel="Voice"):
    """How loud it is."""

    marks: int = option(1, "Exclamation marks.", ge=0, le=9)


VERB = Verb("shout", "Voices", "Say it loudly.", ("captune_shout:ShoutOptions",), "captune_shout:shout",
            command="captune_shout_command:app")


def shout(text, *, config=None, sets=(), environment=None, **options):
    values = resolve(VERB, file=config, environment=environment, flags=options, sets=sets).values
    return text.upper() + values.shout.marks * "!"
''',
    "captune_shout_command.py": '''
from typing import Annotated
import typer
from captune.cli.flags import Chosen, verb
from captune_shout import VERB, shout as loudly


def shout(text: Annotated[str, typer.Argument(metavar="TEXT")], chosen: Chosen) -> None:
    """Say it loudly."""
    print(loudly(text, **chosen.sources, **chosen.flags))


app = verb(shout, VERB)
''',
    "captune_shout-1.dist-info/entry_points.txt": "[captune.verbs]\nshout = captune_shout:VERB\n",
}
METRIC = {
    "captune_words.py": '''
"""How many words captions have."""

from captune.metrics.corpus import averaged
from captune.metrics import MetricSpec

SCORES = (MetricSpec("words", "Words in a caption", unit="words", higher_is_better=False, scale=1),)


def words(corpus):
    """Key `words`."""
    return averaged({"words": [len(text.split()) for text in corpus.hypotheses]})
''',
    "captune_words-1.dist-info/entry_points.txt": "[captune.metrics]\nwords = captune_words:words\n",
}


def installed(site: Path, files: dict[str, str], **variables: str) -> dict[str, str]:
    """An environment in which a package of these files is installed."""
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    about = next(iter(site.glob("*.dist-info")))
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about.stem}\nVersion: 1\n", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1", **variables}


def captune(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "captune", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "printed"),
    [
        ([], {}, "HELLO!"),
        (["--marks", "3"], {}, "HELLO!!!"),
        (["--set", "shout.marks=0"], {}, "HELLO"),
        ([], {"CAPTUNE_MARKS": "2"}, "HELLO!!"),
    ],
)
def test_a_verb_in_three_files_and_its_option_in_one(
    arguments: list[str], variables: dict[str, str], printed: str, tmp_path: Path
) -> None:
    assert len(VERB) == 3
    assert [text.count("option(") for text in VERB.values()] == [1, 0, 0]
    environment = installed(tmp_path, VERB, **variables)
    assert captune(environment, "shout", "hello", *arguments).strip() == printed


def test_help_lists_the_verb_and_its_option(tmp_path: Path) -> None:
    environment = installed(tmp_path, VERB)
    assert "Say it loudly." in captune(environment, "--help")
    text = captune(environment, "shout", "--help")
    for part in ("Voice", "--marks", "Exclamation marks. (default 1)", "--config", "--set"):
        assert part in text


def test_a_metric_in_two_files(tmp_path: Path) -> None:
    assert len(METRIC) == 2
    environment = installed(tmp_path / "site", METRIC)
    captions, references = tmp_path / "captions.json", tmp_path / "references.json"
    captions.write_text(json.dumps([{"image_id": 1, "caption": "two dogs"}, {"image_id": 2, "caption": "a dog runs"}]))
    references.write_text(json.dumps([{"image_id": n, "caption": "a dog"} for n in (1, 2)]))
    sides = ("-H", str(captions), "-R", str(references), "--metrics", "words,bleu", "--resamples", "0")
    lines = captune(environment, "score", *sides).splitlines()
    assert next(line.split() for line in lines if line.split()[:1] == ["words"]) == ["words", "2.50"]
    program = (
        "from captune.evaluation.report.scores import better, label, shown\n"
        "from captune.training.selection import improves\n"
        "print(label('words'), shown('words', 2.5), better('words', [3.0, 2.0]), improves('eval_words', 2.0, 3.0))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "Words in a caption 2.50 2.0 True\n"


def test_rules_goals_and_options_speak_of_known_scores() -> None:
    from typing import get_args

    from captune.core.options import TuneOptions
    from captune.core.options.training import Best
    from captune.metrics import SPECS
    from captune.training.selection import RULES, WEIGHTS

    assert get_args(get_args(Best)[0]) == ("auto", *RULES)
    goals = get_args(TuneOptions.model_fields["goal"].annotation)
    assert {*goals, *WEIGHTS} <= set(SPECS)
