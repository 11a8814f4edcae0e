"""Folders as containers: layers by overlayfs, commands in them by chroot and namespaces. Linux, as root.

Every mount is made in the mount namespace of the calling process, which `alone` makes its own: whatever happens, all
of them vanish with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ALONE = "CAPTUNE_REHEARSAL_ALONE"


def alone() -> None:
    """Go on as the same command in a mount namespace of its own."""
    if os.environ.get(_ALONE) != "1":
        os.environ[_ALONE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


@dataclass(frozen=True)
class Root:
    """A root file system: `layers`, the lowest first, seen as one tree at `path`; changes go to the last layer."""

    path: Path
    layers: tuple[Path, ...]

    @staticmethod
    def over(layers: Sequence[Path], upper: Path) -> Root:
        """Mount `layers` with the new layer `upper` above them, and what every container finds in its tree."""
        path, work = upper.with_name(f"{upper.name}.root"), upper.with_name(f"{upper.name}.work")
        for folder in (upper, path, work):
            folder.mkdir(parents=True)
        lower = ":".join(str(layer) for layer in reversed(layers))
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", path)
        root = Root(path, (*layers, upper))
        mount("--rbind", "/dev", root.inside("/dev"))
        mount("-t", "proc", "proc", root.inside("/proc"))
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            if Path(name).exists():
                root.see(name)
        return root

    def inside(self, path: str) -> Path:
        return self.path / path.lstrip("/")

    def see(self, source: str | Path, target: str | None = None, *, writable: bool = False) -> Path:
        """Bind a file or folder of this machine into the tree, where it is or at `target`."""
        place = self.inside(target or str(source))
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mount("--bind", source, place)
        if not writable:
            mount("-o", "remount,bind,ro", place)
        return place

    def command(self, words: Sequence[str], environment: Mapping[str, str], folder: str, user: str = "") -> list[str]:
        """`words` as a command of this machine that runs in the tree; with `user` (UID:GID) without any privilege."""
        less = []
        if user:
            uid, _, gid = user.partition(":")
            less = ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", "--no-new-privs"]
            less += ["--bounding-set=-all", "--inh-caps=-all"]
        pairs = [f"{name}={value}" for name, value in environment.items()]
        return ["chroot", str(self.path), *less, "env", "-i", f"--chdir={folder}", *pairs, *words]


@dataclass
class Container:
    """A process with the tree as its own: process 1, no network but itself, the root read-only but for volumes."""

    root: Root
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    user: str
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        tree = self.root.path
        prepare = (
            f"ip link set lo up && mount -o remount,bind,ro {tree} && mount -t tmpfs tmpfs {tree}/tmp"
            f" && mount -t proc proc {tree}/proc && exec"
        )
        inner = self.root.command(self.command, self.environment, self.folder, self.user)
        outer = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*outer, "sh", "-c", f'{prepare} "$@"', "sh", *inner], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.pid = self._first()

    def _first(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + 10
        while time.monotonic() < end and self.process.poll() is None:
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(0.01)
        raise RuntimeError(f"The container did not start: {self.log.read_text()}")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command in the same container, as `docker exec` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid"]
        inner = self.root.command(words, self.environment, self.folder, self.user)
        return subprocess.run([*enter, *inner], capture_output=True, text=True, check=False)

    def most_memory(self) -> int:
        """Bytes that process 1 held at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    def stop(self, number: int, seconds: float) -> int | None:
        """Send process 1 a signal; its exit code, or None (and it is killed) where it takes longer."""
        os.kill(self.pid, number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
