"""The options of each verb as one configuration: its groups of options, each in its section."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from captune.core import options
from captune.core.verbs import VERBS, Verb, load


class Config(options.Options):
    """The options of a verb: the groups that its line in `VERBS` names, each in its section."""

    if TYPE_CHECKING:  # every verb has some of these
        alt: options.AltOptions = options.AltOptions()
        as_table: options.TableFormatOptions = options.TableFormatOptions()
        app: options.AppOptions = options.AppOptions()
        capfilt: options.CapFiltOptions = options.CapFiltOptions()
        caption: options.CaptionOptions = options.CaptionOptions()
        data: options.DataOptions = options.DataOptions()
        endpoint: options.EndpointOptions = options.EndpointOptions()
        drafting: options.DraftOptions = options.DraftOptions()
        filter: options.FilterOptions = options.FilterOptions()
        library: options.LibraryOptions = options.LibraryOptions()
        search: options.SearchOptions = options.SearchOptions()
        edit: options.EditOptions = options.EditOptions()
        eval: options.EvalOptions = options.EvalOptions()
        export: options.ExportOptions = options.ExportOptions()
        generation: options.GenerationOptions = options.GenerationOptions()
        job: options.JobOptions = options.JobOptions()
        match: options.MatchOptions = options.MatchOptions()
        measure: options.MeasureOptions = options.MeasureOptions()
        model: options.ModelOptions = options.ModelOptions()
        prepare: options.PrepareOptions = options.PrepareOptions()
        prompts: options.PromptOptions = options.PromptOptions()
        push: options.PushOptions = options.PushOptions()
        report: options.ReportOptions = options.ReportOptions()
        review: options.ReviewOptions = options.ReviewOptions()
        run_on: options.DeviceOptions = options.DeviceOptions()
        score: options.ScoreOptions = options.ScoreOptions()
        serve: options.ServeOptions = options.ServeOptions()
        structure: options.StructureOptions = options.StructureOptions()
        tables: options.TableOptions = options.TableOptions()
        tag: options.TagOptions = options.TagOptions()
        train: options.TrainOptions = options.TrainOptions()
        translation: options.TranslationOptions = options.TranslationOptions()
        tune: options.TuneOptions = options.TuneOptions()
        video: options.VideoOptions = options.VideoOptions()
        webcam: options.WebcamOptions = options.WebcamOptions()
        wording: options.WordingOptions = options.WordingOptions()
        write: options.WriteOptions = options.WriteOptions()


@cache
def config_of(verb: str | Verb) -> type[Config]:
    """The configuration that a verb takes."""
    verb = VERBS[verb] if isinstance(verb, str) else verb
    groups = [load(name if ":" in name else f"captune.core.options:{name}") for name in verb.options]
    fields: dict[str, Any] = {group.section: (group, Field(default_factory=group)) for group in groups}
    return create_model(f"{verb.name.title()}Config", __base__=Config, __doc__=f"Options of {verb.name}.", **fields)


def configs() -> dict[str, type[Config]]:
    """Every verb that takes options, with its configuration."""
    return {name: config_of(verb) for name, verb in VERBS.items() if verb.options}
