from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from captune.cli.flags import Chosen, kind, shown_default, verb
from captune.core.config import leaves
from captune.core.options import Options, option
from captune.core.verbs import Verb


class Group(Options, section="group"):
    number: int = option(3, "A number.", ge=1)
    maybe: float | None = option(None, "Perhaps a number.")
    switch: bool = option(False, "A switch.")
    word: Literal["one", "two"] = option("one", "One or two.")
    words: tuple[Literal["a", "b"], ...] = option(("a",), "Letters.")


@pytest.fixture
def call() -> Any:
    """Run a verb with these arguments; returns what it was given, or the error's text."""
    got: list[Chosen] = []

    def work(name: Annotated[str, typer.Argument()], chosen: Chosen) -> None:
        """Work.

        A paragraph that is
        broken in the source.
        """
        got.append(chosen)

    app = verb(work, Verb("work", "Panel", "Work.", (f"{__name__}:Group",), presets=True))

    def run(*arguments: str) -> Chosen | str:
        got.clear()
        result = CliRunner().invoke(app, ["x", *arguments], env={"TERMINAL_WIDTH": "120"})
        return got[0] if got else result.output or str(result.exception)

    return run


def test_what_is_not_given_is_absent(call: Any) -> None:
    assert call() == Chosen({}, {"config": None, "preset": None, "sets": ()})


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["--number", "5"], {"number": 5}),
        (["--maybe", "1e-4"], {"maybe": 1e-4}),
        (["--switch"], {"switch": True}),
        (["--no-switch"], {"switch": False}),
        (["--word", "two"], {"word": "two"}),
        (["--words", "a,b"], {"words": ("a", "b")}),
        (["--words", "a", "--words", "b"], {"words": ("a", "b")}),
        (["--words", "a, b,"], {"words": ("a", "b")}),
    ],
)
def test_flags_become_values(call: Any, arguments: list[str], flags: dict[str, Any]) -> None:
    assert call(*arguments).flags == flags


def test_sources_keep_their_order(call: Any) -> None:
    chosen = call("--set", "group.number=1", "--config", "c.yaml", "--set", "group.number=2", "--preset", "p")
    assert chosen.sources == {"config": "c.yaml", "preset": "p", "sets": ("group.number=1", "group.number=2")}


@pytest.mark.parametrize("arguments", [["--number", "many"], ["--word", "three"], ["--nuber", "3"]])
def test_wrong_values_and_names_are_errors(call: Any, arguments: list[str]) -> None:
    text = call(*arguments)
    assert isinstance(text, str)
    assert arguments[0] in text


def test_help_shows_meaning_default_and_words(call: Any) -> None:
    text = call("--help")
    for part in ("A number.", "(default 3)", "one|two", "--no-switch", "(a, b, default a)", "--set", "broken in"):
        assert part in text, part
    assert "that is broken" in text


def test_kinds() -> None:
    assert kind(int | None) == (int, False)
    assert kind(Annotated[str, "x"]) == (str, False)
    assert kind(tuple[int, ...]) == (int, True)
    assert kind(tuple[Literal["a"], ...] | None) == (Literal["a"], True)


def test_every_option_of_training_shows_its_default() -> None:
    shown = {name: shown_default(leaf) for name, leaf in leaves("train").items()}
    assert shown["learning_rate"] == "2e-05"
    assert shown["trackers"] == "tensorboard"
    assert shown["flip"] == "off"
    assert shown["image_size"] == ""
