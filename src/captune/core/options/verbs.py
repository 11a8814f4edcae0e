"""The options of each verb as one configuration: its groups of options, each in its section."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from captune.core.options import (
    AppOptions,
    CapFiltOptions,
    CaptionOptions,
    DeviceOptions,
    EvalOptions,
    GenerationOptions,
    MatchOptions,
    MeasureOptions,
    PrepareOptions,
    PushOptions,
    ReportOptions,
    ReviewOptions,
    ScoreOptions,
    TranslationOptions,
    TuneOptions,
    WhereOptions,
)
from captune.core.options.option import Options, OutsideOptions, TableOptions
from captune.core.options.outputs import ExportOptions, JobOptions, VideoOptions, WebcamOptions
from captune.core.options.serve import ServeOptions
from captune.core.options.training import DataOptions, ModelOptions, TrainOptions
from captune.core.verbs import VERBS, Verb, load

GROUPS: dict[str, type[Options]] = {
    group.__name__: group
    for group in (
        *(AppOptions, CapFiltOptions, CaptionOptions, DataOptions, DeviceOptions, EvalOptions, ExportOptions),
        *(GenerationOptions, JobOptions, MatchOptions, MeasureOptions, ModelOptions, OutsideOptions, PrepareOptions),
        *(PushOptions, ReportOptions, ReviewOptions, ScoreOptions, ServeOptions, TableOptions, TrainOptions),
        *(TranslationOptions, TuneOptions, VideoOptions, WebcamOptions, WhereOptions),
    )
}


class Config(Options):
    """The options of a verb: the groups that its line in `VERBS` names, each in its section."""

    if TYPE_CHECKING:  # every verb has some of these
        app: AppOptions = AppOptions()
        capfilt: CapFiltOptions = CapFiltOptions()
        caption: CaptionOptions = CaptionOptions()
        data: DataOptions = DataOptions()
        eval: EvalOptions = EvalOptions()
        export: ExportOptions = ExportOptions()
        generation: GenerationOptions = GenerationOptions()
        job: JobOptions = JobOptions()
        match: MatchOptions = MatchOptions()
        measure: MeasureOptions = MeasureOptions()
        model: ModelOptions = ModelOptions()
        prepare: PrepareOptions = PrepareOptions()
        push: PushOptions = PushOptions()
        report: ReportOptions = ReportOptions()
        review: ReviewOptions = ReviewOptions()
        run_on: DeviceOptions = DeviceOptions()
        score: ScoreOptions = ScoreOptions()
        serve: ServeOptions = ServeOptions()
        tables: TableOptions = TableOptions()
        train: TrainOptions = TrainOptions()
        translation: TranslationOptions = TranslationOptions()
        tune: TuneOptions = TuneOptions()
        video: VideoOptions = VideoOptions()
        webcam: WebcamOptions = WebcamOptions()


@cache
def config_of(verb: str | Verb) -> type[Config]:
    """The configuration that a verb takes."""
    verb = VERBS[verb] if isinstance(verb, str) else verb
    groups = [GROUPS.get(name) or load(name) for name in verb.options]
    fields: dict[str, Any] = {group.section: (group, Field(default_factory=group)) for group in groups}
    return create_model(f"{verb.name.title()}Config", __base__=Config, __doc__=f"Options of {verb.name}.", **fields)


def configs() -> dict[str, type[Config]]:
    """Every verb that takes options, with its configuration."""
    return {name: config_of(verb) for name, verb in VERBS.items() if verb.options}
