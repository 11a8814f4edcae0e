"""Files elsewhere: `s3://`, `gs://`, `memory://` through fsspec, and archives and tables on the web.

Credentials come from where the file system's own library looks for them (environment variables,
its configuration files, the machine's role), never from captune's options.
"""

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from captune.core import http
from captune.core.errors import CaptuneError, ImageError, missing_extra
from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.files.paths import is_hidden
from captune.core.http import Answer, WebError

SMALL_IMAGE = 32 * 1024 * 1024  # of which as many as are fetched at once may be in memory
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
FETCH_SECONDS = 60.0  # for an image from the web, from the connection to the last byte
# What the libraries behind fsspec raise besides OSError, by their modules: only one that is loaded can raise.
_FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp.client_exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
    ("huggingface_hub.errors", "HfHubHTTPError"),
)
_PACKAGES = {
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
}


Grown = Callable[[int], None]
Stopped = Callable[[], bool]


def is_remote(name: str) -> bool:
    """Whether a name is an address such as `s3://bucket/key` and not a path."""
    return _SCHEME.match(name) is not None


def is_web(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class Fetch:
    """A source that gets the bytes of an image from its address; raises `ImageError`."""

    url: str

    def __call__(self, grown: Grown = lambda count: None, stopped: Stopped = lambda: False) -> bytes:
        """`grown` is called with the bytes that have come from the web, and may wait; `stopped` ends it."""
        return fetch(self.url, grown, stopped)


class Turns:
    """Large images from the web are in memory a few at a time: of others, only the first bytes come meanwhile."""

    def __init__(self, count: int, small: int = SMALL_IMAGE) -> None:
        self._places, self._small = threading.BoundedSemaphore(count), small

    @contextmanager
    def one(self) -> Iterator[Grown]:
        """What a fetch calls as its image grows; one that has grown large has its turn until the block ends."""
        large = False

        def grown(count: int) -> None:
            nonlocal large
            if not large and count > self._small:
                self._places.acquire()
                large = True

        try:
            yield grown
        finally:
            if large:
                self._places.release()


def fetch(url: str, grown: Grown = lambda count: None, stopped: Stopped = lambda: False) -> bytes:
    """The bytes of an image; raises `ImageError` with the reason."""
    try:
        return _from_web(url, grown, stopped) if is_web(url) else read(url, grown)
    except CaptuneError as error:
        reason = error.message.removeprefix(f"{url}: ").rstrip(".")
        raise ImageError(url, reason, error.hint, kind="missing") from None


def read(
    url: str, grown: Grown = lambda count: None, *, max_bytes: int = MAX_IMAGE_BYTES, small: int = SMALL_IMAGE
) -> bytes:
    """The bytes of an image in a store, whatever size the store says it has; `grown` is called as by `Fetch`.

    A large one is read in two parts, the second of which may have to wait.
    """
    with explained(url):
        fs, path = filesystem(url)
        data: bytes = _first_part(fs, path, small + 1)
        if len(data) <= small:
            return data
        grown(len(data))
        # From one byte before its end: a store has no part that begins behind an object.
        data = data[:small] + fs.cat_file(path, start=small, end=max_bytes + 1)
    if len(data) > max_bytes:
        raise CaptuneError(f"{url}: more than {max_bytes:,} bytes.", "Is it an image?")
    return data


def _first_part(fs: Any, path: str, count: int) -> bytes:
    try:
        data: bytes = fs.cat_file(path, start=0, end=count)
    except OSError:
        if fs.info(path).get("size") != 0:
            raise
        return b""  # no part of an empty object can be asked for
    return data


@contextmanager
def opened(url: str, *, stream: bool = False) -> Iterator[Any]:
    """A file to read and seek in, read ahead in large steps; as a `stream`, to read from its beginning alone."""
    if is_web(url):
        with opened_on_web(url, stream=stream) as file:
            yield file
        return
    with explained(url):
        fs, path = filesystem(url)
        with fs.open(path, "rb", block_size=0 if stream else 8 * 1024 * 1024) as file:
            yield file


def exists(url: str) -> bool:
    with explained(url):
        fs, path = filesystem(url)
        return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    with explained(url):
        fs, path = filesystem(url)
        return bool(fs.isdir(path))


def matching(url: str) -> list[str]:
    """Addresses of the files that match a pattern, sorted."""
    with explained(url):
        fs, path = filesystem(url)
        matches = fs.glob(path, detail=True)
        return [address(url, name) for name, facts in sorted(matches.items()) if facts["type"] == "file"]


def walk(url: str, recursive: bool = True) -> Iterator[str]:
    """Addresses of the files in a folder, its own first, then those of its folders; hidden ones are left out."""
    with explained(url):
        fs, path = filesystem(url)
        if not fs.exists(path):
            raise FileNotFoundError(path)
        folders = [path]
        while folders:
            here = folders.pop()
            inside = sorted(fs.ls(here, detail=True), key=lambda one: one["name"])
            fs.invalidate_cache()  # it would keep every listing of a tree of millions
            visible = [one for one in inside if not is_hidden(one["name"].rstrip("/").rpartition("/")[2])]
            # Object stores keep a folder's own mark, an empty object, among its files.
            files = [one["name"] for one in visible if one["type"] == "file" and not one["name"].endswith("/")]
            yield from (address(url, name) for name in files if name.strip("/") != here.strip("/"))
            if recursive:
                folders += [one["name"] for one in reversed(visible) if one["type"] == "directory"]


def address(url: str, path: str) -> str:
    """The address of a path on the file system that `url` is on."""
    scheme = url.partition("://")[0]
    return f"{scheme}://{path if scheme in ('file', 'local') else path.lstrip('/')}"


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path on it."""
    scheme = url.partition("://")[0].lower()
    try:
        import fsspec
    except ImportError:
        raise missing_extra("fsspec", "remote", f"Reading {scheme}:// addresses") from None
    try:
        result: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        if package is None:
            raise missing_extra(error.name or "s3fs", "remote", f"Reading {scheme}:// addresses") from None
        raise CaptuneError(
            f"{scheme}:// addresses need the package '{package}', which is not installed.", f"pip install {package}"
        ) from None
    except ValueError:
        raise CaptuneError(
            f"{url}: there is no file system named '{scheme}'.",
            "Known are s3, gs, az, https, memory and fsspec's others.",
        ) from None
    return result


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Failures of a file system in the user's words, with the next step."""
    try:
        yield
    except CaptuneError:
        raise
    except failures() as error:
        raise explain(url, error) from error


def failures() -> tuple[type[Exception], ...]:
    """What file systems that are in use raise."""
    types: list[type[Exception]] = [OSError]
    for module, name in _FOREIGN:
        if module in sys.modules:
            types.append(getattr(sys.modules[module], name))
    return tuple(types)


def explain(url: str, error: Exception) -> CaptuneError:
    """What a failure of a file system means, and what to do about it."""
    scheme = url.partition("://")[0].lower()
    why = " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
        return CaptuneError(f"{url}: there are no credentials for {scheme}://.", _credentials(scheme))
    if isinstance(error, FileNotFoundError):
        bucket = "the bucket or folder" if url.endswith("/") else "the file, its folder or its bucket"
        return CaptuneError(f"{url}: {bucket} does not exist.", "Check the address and, for S3, AWS_ENDPOINT_URL.")
    if isinstance(error, PermissionError):
        return CaptuneError(f"{url}: access was refused ({why}).", _credentials(scheme))
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return CaptuneError(f"{url}: no answer in time ({why}).", "Check the network and run the command again.")
    return CaptuneError(f"{url}: {why}.", "Check the address and the network, and run the command again.")


def _credentials(scheme: str) -> str:
    if scheme in ("s3", "s3a"):
        return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to an account that may do this."
    return f"Log in as the library for {scheme}:// expects it, with an account that may do this."


def _from_web(url: str, grown: Grown, stopped: Stopped) -> bytes:
    try:
        return http.get(url, max_bytes=MAX_IMAGE_BYTES, seconds=FETCH_SECONDS, grown=grown, stopped=stopped)
    except http.WebError as error:
        raise web_error(url, error) from None


def web_error(url: str, error: http.WebError) -> CaptuneError:
    """What a failure of a web server means, and what to do about it."""
    if error.status is not None:
        hint = "Check the address." if error.status < 500 else "Try again later."
    else:
        hint = "Is it an image?" if error.large else "Check the address and the network, or try again."
    return CaptuneError(f"{url}: {error}.", hint)


STEP_SECONDS = 60.0  # for each step, which a slow line of 140 kB/s can do as well
STEP_BYTES = 8 * 1024 * 1024
LARGEST_STREAM = 100 * 10**9  # bytes: a server could go on for ever
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@contextmanager
def opened_on_web(url: str, *, stream: bool, seconds: float = STEP_SECONDS) -> Iterator[Any]:
    """A file at an address to read; not a `stream`: to seek in as well, from a server that gives ranges.

    Raises `CaptuneError`, also from reads within the block.
    """
    try:
        if stream:
            with http.opened(url, seconds=seconds) as answer:
                answer.check(200)
                yield io.BufferedReader(_Stream(answer), STEP_BYTES)
        else:
            yield io.BufferedReader(_Ranges(url, seconds), STEP_BYTES)
    except WebError as error:
        raise web_error(url, error) from None


class _Stream(io.RawIOBase):
    """The body of an answer; a server has to give each step in time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._step = self._came = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._step <= 0:
            self._answer.clock.restart()
            self._step = STEP_BYTES
        block = self._answer.read(min(len(buffer), self._step, io.DEFAULT_BUFFER_SIZE * 8))
        buffer[: len(block)] = block
        self._step -= len(block)
        self._came += len(block)
        if self._came > LARGEST_STREAM:
            raise WebError(f"more than {LARGEST_STREAM:,} bytes", large=True)
        return len(block)


class _Ranges(io.RawIOBase):
    """A file of which parts are got as they are needed; each is what was asked for, of one and the same file."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = url, seconds
        self._at = 0
        self._tag = ""
        self._size = self._get(0, 1)[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at, STEP_BYTES)
        if count <= 0:
            return 0
        data, size = self._get(self._at, count)
        if size != self._size:
            raise WebError("the file changed while it was read")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _get(self, start: int, count: int) -> tuple[bytes, int]:
        """`count` bytes of the file, and how many it has."""
        headers = {"Range": f"bytes={start}-{start + count - 1}", **({"If-Range": self._tag} if self._tag else {})}
        with http.opened(self._url, seconds=self._seconds, headers=headers) as answer:
            if answer.status == 200 and not self._tag:
                raise WebError("the server gives whole files alone, no parts of them; download it first")
            answer.check(206)
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if match is None or int(match[1]) != start or not start <= int(match[2]) < start + count:
                raise WebError("the server gave another part of the file than was asked for")
            tag = answer.headers.get("ETag", "")
            self._tag = self._tag or (tag if tag.startswith('"') else "")
            end = int(match[2]) + 1
            data = bytearray()
            while len(data) < end - start and (block := answer.read(end - start - len(data))):
                data += block
            if len(data) < end - start:
                raise WebError(f"the connection broke after {len(data):,} of {end - start} bytes")
            return bytes(data), int(match[3])
