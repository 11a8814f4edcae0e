"""Every table entry loads, every option is one option, and the docs say what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.cli.main import application, load
from captune.core.config import leaves, presets, resolve
from captune.core.options import Options
from captune.core.options.verbs import configs
from captune.core.tables import Table
from captune.core.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]


def tables() -> list[Table]:
    from captune.captions.writers import WRITERS
    from captune.datasets.formats import FORMATS
    from captune.datasets.sources.input_shards import KINDS
    from captune.export import EXPORTERS
    from captune.inference.runtime.sessions import RUNTIMES
    from captune.metrics import METRICS
    from captune.models import FAMILIES

    return [FORMATS, WRITERS, METRICS, FAMILIES, EXPORTERS, RUNTIMES, KINDS]


@pytest.mark.parametrize(("table", "name"), [pytest.param(t, n, id=f"{t.kind} {n}") for t in tables() for n in t])
def test_every_table_entry_loads(table: Table, name: str) -> None:
    assert table[name] is not None


@pytest.mark.parametrize("name", sorted(set(captune.__all__) - {"__version__"}))
def test_every_public_name_loads(name: str) -> None:
    assert getattr(captune, name) is not None


@pytest.mark.parametrize("name", list(configs()))
def test_option_names_are_unique_in_a_verb(name: str) -> None:
    command = load(name)
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    assert len(flags) == len(set(flags))
    assert set(leaves(configs()[name])) <= {parameter.name for parameter in command.params}


@pytest.mark.parametrize("config", list(configs().values()))
def test_every_option_explains_itself(config: type[Options]) -> None:
    assert not [leaf.key for leaf in leaves(config).values() if not leaf.help.endswith((".", ".)"))]


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("config", ["train", "evaluate"])
def test_presets_resolve(name: str, config: type[Options]) -> None:
    resolved = resolve(config, preset=name)
    assert resolved.sources
    assert set(resolved.sources.values()) == {f"preset {name}"}


@pytest.mark.parametrize("name", list(VERBS))
def test_every_verb_loads_and_says_what_it_does(name: str) -> None:
    command: Any = load(name)
    assert command.help
    assert name in application().list_commands(None)


def test_an_edited_region_is_noticed(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- generated: presets -->\nby hand\n<!-- end -->\nafter\n", encoding="utf-8")
    (new,) = generate.out_of_step([page]).values()
    assert "by hand" not in new
    assert "flickr8k-quick" in new
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    page.write_text(new, encoding="utf-8")
    assert generate.out_of_step([page]) == {}
