import json as jsonlib
import sys
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Model, Quiet, verb
from captune.cli.terminal import note, print_line


def webcam(
    chosen: Chosen,
    model: Model = None,
    save: Annotated[
        str | None, typer.Option("--save", metavar="DIR", help="Folder for the images that were captioned.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print a line of JSON for each caption.")] = False,
    quiet: Quiet = False,
) -> None:
    """Caption the images of a camera, every few seconds, until Ctrl-C.

    There is no window: captions are lines of text.
    """
    from captune.captions.row import caption_json, shown_confidence
    from captune.captions.writers.writer import one_line
    from captune.video.webcam import webcam as caption_camera

    captioned = chosen.call(caption_camera, model=model, save=save, quiet=quiet)
    try:
        for frame in captioned:
            if json:
                row = {"time": frame.when.isoformat(timespec="milliseconds"), "seconds": round(frame.seconds, 3)}
                row |= caption_json(frame.captions[0])
                if len(frame.captions) > 1:
                    row["captions"] = [caption_json(caption) for caption in frame.captions]
                row |= {} if frame.frame is None else {"frame": frame.frame}
                print_line(jsonlib.dumps(row, ensure_ascii=False))
            else:
                for caption in frame.captions:
                    sure = shown_confidence(caption.confidence)
                    print_line(f"{frame.when:%H:%M:%S}  {sure}  {one_line(caption.text)}")
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not quiet:
            note("Stopped.")
    finally:
        captioned.close()


app = verb(webcam)
