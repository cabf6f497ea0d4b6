"""Files that live in memory, such as those of /dev/shm: their contents are part of the snapshot.

CRIU saves what a deleted file holds, but of a file with a name only the name. For a file on a disk that is enough. One
of a tmpfs is gone after a reboot, and one that a job shares by mapping it has changed as soon as the job goes on.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptctl import files
from ckptctl.host.mounts import devices_in_memory
from ckptctl.preflight.finding import Finding, Level
from ckptctl.process.files import FileKind
from ckptctl.process.outside import Wanted, find_holders
from ckptctl.process.tree import Tree
from ckptctl.store.journal import ReplacedFile
from ckptctl.store.layout import SnapshotFolder

if TYPE_CHECKING:
    from ckptctl.criu.records import Images
    from ckptctl.store.manifest import KeptFile

_PIECE_BYTES: Final = 1 << 20


def bytes_to_keep(tree: Tree) -> int | None:
    """The size of all files in memory that the tree may write to; None where there is none."""
    in_memory = devices_in_memory()
    sizes = {
        file.inode: file.size_bytes
        for _, file in tree.files(FileKind.REGULAR)
        if file.links and file.writable and file.device in in_memory
    }
    for process in tree.processes:
        for mapping in process.mappings:
            if mapping.shared and mapping.links and mapping.device in in_memory:
                sizes[mapping.inode] = mapping.size_bytes or mapping.length_bytes
    return sum(sizes.values()) if sizes else None


def keep(images: Images, folder: Path) -> tuple[KeptFile, ...]:
    """Copy every such file of a tree that stands still into the folder of images. Raises FileTrouble, NoSpace."""
    from ckptctl.store.manifest import KeptFile

    in_memory = devices_in_memory()
    kept = []
    for number, path in enumerate(dict.fromkeys(_writable_paths(images))):
        try:
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode) or info.st_dev not in in_memory:
                continue
            name = f"kept-{number:03d}.bin"
            shutil.copyfile(path, folder / name, follow_symlinks=False)
            (folder / name).chmod(files.PRIVATE_FILE)
        except OSError as error:
            raise files.trouble(error, f"{path} cannot be copied into the snapshot") from error
        kept.append(KeptFile(path, name, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid))
    return tuple(kept)


def plan(kept: Iterable[KeptFile], folder: SnapshotFolder, tails: Path) -> tuple[ReplacedFile, ...]:
    """What must be put in place: files that are missing, or hold something else than at the dump."""
    replaced = []
    for item in kept:
        path, source = Path(item.path), folder.images / item.name
        exists = os.path.lexists(path)
        if exists and _same(path, source):
            continue
        former = tails / f"{item.name}-{path.name}" if exists else None
        replaced.append(ReplacedFile(path, source, item.mode, item.uid, item.gid, former))
    return tuple(replaced)


def findings(replaced: Iterable[ReplacedFile]) -> tuple[Finding, ...]:
    """Blockers: a disk's file is none of ours, and one that somebody has open is not replaced under their hands."""
    items, in_memory = tuple(replaced), devices_in_memory()
    elsewhere = tuple(
        Finding(
            "file-not-in-memory",
            "files",
            Level.ERROR,
            f"{item.path} was in memory (tmpfs) at the dump, and {item.path.parent} is not in memory here.",
            f"Mount a tmpfs at {item.path.parent}.",
        )
        for item in items
        if not _is_in_memory(item.path.parent, in_memory)
    )
    return elsewhere + tuple(
        Finding(
            "file-in-use",
            "files",
            Level.ERROR,
            f"{item.path} must be put back as at the dump, and process {holder.pid} ({holder.comm}) has it open.",
            "End that process first.",
        )
        for item in items
        if item.former is not None
        for holder in find_holders([Wanted(str(item.path))], (), ())
    )


def place(item: ReplacedFile) -> None:
    """Put one file in place, what was there before kept aside. Raises FileTrouble, NoSpace."""
    try:
        if item.former is not None:
            files.make_private_folder(item.former.parent)
            # Complete or not there at all: `take_back` believes it.
            copy = item.former.with_suffix(".part")
            shutil.copyfile(item.path, copy, follow_symlinks=False)
            copy.chmod(files.PRIVATE_FILE)
            copy.rename(item.former)
        _write(item.source, item.path)
        item.path.chmod(item.mode)
        os.chown(item.path, item.uid, item.gid)
    except OSError as error:
        raise files.trouble(error, f"{item.path} cannot be put back as it was at the dump") from error


def take_back(replaced: Iterable[ReplacedFile]) -> None:
    """Undo `place` for each file, whether it was reached or not.

    One that fails does not keep the others from it: the first failure is raised at the end (FileTrouble, NoSpace).
    """
    failures = []
    for item in replaced:
        try:
            if item.former is None:
                item.path.unlink(missing_ok=True)
            elif item.former.exists():
                _write(item.former, item.path)
                item.former.unlink()
        except OSError as error:
            failures.append(files.trouble(error, f"{item.path} cannot be put back as it was before the restore"))
    if failures:
        raise failures[0]


def _writable_paths(images: Images) -> Iterator[str]:
    """Files with a name that the tree has open or mapped for writing, and the links that CRIU made of nameless ones."""
    from ckptctl.criu.records import RemapKind

    for file in images.open_files.regular:
        if file.remap is not None and file.remap.kind is RemapKind.LINKED:
            target = images.open_files.regular_file(file.remap.target_id)
            if target is not None:
                yield target.path
        elif file.remap is None and file.flags & os.O_ACCMODE != os.O_RDONLY:
            yield file.path


def _write(source: Path, target: Path) -> None:
    """Write in place: a file of /dev/shm keeps its inode for whoever knows it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(source, "rb") as reader, open(os.open(target, flags, files.PRIVATE_FILE), "wb") as writer:
        shutil.copyfileobj(reader, writer, _PIECE_BYTES)


def _is_in_memory(folder: Path, in_memory: frozenset[int]) -> bool:
    try:
        return folder.stat().st_dev in in_memory
    except OSError:
        return False


def _same(first: Path, second: Path) -> bool:
    if first.is_symlink() or first.stat().st_size != second.stat().st_size:
        return False
    with open(first, "rb") as one, open(second, "rb") as other:
        while piece := one.read(_PIECE_BYTES):
            if other.read(len(piece)) != piece:
                return False
    return True
