"""What the machine has refused - memory, room, a name, a file - where nobody nearer knew more to say about it."""

from __future__ import annotations

from captune.core.disk import DiskFull, disk_full, is_disk_full
from captune.core.errors import CaptuneError
from captune.core.memory import is_out_of_memory, memory_error
from captune.core.names import shortened

LESS_MEMORY = (
    "Free some, or use less at once: a smaller --batch-size or --eval-batch-size, fewer --num-beams, "
    "--precision bf16, a smaller model."
)


def machine_error(error: BaseException) -> CaptuneError | None:
    """The error to show instead of one that the system, or a library for it, has raised; None where that is a bug."""
    if is_out_of_memory(error):
        found: CaptuneError = memory_error(error, "for this", LESS_MEMORY)
    elif is_disk_full(error):
        name = getattr(error, "filename", None)
        if name:
            found = disk_full(error, str(name))
        else:
            found = DiskFull(f"The disk is full ({error}).", "Free some space and run the command again.")
    elif isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        name = shortened(str(error.filename))
        found = CaptuneError(f"{name}: {error.strerror}.", "Check that path, its permissions and the disk it is on.")
    else:
        return None
    found.__cause__ = error
    return found
