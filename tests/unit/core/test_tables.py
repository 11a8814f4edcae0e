from __future__ import annotations

import sys

import pytest

from captune.core.errors import UsageError
from captune.core.tables import Table


def test_an_entry_is_imported_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    table = Table("colour", {"hls": "colorsys:rgb_to_hls", "module": "colorsys"})
    assert list(table) == ["hls", "module"]
    assert "hls" in table
    assert "colorsys" not in sys.modules
    assert table["hls"](0, 0, 0) == (0.0, 0.0, 0.0)
    assert table["module"].rgb_to_hls is table["hls"]


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    table = Table("output format", {"jsonl": "json", "csv": "csv"})
    with pytest.raises(UsageError, match="There is no output format 'josnl'") as caught:
        table["josnl"]
    assert caught.value.hint == "Did you mean 'jsonl'? Known: csv, jsonl."


def test_get_falls_back_like_a_dictionary_only_by_membership() -> None:
    table = Table("thing", {"a": "json:loads"})
    assert "b" not in table
    assert len(table) == 1


def test_another_package_adds_a_name_and_captunes_own_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    added = [EntryPoint("new", "json:dumps", "captune.x"), EntryPoint("own", "json:dumps", "captune.x")]
    asked = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return added

    monkeypatch.setattr("captune.core.tables.entry_points", entry_points)
    table = Table("thing", {"own": "json:loads"}, group="captune.x")
    assert set(table) == {"own", "new"}
    assert table["own"]("1") == 1
    assert table["new"](1) == "1"
    assert asked == ["captune.x"]
