"""Files and folders that are whole or absent: written beside their path, synced, renamed."""

import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import yaml

from captune.core.errors import CaptuneError, UsageError, first_line
from captune.core.files.limits import parse_json, parse_yaml
from captune.core.machine import disk_full, is_disk_full
from captune.core.text import fit_name, shortened

_PART_NAME = re.compile(r"\..+\.(\d{1,10})\.part")


class NotWritable(CaptuneError):
    """A file that cannot be written where others perhaps can: its name or its permissions forbid it."""


@contextmanager
def atomic_file(
    path: str | os.PathLike[str], mode: str = "w", *, newline: str | None = None, owner: str = ""
) -> Iterator[IO[Any]]:
    """Open a file that appears at `path` only when the block ends without an error.

    `mode` is "w" (UTF-8 text; bytes of file names that are no UTF-8 become escapes, which JSON reads back) or "wb".
    The folder is made if it is missing. A full disk or a folder that may not be written raises `CaptuneError`, and
    what stood at `path` before stays. A link stays a link; a pipe or a device is written as it is.
    What a killed process left half written of the same file is removed. `owner` names the writer where several
    machines share the folder; by default the process.
    """
    target = _resolved(Path(path))
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
    if target.exists() and not (target.is_file() or target.is_dir()):
        # A file renamed into the place of /dev/stdout or /dev/null would break the machine.
        try:
            with open(target, mode, encoding=encoding, errors=errors, newline=newline) as file:
                yield file
        except OSError as error:
            if error.filename not in (None, str(target)):
                raise
            raise disk_error(error, target) from error
        return
    temporary = part_path(target, owner or os.getpid())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        with open(temporary, mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(target), str(target.parent)):
            raise
        raise disk_error(error, target) from error
    finally:
        with suppress(OSError):  # the error above, if any, is the one to tell
            temporary.unlink()


def part_path(target: Path, owner: str | int) -> Path:
    """What a file that `owner` writes is called until it is whole."""
    return target.with_name(fit_name(f".{target.name}", f".{owner}.part"))


@lru_cache(maxsize=64)
def _leftovers(folder: Path) -> dict[int, list[Path]]:
    """Half-written files that lay in a folder when this process first wrote there, by the process that left them."""
    found: dict[int, list[Path]] = {}
    for entry in os.scandir(folder):
        match = _PART_NAME.fullmatch(entry.name)
        if match and not is_running(int(match[1])):
            found.setdefault(int(match[1]), []).append(folder / entry.name)
    return found


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes left half written of a file."""
    left = _leftovers(target.parent)
    for process in [*left]:
        part = part_path(target, process)
        if part in left[process]:
            left[process].remove(part)
            with suppress(OSError):  # another run swept it
                part.unlink()


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and not every folder may be read
        return
    _sync(handle)


def sync_tree(folder: Path) -> None:
    """Flush all files and names below a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            _sync(os.open(path, os.O_RDONLY))
    sync_folder(folder)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _resolved(target: Path) -> Path:
    """Where a link to a file leads; raises `CaptuneError` for a path that no file can have."""
    try:
        return target.resolve() if target.is_symlink() and target.is_file() else target
    except OSError as error:
        raise disk_error(error, target) from error


def disk_error(error: OSError, path: str | os.PathLike[str]) -> CaptuneError:
    """What a failed write means and what to do about it."""
    if is_disk_full(error):
        return disk_full(error, path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        kind = CaptuneError if error.errno == errno.EROFS else NotWritable
        return kind(f"No permission to write {path}.", "Choose another output folder, or change its permissions.")
    if error.errno == errno.ENAMETOOLONG:
        return NotWritable(f"Cannot write {shortened(path)}: the name is too long.", "Choose a shorter output path.")
    in_place = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ETXTBSY)
    if error.errno in in_place or isinstance(error, NotRegular):
        return NotWritable(f"Cannot write {path}: {error.strerror}.", "Move what is in its place, or choose another.")
    return CaptuneError(f"Cannot write {path}: {error.strerror or error}.", "Check the output path.")


class NotRegular(OSError):
    """What is no file of bytes: a pipe, a socket, a device, a folder."""


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file opened to be read. Raises `OSError`, `NotRegular` where opening could wait for ever or do something."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        raise NotRegular(errno.EINVAL, f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file", os.fspath(path))
    return open(path, "rb")


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine, such as one that left a file half written."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is there and belongs to someone else
    return True


def cache_folder() -> Path:
    """Where what can be made again is kept: `$CAPTUNE_CACHE`, else `captune` in the user's cache."""
    chosen = os.environ.get("CAPTUNE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "captune"


def as_paths(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """One path, or several, as a list."""
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file, or leave what was there."""
    with atomic_file(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, keys in their order."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON; a file that is missing or broken raises `CaptuneError` with its line."""
    try:
        return parse_json(read_text(path))
    except json.JSONDecodeError as error:
        raise CaptuneError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}).", "Mend or rebuild the file."
        ) from None


def read_text(path: str | os.PathLike[str]) -> str:
    """Read UTF-8; a file that is missing, or is none, raises `CaptuneError` with the reason."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CaptuneError(f"There is no file {path}.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise CaptuneError(f"{path} cannot be read: {why}.", "Mend or rebuild the file.") from None


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read YAML of plain values; a file that is missing or broken raises `CaptuneError` with the reason."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CaptuneError(f"{path} cannot be read: {first_line(error)}.", "Restore it, or remove the run.") from None


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> int:
    """Write one JSON value a line; returns how many."""
    count = 0
    with atomic_file(path) as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return count


@contextmanager
def atomic_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to fill, which appears at `out` only when the block ends without an error.

    `out` may be missing or empty; anything else raises `UsageError`. What a process that was killed left
    behind is cleared away by the next one with the same `out`.
    """
    target = Path(os.path.abspath(Path(out).expanduser()))
    check_free(target)
    for left in target.parent.glob(".*.part"):
        owner = left.name.split(".")[-2]
        if left == part_path(target, owner) and not is_other_process(owner):
            shutil.rmtree(left, ignore_errors=True)
    with staging_folder(part_path(target, os.getpid()), target) as stage:
        try:
            yield stage
            sync_tree(stage)
            if target.is_dir():
                target.rmdir()
            os.rename(stage, target)
            sync_folder(target.parent)
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith((str(stage), str(target))):
                raise
            raise disk_error(error, target) from error


@contextmanager
def staging_folder(stage: Path, out: Path, *, journal: str = "") -> Iterator[Path]:
    """Make `stage`, in which the contents of `out` are prepared, with its parents.

    In the end it is removed, as are the parents that are empty. While it holds a file `journal`, it stays.
    """
    made = folders_to_make(stage.parent)
    try:
        stage.parent.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
    except OSError as error:
        raise disk_error(error, out) from error
    try:
        yield stage
    finally:
        if not (journal and (stage / journal).exists()):
            shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def check_free(out: Path) -> None:
    """Raise `UsageError` where `out` is neither missing nor an empty folder."""
    if out.is_dir():
        if any(out.iterdir()):
            raise UsageError(f"The folder {out} is not empty.", "Choose another with --out, or remove it first.")
    elif out.exists() or out.is_symlink():
        raise UsageError(f"--out {out} is a file.", "Name a folder.")


class OutputFolders:
    """Folders that something is written into: one that is removed or replaced meanwhile is an error."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    @property
    def folders(self) -> list[Path]:
        return [*self._known]

    def check(self, folder: Path) -> None:
        """Make a folder the first time; raise `CaptuneError` where it is not that one any more."""
        known = self._known.get(folder)
        if known is None:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            found = os.stat(folder)
        except FileNotFoundError:
            raise _gone(folder) from None
        if known is not None and known != (found.st_dev, found.st_ino):
            raise _gone(folder)
        self._known[folder] = found.st_dev, found.st_ino


def _gone(folder: Path) -> CaptuneError:
    return CaptuneError(
        f"The output folder {folder} was removed or replaced while it was written into.",
        "What it held is gone: run the same command again.",
    )


def folders_to_make(out: Path) -> list[Path]:
    """Folders that have to be made for `out`, innermost first."""
    missing = []
    folder = Path(os.path.abspath(out))
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    return missing


def is_other_process(pid: str) -> bool:
    """Whether another process than this one has the number `pid`."""
    return pid.isdigit() and int(pid) != os.getpid() and is_running(int(pid))


_PREFIX = "captune-scratch-"


@contextmanager
def scratch_folder(home: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """An empty folder in `home` (the system's folder for temporary files), removed with what it holds at the end.

    The process holds a lock on it (flock), which ends with the process: so others know that it may be removed. On
    Windows and on file systems without such locks, what a kill leaves stays. Raises `OSError` where none can be made.
    """
    place = os.fspath(home or tempfile.gettempdir())
    _sweep(place)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        handle = _lock(made)
        if made.is_dir():  # else another process took it for one that was left, before it was locked
            break
        _close(handle)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _close(handle)


@lru_cache(maxsize=16)
def _sweep(home: str) -> None:
    """Remove what killed processes left in a folder; once for each process and folder."""
    for left in Path(home).glob(f"{_PREFIX}*"):
        handle = _lock(left)
        if handle is not None:
            shutil.rmtree(left, ignore_errors=True)
            _close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that locks a folder of this user; None where another process holds it, or there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.getuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    return None


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
