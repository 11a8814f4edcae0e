"""A site as a folder: its pages, and the files that the addresses of images mean."""

import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from captune.core.errors import CaptuneError
from captune.core.files.paths import Boundary, is_hidden
from captune.pages.elements import template_end

HTML = frozenset(
    (".html", ".htm", ".xhtml", ".shtml", ".php", ".erb", ".njk", ".liquid", ".j2", ".jinja", ".jinja2", ".gohtml")
)
MARKDOWN = frozenset((".md", ".markdown", ".mdx"))
# Files that say that a folder is a site's project, with the folder that its program builds into.
_PROJECTS = {
    "mkdocs.yml": "site", "mkdocs.yaml": "site", "hugo.toml": "public", "hugo.yaml": "public", "hugo.yml": "public",
    "hugo.json": "public", "_config.yml": "_site", "docusaurus.config.js": "build", "docusaurus.config.ts": "build",
    "eleventy.config.js": "_site", ".eleventy.js": "_site", "astro.config.mjs": "dist", "conf.py": "_build",
    "book.toml": "book", "config.toml": "public",
}  # fmt: skip
# Folders below a project whose files are served from the site's root.
_ROOTS = ("static", "public", "docs", "assets", "source", "src", "content", "app", "src/assets", "src/static")
_LANGUAGE = re.compile(
    r"^\s*(?:language|languageCode|defaultContentLanguage|lang)\s*[:=]\s*['\"]?([A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})?)\b",
    re.MULTILINE,
)
_LEVELS = 4
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_QUOTED = re.compile(r"(['\"])([^'\"]+\.[A-Za-z0-9]{3,4})\1")


@dataclass(frozen=True)
class Location:
    """Where the image of a page is: its `file`, or the `reason` why there is none to open.

    Reasons: `remote`, `data` (in the address itself), `svg`, `template` (an address that a template makes), `outside`
    (of the site), `not found`, `no address`.
    """

    file: Path | None
    reason: str = ""


class Site:
    """A folder of pages. `root` is a folder that addresses with a slash before them begin at, besides the usual ones.

    Raises `CaptuneError` where there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, root: str | None = None, exclude: Iterable[str] = ()) -> None:
        self.folder = Path(folder)
        self._exclude = tuple(exclude)
        for path in (self.folder, *([Path(root)] if root else [])):
            if not path.exists():
                raise CaptuneError(f"There is no folder {path}.", "Name the folder of the site, or a page.")
        top = self.folder if self.folder.is_dir() else self.folder.parent
        self.project, self._config = _project(top)
        own = [Path(root)] if root else []
        self._served = [*own, top, self.project, *(self.project / name for name in _ROOTS)]
        self._boundary = Boundary([*own, top, self.project])

    @property
    def language(self) -> str | None:
        """The language that the site's configuration names."""
        if self._config is None:
            return None
        found = _LANGUAGE.search(self._config.read_text("utf-8", "replace"))
        return found[1] if found else None

    def pages(self) -> Iterator[Path]:
        """The files of pages in their order: not hidden ones, nor what is built, installed or excluded."""
        if self.folder.is_file():
            yield self.folder
            return
        built = {self.project / _PROJECTS[self._config.name]} if self._config else set()
        for folder, names, files in os.walk(self.folder):
            here = Path(folder)
            names[:] = sorted(
                name
                for name in names
                if not is_hidden(name) and name != "node_modules" and here / name not in built
                and not self._is_excluded(here / name)
            )  # fmt: skip
            for name in sorted(files):
                path = here / name
                if is_page(name) and not (is_hidden(name) or path.is_symlink() or self._is_excluded(path)):
                    yield path

    def _is_excluded(self, path: Path) -> bool:
        name = path.relative_to(self.folder).as_posix()
        return any(fnmatch.fnmatch(name, pattern.rstrip("/")) for pattern in self._exclude)

    def holds(self, path: Path) -> bool:
        """Whether a file is inside of the site, its links followed."""
        return self._boundary.holds(path)

    def locate(self, page: Path, addresses: Iterable[str], base: str = "") -> Location:
        """The file that one of the addresses on a page means; `base` is the page's `<base href>`."""
        reasons = []
        for address in addresses:
            location = self._locate(page, address, base)
            if location.file is not None:
                return location
            reasons.append(location.reason)
        for reason in ("svg", "not found", "outside", "template", "remote", "data"):
            if reason in reasons:
                return Location(None, reason)
        return Location(None, "no address")

    def _locate(self, page: Path, address: str, base: str) -> Location:
        address = _without_template(address.strip())
        if not address:
            return Location(None, "template")
        if address.startswith("data:"):
            return Location(None, "data")
        if address.startswith("//") or _SCHEME.match(address):
            return Location(None, "remote")
        path = re.split(r"[?#]", address, maxsplit=1)[0]
        if base and not base.startswith("//") and not _SCHEME.match(base) and not path.startswith("/"):
            path = f"{base.rpartition('/')[0]}/{path}"
        outside = False
        for name in dict.fromkeys(unquote(each) for each in (path, address)):
            for form in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
                for candidate in self._candidates(page, form):
                    if "\0" in form or not candidate.is_file():
                        continue
                    if not self._boundary.holds(candidate):
                        outside = True
                        continue
                    if candidate.suffix.lower() in (".svg", ".svgz"):
                        return Location(None, "svg")
                    return Location(candidate)
        if PurePosixPath(path).suffix.lower() in (".svg", ".svgz"):
            return Location(None, "svg")
        return Location(None, "outside" if outside else "not found")

    def _candidates(self, page: Path, name: str) -> Iterator[Path]:
        """Files that a name may mean, with `..` taken from the name alone, as browsers do."""
        if not name.startswith("/"):
            # Programs that give each page a folder of its own: `guide.md` is served as `guide/`.
            for folder in (page.parent, page.parent / page.stem):
                yield Path(os.path.normpath(folder / name))
        below = re.sub(r"^(?:\.{0,2}/)+", "", name)  # nothing is above the root
        for served in self._served:
            yield Path(os.path.normpath(served / below))


def is_page(name: str) -> bool:
    """Whether a file's name is one of HTML or of Markdown."""
    return os.path.splitext(name)[1].lower() in HTML | MARKDOWN


def is_markdown(path: Path) -> bool:
    return path.suffix.lower() in MARKDOWN


def _project(folder: Path) -> tuple[Path, Path | None]:
    """The folder of the project that a site belongs to, with its configuration; the folder itself where none is known.

    It is looked for above the folder too, but not above a repository.
    """
    here = Path(os.path.abspath(folder))
    for level, place in enumerate((here, *here.parents)):
        for name in _PROJECTS:
            if (place / name).is_file():
                return (folder if not level else place), place / name
        if level == _LEVELS or (place / ".git").exists():
            break
    return folder, None


def _without_template(address: str) -> str:
    """An address whose code is understood: before a path, or around one path in quotes; "" for any other.

    The code is a template's or, in braces, JSX: `{require('./a.png').default}`. Docusaurus' `@site` is the project.
    """
    if address.startswith("{") and address.endswith("}") and address[1:2] not in ("{", "%"):
        quoted = [found[2] for found in _QUOTED.finditer(address)]
        address = quoted[0] if len(quoted) == 1 else ""
    if not any(sign in address for sign in ("{{", "{%", "<?", "<%")):
        return re.sub("^@site/", "/", address)
    source = address.encode()
    position = 0
    code = []
    while (end := template_end(source, position)) is not None:
        code.append(source[position:end].decode())
        position = end
    rest = source[position:].decode()
    if not code or any(sign in rest for sign in ("{{", "{%", "<?", "<%")):
        return ""
    if rest:
        return rest if rest.startswith("/") else ""
    quoted = [found[2] for each in code for found in _QUOTED.finditer(each)]
    return f"/{quoted[0].lstrip('/')}" if len(quoted) == 1 else ""
