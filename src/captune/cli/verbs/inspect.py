from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Json, Model, Quiet, verb
from captune.cli.terminal import out_json, out_table, print_line

if TYPE_CHECKING:
    from captune.inference.inspect import Inspection


def inspect(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="An image.")],
    chosen: Chosen,
    model: Model = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show every step of a caption: preprocessing, prompt, tokens and times.

    Shows each token of the best caption with its probability and the most likely others: the model's own, before the
    penalties of the search.
    """
    from captune.inference.inspect import inspect as inspect_caption

    found = chosen.call(inspect_caption, picture, model=model, quiet=quiet)
    if json:
        out_json(found.to_json())
    else:
        _print(found)


def _print(found: Inspection) -> None:
    print_line(f"{found.caption}\n")
    out_table("", ("what", "value"), _facts(found))
    rows = []
    for number, step in enumerate(found.steps, start=1):
        others = "  ".join(f"{other.text} {other.probability:.3f}" for other in step.alternatives)
        rows.append((number, step.text, f"{step.probability:.3f}", others))
    out_table("", ("step", "token", "probability", "instead"), rows)


def _facts(found: Inspection) -> list[tuple[str, str]]:
    made, file = found.preparation, found.preparation.stored
    cut = "" if made.resized == (made.square, made.square) else f", the middle {made.square} × {made.square} cut out"
    left, top, right, bottom = made.seen
    return [
        ("picture", found.image),
        ("stored as", f"{file.format}, {file.mode}, {file.width} × {file.height}, {file.turned}"),
        ("upright", f"{made.size[0]} × {made.size[1]}"),
        ("resized to", f"{made.resized[0]} × {made.resized[1]}{cut}" if made.square else "what its processor chooses"),
        ("part that is seen", f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"),
        ("pixels, mean", _numbers(made.mean)),
        ("pixels, std", _numbers(made.std)),
        ("pixels, range", f"{made.low:.3f} to {made.high:.3f}"),
        ("image tokens", f"{found.memory[0]:,} of {found.memory[1]:,} numbers"),
        ("prompt", repr(found.prompt) if found.prompt else "none"),
        ("prompt tokens", " ".join(found.prompt_tokens)),
        ("model", f"{found.model} ({found.family}), {found.device}, {found.precision}"),
        ("search", f"{found.decoder}, {found.beams} beam{'s' if found.beams > 1 else ''}"),
        ("confidence", f"{found.confidence:.3f}"),
        ("time", ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in found.seconds.items())),
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


app = verb(inspect)
