"""What every benchmark here has in common: its flags, its table, and the ratios that are kept to be checked later."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from machine import Paired, machine, markdown

RATIOS = Path(__file__).with_name("ratios.json")
# A ratio may be this much lower than the kept one: other processors and busy machines differ by about as much.
TOLERANCE = 0.25


class Bench:
    """Rows of a benchmark, printed as they come.

    `--keep` writes their ratios into ratios.json; `--check` ends with status 1 where one has
    fallen by more than the tolerance. `--quick` measures fewer rows, once.
    """

    def __init__(self, name: str, doc: str | None, other: str, packages: Sequence[str], repeats: int) -> None:
        self.name, self.other, self.rows = name, other, dict[str, Paired]()
        self.parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
        self.parser.add_argument("--repeats", type=int, default=repeats)
        self.parser.add_argument("--quick", action="store_true", help="Fewer rows, once each.")
        self.parser.add_argument("--keep", action="store_true", help=f"Write the ratios into {RATIOS.name}.")
        self.parser.add_argument("--check", action="store_true", help="Fail where a ratio is lower than it was.")
        self.packages = packages

    def begin(self) -> argparse.Namespace:
        """The flags; prints the machine."""
        asked = self.parser.parse_args()
        if asked.quick:
            asked.repeats, asked.threads = 1, [max(asked.threads)]
        asked.threads = list(dict.fromkeys(asked.threads))
        self.asked, self.machine = asked, machine(*self.packages)
        print(self.machine)
        return asked

    def row(self, name: str, both: Paired, *, work: float = 0.0, peak: float = 0.0) -> None:
        """A row; with `work` and `peak` (billions, billions a second) it says what share of the peak ours reaches."""
        self.rows[name] = replace(both, work=work, peak=peak)
        print(" | ".join(self.rows[name].row(name)), flush=True)

    def end(self) -> None:
        """The table; then keep or check."""
        columns = ("", self.other, "captune", "ratio", "spread", "of peak")
        rows = [both.row(name) for name, both in self.rows.items()]
        if not any(row[-1] for row in rows):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        print("\n" + markdown(columns, rows))
        kept = json.loads(RATIOS.read_text(encoding="utf-8")) if RATIOS.is_file() else {}
        if self.asked.keep:
            before = kept.get(self.name, {}).get("ratios", {})
            ratios = {**before, **{name: round(both.ratio, 2) for name, both in self.rows.items()}}
            kept[self.name] = {"machine": self.machine, "ratios": ratios}
            RATIOS.write_text(json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        if self.asked.check:
            sys.exit(self._fallen(kept.get(self.name, {})))

    def _fallen(self, kept: dict[str, object]) -> int:
        """Print what has fallen; 1 where something has."""
        ratios = kept.get("ratios", {})
        assert isinstance(ratios, dict)
        print(f"\nAgainst: {kept.get('machine', 'nothing is kept yet; use --keep')}")
        fallen = 0
        for name, both in self.rows.items():
            before = ratios.get(name)
            if before is None:
                print(f"  new      {name}: {both.ratio:.2f}")
            elif both.ratio < (1 - TOLERANCE) * before:
                fallen = 1
                print(f"  FALLEN   {name}: {both.ratio:.2f}, was {before:.2f}")
            else:
                print(f"  as good  {name}: {both.ratio:.2f}, was {before:.2f}")
        return fallen
