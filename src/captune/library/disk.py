"""What the disk of a library allows: writing, locks, use by several machines."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# As /proc/self/mounts names file systems that several machines may use at once.
_NETWORK = """
    9p afs beegfs ceph cifs davfs fuse.ceph fuse.davfs2 fuse.glusterfs fuse.rclone fuse.sshfs glusterfs gpfs lustre
    ncpfs nfs nfs4 orangefs smb3 smbfs vboxsf virtiofs
"""
_MOUNTS = "/proc/self/mounts"


def may_write(path: Path) -> bool:
    """Whether this user may write a file, and others beside it."""
    effective = os.access in os.supports_effective_ids
    there = [each for each in (path, path.parent) if each.exists()]
    return all(os.access(each, os.W_OK, effective_ids=effective) for each in there)


def on_network(path: Path, mounts: str = _MOUNTS) -> bool:
    """Whether a file is on a disk of another machine, as far as Linux or a Windows share's name says so.

    SQLite's log (WAL) is for the processes of one machine.
    """
    whole = os.path.realpath(path)
    if whole.startswith("\\\\"):
        return True
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    nearest, kind = "", ""
    for line in lines:
        _, place, name, *_ = line.split(" ")
        for sign in (" ", "\t", "\n", "\\"):
            place = place.replace(f"\\{ord(sign):03o}", sign)
        if len(place) >= len(nearest) and f"{whole}/".startswith(f"{place.rstrip('/')}/"):
            nearest, kind = place, name
    return kind in _NETWORK.split()


def locks_work(folder: Path) -> bool:
    """Whether files in a folder can be locked; on some network disks they cannot."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
