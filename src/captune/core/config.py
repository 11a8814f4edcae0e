"""From defaults, preset, file, environment and flags to one checked configuration."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from captune.core.aliases import ANSWERS, FORMER, canonical, plain
from captune.core.errors import UsageError, about_option, did_you_mean
from captune.core.files.limits import parse_yaml
from captune.core.options import GenerationOptions, Options
from captune.core.options.verbs import Config, config_of
from captune.core.verbs import Verb

NO_VARIABLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Leaf:
    """One option as the command line, the web form and the docs see it."""

    name: str
    section: str
    annotation: Any
    default: Any
    help: str
    env: tuple[str, ...]
    former_env: tuple[str, ...] = ()
    panel: str = ""
    needs: str = ""

    @property
    def key(self) -> str:
        """`section.name`, as in a configuration file or `--set`."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Resolved:
    """The checked values, and for every key that is not a default, who set it."""

    values: Config
    sources: dict[str, str]

    def with_defaults(self, section: str, defaults: Mapping[str, Any]) -> Config:
        """The values, with `defaults` in a section for every option that nobody set."""
        unset = {n: v for n, v in defaults.items() if f"{section}.{n}" not in self.sources}
        group = getattr(self.values, section)
        merged = type(group).model_validate({**group.model_dump(), **unset})
        return self.values.model_copy(update={section: merged})


def leaves(config: str | Verb | type[Options]) -> dict[str, Leaf]:
    """Every option of a verb (or of a configuration) by its name, in the order of declaration."""
    config = config if isinstance(config, type) else config_of(config)
    found: dict[str, Leaf] = {}
    for section, field in config.model_fields.items():
        group = field.annotation
        if not (isinstance(group, type) and issubclass(group, Options)):
            raise TypeError(f"{config.__name__}.{section} is not a group of options")
        for name, leaf in group.model_fields.items():
            if name in found:
                raise TypeError(f"{config.__name__} has two options named {name}")
            extra = leaf.json_schema_extra if isinstance(leaf.json_schema_extra, dict) else {}
            env = (str(extra["env"]),) if extra.get("env") else ()
            found[name] = Leaf(
                name=name,
                section=section,
                annotation=leaf.annotation,
                default=None if leaf.default is PydanticUndefined else leaf.default,
                help=leaf.description or "",
                env=(f"CAPTUNE_{name.upper()}", *env),
                panel=group.panel,
                needs=str(extra.get("needs", "")),
                former_env=tuple(f"CAPTUNE_{old.upper()}" for old, new in FORMER.items() if new == name),
            )
    return found


def presets() -> list[str]:
    """Names of the presets that ship with captune."""
    return sorted(
        f.name.removesuffix(".yaml") for f in (files("captune.core") / "presets").iterdir() if f.name.endswith(".yaml")
    )


def resolve(
    config: str | Verb | type[Config],
    *,
    preset: str | None = None,
    file: str | os.PathLike[str] | Resolved | None = None,
    environment: Mapping[str, str] | None = NO_VARIABLES,
    flags: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    base: Config | None = None,
) -> Resolved:
    """Merge all sources, the later winning: defaults or `base`, preset, file, environment, flags, `sets`.

    `config` is a verb, or its configuration. A `file` that is resolved already is returned as it is. Without
    `environment` no variable is read; None stands for the variables of this process.
    `flags` are option names with values (None: not given; a path is its text), `sets` are strings
    `section.name=value` whose values are YAML. A temperature, `top_k` or `top_p` that is given turns `sample` on,
    unless the same or a later source turns it off. Raises `UsageError` for an unknown key or a value out of range,
    naming where it came from.
    """
    if isinstance(file, Resolved):
        return file
    config = config if isinstance(config, type) else config_of(config)
    environment = os.environ if environment is None else environment
    known = leaves(config)
    merged = _Merged(known, base)
    for key, value, source, level in _given(config, known, preset, file, environment, flags or {}, sets):
        merged.put(key, value, source, level)
    if "sample" in known:
        merged.turn_sampling_on(known["sample"].section)
    merged.check_needs()
    return Resolved(_validate(config, merged.values, merged.sources, known), merged.sources)


def _given(
    config: type[Config],
    known: Mapping[str, Leaf],
    preset: str | None,
    file: str | os.PathLike[str] | None,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
    sets: Iterable[str],
) -> Iterator[tuple[str, Any, str, int]]:
    """Key, value, source and level of everything that is given; the higher level wins, flags and `sets` being one."""
    if preset is not None:
        for key, value in _pairs(_preset(preset)):
            if key.partition(".")[0] in config.model_fields:
                yield key, value, f"preset {preset}", 0
    if file is not None:
        for key, value in _pairs(_yaml(_read(file), str(file))):
            yield key, value, str(file), 1
    for leaf in known.values():
        variable = next((name for name in (*leaf.env, *leaf.former_env) if environment.get(name, "") != ""), None)
        if variable is not None:
            yield leaf.key, _scalar(environment[variable]), f"environment variable {variable}", 2
    for name, value in flags.items():
        if value is not None:
            text = os.fspath(value) if isinstance(value, os.PathLike) else value
            yield name, text, known[name].flag if name in known else name, 3
    for pair in sets:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: expected KEY=VALUE.", "For example: --set train.epochs=3")
        yield key.strip(), _scalar(text), f"--set {key}", 3


class _Merged:
    """Values by section and name, with the source and the level of each; a later value replaces an earlier one."""

    def __init__(self, known: Mapping[str, Leaf], base: Config | None) -> None:
        self._known = known
        self.values: dict[str, dict[str, Any]] = base.model_dump() if base is not None else {}
        self.sources: dict[str, str] = {}
        self._levels: dict[str, int] = {}
        self._written: dict[tuple[int, str], str] = {}

    def put(self, key: str, value: Any, source: str, level: int) -> None:
        """Take a value; raises `UsageError` for one that captune has in another way, or that stands twice."""
        leaf = find_option(key, self._known, source)
        instead = ANSWERS.get(f"{plain(key.rpartition('.')[2])}={value}")
        if instead:
            raise UsageError(f"{source}: {value!r} is not allowed.", instead)
        before = self._written.setdefault((level, leaf.key), key)
        if before != key and not source.startswith("--set "):
            raise UsageError(f"{source}: '{before}' and '{key}' are the same option.", f"Give '{leaf.name}' once.")
        self.values.setdefault(leaf.section, {})[leaf.name] = value
        self.sources[leaf.key] = source
        self._levels[leaf.key] = level

    def check_needs(self) -> None:
        """Raise `UsageError` for a flag that does nothing without another option."""
        for leaf in self._known.values():
            if leaf.needs and self._levels.get(leaf.key) == 3 and not self.values[leaf.section].get(leaf.needs):
                needed, source = self._known[leaf.needs].flag, self.sources[leaf.key]
                raise UsageError(f"{source} does nothing without {needed}.", f"Add {needed}, or leave {source} out.")

    def turn_sampling_on(self, section: str) -> None:
        """`sample` for what only counts when captions are sampled, by the source that gave it last."""
        values, levels = self.values.setdefault(section, {}), self._levels
        found = {name: levels[f"{section}.{name}"] for name in OF_SAMPLING if f"{section}.{name}" in levels}
        own, latest = levels.get(f"{section}.sample", -1), max(found.values(), default=-1)
        if latest < own or latest < 0 or (latest == own < 3):  # a whole configuration in a file says what it means
            return
        named = {name: values[name] for name, level in found.items() if level == latest}
        if own == latest:
            named["sample"] = values["sample"]
        if with_sampling({**named, "variations": values.get("variations")}).get("sample") and not values.get("sample"):
            values["sample"] = True
            self.sources[f"{section}.sample"] = self.sources[f"{section}.{next(iter(named))}"]


def _preset(name: str) -> Any:
    if name not in presets():
        raise UsageError(f"There is no preset '{name}'.", did_you_mean(name, presets()))
    return _yaml((files("captune.core") / "presets" / f"{name}.yaml").read_text(), name)


def find_option(key: str, known: Mapping[str, Leaf], source: str) -> Leaf:
    """The option that `section.name` or `name` means, by captune's name or another tool's.

    Raises `UsageError` that says what is meant instead; `source` is where the key stood.
    """
    section, _, name = key.rpartition(".")
    if name in known and section in ("", known[name].section):
        return known[name]
    here = [leaf.name for leaf in known.values() if leaf.section == section]
    other = canonical(name, here) or canonical(name, known) if name not in known else None
    if other is not None:
        return known[other]
    hint = f"It is '{known[name].key}'." if name in known else about_option(name, known)
    raise UsageError(f"{source}: there is no option '{key}'.", hint)


def dump(values: Options) -> str:
    """The configuration as YAML, every key named."""
    return yaml.safe_dump(values.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _validate(config: type[Config], tree: dict[str, Any], sources: dict[str, str], known: dict[str, Leaf]) -> Config:
    for section, values in tree.items():
        for name, value in values.items():
            # One word where a list is expected is a list of one; "a,b" is a list of two.
            if known[name].default.__class__ is tuple and isinstance(value, str):
                values[name] = tuple(part.strip() for part in value.split(",") if part.strip())
            elif isinstance(value, list):
                values[name] = tuple(value)
        tree[section] = values
    try:
        return config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join(path[:2])
        source = sources.get(key, key)
        name = path[1] if len(path) > 1 else key
        # A pattern is nothing to read: the help says what is meant.
        message = (
            "" if first["type"] == "string_pattern_mismatch" else f": {first['msg'].removeprefix('Value error, ')}"
        )
        given = f" {first['input']!r}" if len(path) > 1 else ""
        hint = known[name].help if name in known else "See the command's --help."
        raise UsageError(f"{source}:{given} is not allowed{message}.", hint) from None


def _yaml(text: str, name: str) -> dict[str, Any]:
    try:
        value = parse_yaml(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, why = (f", line {mark.line + 1}", "") if mark else ("", f" ({error})")
        raise UsageError(f"{name}{line}: not valid YAML{why}.", "Check indentation and quotes.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected sections with options in them.", "For example: train: {epochs: 3}")
    return value


def _read(file: str | os.PathLike[str]) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot read the configuration {file}: {error.strerror}.", "Check the path.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not valid YAML (not UTF-8: {error.reason}).", "Check the path.") from None


def _pairs(tree: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for section, values in tree.items():
        if isinstance(values, dict):
            for name, value in values.items():
                yield f"{section}.{name}", value
        else:
            yield section, values


def _scalar(text: str) -> Any:
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        return text
    # YAML reads 1e-4 as a word; people mean the number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


OF_SAMPLING = ("temperature", "top_k", "top_p")


def with_sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a search that somebody gave, with `sample` where a temperature, `top_k` or `top_p` is among them.

    Raises `UsageError` where `sample` was turned off beside one that is not the default; `variations` sample by
    themselves.
    """
    drawn = [name for name in OF_SAMPLING if given.get(name) is not None]
    if not drawn or given.get("variations"):
        return dict(given)
    if given.get("sample") in (False, "false", "off"):
        changed = [name for name in drawn if given[name] != GenerationOptions.model_fields[name].default]
        if changed:
            raise UsageError(
                f"{changed[0]} = {given[changed[0]]} is for captions that are sampled, but sample is off.",
                f"Leave out {changed[0]}, or turn sample on.",
            )
        return dict(given)
    return {**given, "sample": True}


def as_given(options: GenerationOptions) -> dict[str, Any]:
    """All options of a search as keywords for another; of one that does not sample without what only sampling reads."""
    given = options.model_dump()
    return given if options.sample else {name: value for name, value in given.items() if name not in OF_SAMPLING}
