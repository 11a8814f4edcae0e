"""Fill the generated regions of README.md and docs/*.md from captune's own tables, and write docs/openapi.json.

    python docs/generate.py           write them
    python docs/generate.py --check   fail where one is out of step

A region stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from captune.cli.flags import kind, shown_default
from captune.cli.main import load
from captune.core.aliases import ORIGINS
from captune.core.config import Leaf, leaves, presets
from captune.core.environment import VARIABLES
from captune.core.files import write_text
from captune.core.options import GenerationOptions, Options, WordingOptions
from captune.core.options.verbs import configs
from captune.core.verbs import VERBS

ROOT = Path(__file__).resolve().parent.parent
REGION = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def about(thing: Any) -> str:
    """The one line that a table's entry says of itself."""
    text = getattr(thing, "DESCRIPTION", None) or (thing.__doc__ or "").strip()
    return " ".join(text.split("\n\n")[0].split())


def entries(head: str, items: Iterable[tuple[str, Any]]) -> str:
    return table((head, "what it is"), ((f"`{name}`", about(thing)) for name, thing in items))


def sections() -> dict[str, dict[str, type[Options]]]:
    """Each section of options, with the group of it that each verb takes; of some sections a verb takes a part."""
    found: dict[str, dict[str, type[Options]]] = {}
    for verb, config in configs().items():
        for section, field in config.model_fields.items():
            found.setdefault(section, {})[verb] = field.annotation  # type: ignore[assignment]
    return found


def fullest(groups: dict[str, type[Options]]) -> tuple[str, type[Options]]:
    """The verb that takes most of a section, and its group."""
    return max(groups.items(), key=lambda item: len(item[1].model_fields))


def taken_by(groups: dict[str, type[Options]]) -> str:
    """One sentence: which verbs take a section, and which a part of it."""
    whole = fullest(groups)[1]
    text = "Taken by " + ", ".join(f"`captune {verb}`" for verb, group in groups.items() if group is whole) + "."
    for verb, group in groups.items():
        if group is not whole:
            flags = ", ".join(f"`--{name.replace('_', '-')}`" for name in group.model_fields)
            text += f" `captune {verb}` takes {flags} alone."
    return text


def values(leaf: Leaf, group: type[Options]) -> str:
    """What an option takes: words, or a kind of number with its limits."""
    one, several = kind(leaf.annotation)
    if get_origin(one) is Literal:
        text = ", ".join(f"`{word}`" for word in get_args(one))
    elif one is bool:
        return f"`{leaf.flag}` / `--no-{leaf.flag.removeprefix('--')}`"
    else:
        limits = [
            f"{sign} {getattr(mark, name):g}"
            for mark in group.model_fields[leaf.name].metadata
            for name, sign in LIMITS.items()
            if hasattr(mark, name)
        ]
        text = " ".join([{"str": "text", "int": "whole number", "float": "number"}[one.__name__], ", ".join(limits)])
    return f"{text.strip()}; several with commas" if several else text.strip()


def options() -> str:
    """All options by section, with the verbs that take them."""
    parts = []
    for section, groups in sections().items():
        verb, group = fullest(groups)
        known = [leaf for leaf in leaves(configs()[verb]).values() if leaf.section == section]
        rows = [
            (
                f"`{leaf.flag}`",
                f"`{shown_default(leaf)}`" if shown_default(leaf) else "",
                values(leaf, group),
                leaf.help,
            )
            for leaf in known
        ]
        parts.append(
            f"### {group.panel} (`{section}`)\n\n{taken_by(groups)}\n\n"
            + table(("flag", "default", "values", "meaning"), rows)
        )
    return "\n".join(parts)


def verbs() -> str:
    """Every verb with its usage and its own arguments."""
    parts = []
    for name in VERBS:
        command = load(name)
        under = getattr(command, "commands", None)
        for full, one in {f"{name} {sub}": c for sub, c in under.items()}.items() if under else [(name, command)]:
            parts.append(_verb(full, one))
    return "\n".join(parts)


def _verb(name: str, command: Any) -> str:
    drawn = set(leaves(configs()[name])) if name in configs() else set()
    rows = []
    usage = [f"captune {name}"]
    for parameter in command.params:
        if parameter.name in drawn:
            continue
        if parameter.param_type_name == "argument":
            label = str(parameter.metavar or parameter.name.upper())
            usage.append(label)
        else:
            value = f" {parameter.metavar}" if parameter.metavar else ""
            label = f"{', '.join(parameter.opts)}{value}"
            usage.extend([f"{parameter.opts[0]}{value}"] if parameter.required else [])
        rows.append((f"`{label}`", " ".join((getattr(parameter, "help", "") or "").split())))
    usage.append("[OPTION...]")
    text = f"### {name}\n\n{command.help}\n\n```\n{' '.join(usage)}\n```\n\n" + table(("argument", "meaning"), rows)
    if drawn:
        first = {leaf.section: leaf for leaf in leaves(name).values()}
        groups = ", ".join(f"{leaf.panel} (`{leaf.section}`)" for leaf in first.values())
        text += f"\nOptions, in [options.md](options.md): {groups}.\n"
    return text


def environment() -> str:
    """Every environment variable: those that set an option, then the others."""
    found: dict[str, tuple[list[str], Leaf]] = {}
    for verb, config in configs().items():
        for leaf in leaves(config).values():
            for variable in leaf.env[1:]:
                found.setdefault(variable, ([], leaf))[0].append(verb)
    rows = [(f"`{name}`", ", ".join(verbs), f"`{leaf.flag}`: {leaf.help}") for name, (verbs, leaf) in found.items()]
    rows += [(f"`{one.name}`", one.read_by, one.meaning) for one in VARIABLES]
    return table(("variable", "read by", "meaning"), rows)


def other_names() -> str:
    """Other tools' names of options, and what is done instead of those that captune lacks."""
    parts = []
    for origin in ORIGINS:
        rows = [(f"`{name}`", _here(options)) for name, options in origin.aliases.items()]
        rows += [(f"`{name}`", f"answered: {text}") for name, text in origin.answers.items()]
        parts.append(f"### Names of {origin.name}\n\n" + table(("name", "captune"), rows))
    return "\n".join(parts)


def _here(options: tuple[str, ...]) -> str:
    flags = [f"`--{name.replace('_', '-')}`" for name in options if name not in ("work", "source")]
    keys = [f"`{name}` in a notebook's `cfg`" for name in options if name in ("work", "source")]
    return ", else ".join([*flags, *keys])


def formats() -> str:
    from captune.datasets.formats import FORMATS

    return entries("`--format`", FORMATS.items())


def writers() -> str:
    from captune.captions.writers import WRITERS

    return entries("`--format`", WRITERS.items())


def exporters() -> str:
    from captune.export import EXPORTERS

    return entries("`--to`", EXPORTERS.items())


def metrics() -> str:
    from captune.metrics import METRICS

    return table(("metric", "what it is", "scores"), ((f"`{name}`", *_metric(one)) for name, one in METRICS.items()))


def _metric(function: Any) -> tuple[str, str]:
    """What a metric is, and its scores: by its file and its function, or by the function alone where a file has two."""
    first, _, second = (function.__doc__ or "").partition("\n\n")
    if first.startswith("Key"):
        return about(sys.modules[function.__module__]), about(function)
    return about(function), " ".join(second.split())


def rules() -> str:
    from captune.training.selection import RULES

    return table(("rule", "what wins"), ((f"`{name}`", about(rule)) for name, rule in RULES.items()))


def families() -> str:
    from captune.models import families as known

    rows = ((f"`{f.name}`", f.about, ", ".join(f"`{name}`" for name in f.new)) for f in known())
    return table(("family", "what it is", "from scratch"), rows)


def family_facts() -> str:
    """What each of captune's own families does."""
    from captune.models import FAMILIES
    from captune.models import families as known

    rows = []
    for family in known():
        if family.origin.startswith("captune."):  # not of another package that happens to be installed
            kind = FAMILIES[family.name]
            frozen, bits = ", ".join(kind.frozen_by_default), "yes" if kind.quantizes else "no"
            rows.append((f"`{family.name}`", frozen, family.decoder, bits, family.about))
    return table(("family", "frozen by default", "searched by", "8/4 bits", "what it is"), rows)


def conformance() -> str:
    """Which promise is tested with which family, by asking the tests for their names."""
    from captune.models import families as known

    files = [f"tests/conformance/test_{name}.py" for name in ("families", "lora", "scst", "questions", "decoding")]
    asked = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    listed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [family.name for family in known() if family.origin.startswith("captune.")]
    tested: dict[str, set[str]] = {}
    for test, first in re.findall(r"::test_(\w+)\[([^\]]+)\]", listed):
        family = max((name for name in names if re.match(rf"{name}(-|$)", first)), key=len, default=None)
        if family is not None:
            tested.setdefault(test.replace("_", " "), set()).add(family)
    rows = ([promise, *("yes" if name in found else "–" for name in names)] for promise, found in tested.items())
    return table(("what is tested", *(f"`{name}`" for name in names)), rows)


def vlm_kinds() -> str:
    """What docs/vlm_kinds.py found."""
    found = json.loads((ROOT / "docs" / "vlm-kinds.json").read_text(encoding="utf-8"))
    rows = []
    for name, one in found.items():
        branches = "branches of one row" if one.get("references") == "branches" else "a row each"
        rows.append(
            (f"`{name}`", "no", "–", one["message"])
            if "message" in one
            else (f"`{name}`", "yes", branches, f"language model: `{one['text']}`")
        )
    return table(("`model_type`", "captions and learns", "references of an image are", "note"), rows)


def checkpoints() -> str:
    """Well-known weights of the families."""
    from captune.models import FAMILIES

    rows = (
        (f"`{known.name}`", name, f"{known.parameters / 1e6:,.0f} M", known.license)
        for name in FAMILIES
        for known in FAMILIES[name].checkpoints
    )
    return table(("on the Hub", "family", "parameters", "licence"), rows)


def preset_table() -> str:
    from importlib.resources import files

    rows = []
    for name in presets():
        text = (files("captune.core") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        comment = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
        rows.append((f"`{name}`", " ".join(comment)))
    return table(("`--preset`", "what it is"), rows)


def doctor() -> str:
    from captune.api.doctor import CHECKS

    return table(("check", "what it looks at"), ((name, about(check)) for name, check in CHECKS.items()))


def support() -> str:
    """What is there by name, in one table."""
    from captune.captions.writers import WRITERS
    from captune.datasets.formats import FORMATS
    from captune.metrics import METRICS
    from captune.models import FAMILIES

    sizes = [f"{name} ({', '.join(FAMILIES[name].sizes)})" for name in FAMILIES]
    rows = (
        ("model families (sizes from scratch)", sizes),
        ("data sets", FORMATS),
        ("metrics", METRICS),
        ("captions as", WRITERS),
        ("recipes", presets()),
    )
    return table(("", "names"), ((what, ", ".join(names)) for what, names in rows))


def rest() -> str:
    """Every route with its fields, its answer and what can go wrong."""
    from rest_tables import routes

    return routes(json.loads(openapi()), set(GenerationOptions.model_fields), set(WordingOptions.model_fields), table)


REGIONS: dict[str, Callable[[], str]] = {
    "options": options,
    "verbs": verbs,
    "environment": environment,
    "other-names": other_names,
    "formats": formats,
    "writers": writers,
    "exporters": exporters,
    "metrics": metrics,
    "rules": rules,
    "families": families,
    "family-facts": family_facts,
    "vlm-kinds": vlm_kinds,
    "checkpoints": checkpoints,
    "conformance": conformance,
    "presets": preset_table,
    "doctor": doctor,
    "support": support,
    "rest": rest,
}


def filled(text: str) -> str:
    """A page with all its regions made anew."""

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in REGIONS:
            raise SystemExit(f"There is no generated region '{name}'. Known: {', '.join(REGIONS)}.")
        return f"{match[1]}{REGIONS[name]()}{match[3]}"

    return REGION.sub(fill, text)


def out_of_step(pages: Iterable[Path]) -> dict[Path, str]:
    """The pages that should read otherwise, with what they should read."""
    return {page: new for page in pages if (new := filled(old := page.read_text(encoding="utf-8"))) != old}


def openapi() -> str:
    """What `captune serve` offers, as OpenAPI."""
    from captune.server.server import create_app

    return json.dumps(create_app({}).openapi(), ensure_ascii=False, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    changed = out_of_step(pages)
    schema, served = ROOT / "docs" / "openapi.json", openapi()
    if not schema.is_file() or schema.read_text(encoding="utf-8") != served:
        changed[schema] = served
    for page, text in changed.items():
        if "--check" in arguments:
            print(f"{page.relative_to(ROOT)} is out of step with the code: run `make docs`.", file=sys.stderr)
        else:
            write_text(page, text)
            print(f"wrote {page.relative_to(ROOT)}")
    return 1 if changed and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
