"""Files elsewhere: `s3://`, `gs://`, `memory://` … through fsspec, and pictures on the web.

Credentials come from where the file system's own library looks for them (environment variables,
its configuration files, the machine's role), never from captune's options.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from captune.core import http
from captune.core.errors import CaptuneError, ImageError, missing_extra
from captune.core.limits import MAX_IMAGE_BYTES

SMALL_PICTURE = 32 * 1024 * 1024  # of which as many as are fetched at once may be in memory
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WEB = ("http", "https")
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
    "http": "aiohttp",
    "https": "aiohttp",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
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
    """A source that gets the bytes of a picture from its address; raises `ImageError`."""

    url: str

    def __call__(self, grown: Grown = lambda count: None, stopped: Stopped = lambda: False) -> bytes:
        """`grown` is called with the bytes that have come from the web, and may wait; `stopped` ends it."""
        return fetch(self.url, grown, stopped)


class Turns:
    """Large images from the web are in memory a few at a time: of others, only the first bytes come meanwhile."""

    def __init__(self, count: int, small: int = SMALL_PICTURE) -> None:
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
    """The bytes of a picture; raises `ImageError` with the reason."""
    try:
        return _from_web(url, grown, stopped) if is_web(url) else read(url, grown)
    except CaptuneError as error:
        reason = error.message.removeprefix(f"{url}: ").rstrip(".")
        raise ImageError(url, reason, error.hint, kind="missing") from None


def read(
    url: str, grown: Grown = lambda count: None, *, most: int = MAX_IMAGE_BYTES, small: int = SMALL_PICTURE
) -> bytes:
    """The bytes of a picture in a store, whatever size the store says it has; `grown` is called as by `Fetch`.

    A large one is read in two parts, the second of which may have to wait.
    """
    with explained(url):
        fs, path = filesystem(url)
        data: bytes = _first_part(fs, path, small + 1)
        if len(data) <= small:
            return data
        grown(len(data))
        # From one byte before its end: a store has no part that begins behind an object.
        data = data[:small] + fs.cat_file(path, start=small, end=most + 1)
    if len(data) > most:
        raise CaptuneError(f"{url}: more than {most:,} bytes.", "Is it an image?")
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
        from captune.data.bulk.web_files import opened_on_web

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
        found = fs.glob(path, detail=True)
        return [address(url, name) for name, facts in sorted(found.items()) if facts["type"] == "file"]


def walk(url: str, recursive: bool = True) -> Iterator[str]:
    """Addresses of the files in a folder, its own first, then those of its folders."""
    with explained(url):
        fs, path = filesystem(url)
        if not fs.exists(path):
            raise FileNotFoundError(path)
        folders = [path]
        while folders:
            here = folders.pop()
            inside = sorted(fs.ls(here, detail=True), key=lambda one: one["name"])
            fs.invalidate_cache()  # it would keep every listing of a tree of millions
            # Object stores keep a folder's own mark, an empty object, among its files.
            files = [one["name"] for one in inside if one["type"] == "file" and not one["name"].endswith("/")]
            yield from (address(url, name) for name in files if name.strip("/") != here.strip("/"))
            if recursive:
                folders += [one["name"] for one in reversed(inside) if one["type"] == "directory"]


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
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
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
    return found


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
    found: list[type[Exception]] = [OSError]
    for module, name in _FOREIGN:
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def explain(url: str, error: Exception) -> CaptuneError:
    """What a failure of a file system means, and what to do about it."""
    scheme = url.partition("://")[0].lower()
    said = " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
        return CaptuneError(f"{url}: there are no credentials for {scheme}://.", _credentials(scheme))
    if isinstance(error, FileNotFoundError):
        bucket = "the bucket or folder" if url.endswith("/") else "the file, its folder or its bucket"
        return CaptuneError(f"{url}: {bucket} does not exist.", "Check the address and, for S3, AWS_ENDPOINT_URL.")
    if isinstance(error, PermissionError):
        return CaptuneError(f"{url}: access was refused ({said}).", _credentials(scheme))
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return CaptuneError(f"{url}: no answer in time ({said}).", "Check the network and run the command again.")
    return CaptuneError(f"{url}: {said}.", "Check the address and the network, and run the command again.")


def _credentials(scheme: str) -> str:
    if scheme in ("s3", "s3a"):
        return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to an account that may do this."
    return f"Log in as the library for {scheme}:// expects it, with an account that may do this."


def _from_web(url: str, grown: Grown, stopped: Stopped) -> bytes:
    try:
        return http.get(url, most_bytes=MAX_IMAGE_BYTES, seconds=FETCH_SECONDS, grown=grown, stopped=stopped)
    except http.WebError as error:
        raise web_error(url, error) from None


def web_error(url: str, error: http.WebError) -> CaptuneError:
    """What a failure of a web server means, and what to do about it."""
    if error.status is not None:
        hint = "Check the address." if error.status < 500 else "Try again later."
    else:
        hint = "Is it an image?" if error.large else "Check the address and the network, or try again."
    return CaptuneError(f"{url}: {error}.", hint)
