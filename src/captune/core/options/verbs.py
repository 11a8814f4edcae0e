"""Which configuration each verb takes: what the docs list, and where an unknown option may belong."""

from __future__ import annotations

from captune.core import options as o
from captune.core.options.export import ExportConfig
from captune.core.options.serve import ServeConfig
from captune.core.options.video import VideoConfig, WebcamConfig

CONFIGS: dict[str, type[o.Options]] = {
    "prepare": o.PrepareConfig,
    "train": o.TrainConfig,
    "tune": o.TuneConfig,
    "evaluate": o.EvaluateConfig,
    "score": o.ScoreConfig,
    "caption": o.CaptionConfig,
    "video": VideoConfig,
    "webcam": WebcamConfig,
    "inspect": o.InspectConfig,
    "review": o.ReviewConfig,
    "match": o.MatchConfig,
    "ask": o.AskConfig,
    "embed": o.EmbedConfig,
    "capfilt": o.CapFiltConfig,
    "serve": ServeConfig,
    "app": o.AppConfig,
    "export": ExportConfig,
    "push": o.PushConfig,
    "report": o.ReportConfig,
    "compare": o.CompareConfig,
}
