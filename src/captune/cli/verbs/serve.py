import logging
import os

from captune.cli.flags import Chosen, Models, Quiet, verb
from captune.core.options import DEFAULT_MODEL


def serve(chosen: Chosen, model: Models = None, quiet: Quiet = False) -> None:
    """Caption images over HTTP: a REST API, and OpenAI's chat completions.

    Keys come from CAPTUNE_API_KEYS (name=key,name=key) and --keys-file, never from flags. On SIGTERM accepted
    requests are completed.
    """
    from captune.server.server import serve as run

    chosen.call(run, model or [DEFAULT_MODEL], quiet=quiet)
    # All is closed. With torch loaded, the interpreter's own end takes seconds, which --drain does not allow for.
    logging.shutdown()
    os._exit(0)


app = verb(serve)
