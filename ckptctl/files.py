"""Private folders, atomic writes and durability."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600
RESERVED_BYTES: Final = 4096
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


class FileTrouble(CkptctlError):
    """A file or folder of ckptctl's own could not be read or written."""

    code = "E_FILE"
    exit_status = ExitStatus.STORE


class NoSpace(CkptctlError):
    """The disk is full, or would be."""

    code = "E_NO_SPACE"
    exit_status = ExitStatus.NO_SPACE


def make_private_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Create `path` with its parents; `path` itself, where it is new, is 0700 whatever the umask.

    Raises FileTrouble, also where `path` is a link or no folder.
    """
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        try:
            path.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:
            if not exist_ok or not stat.S_ISDIR(path.lstat().st_mode):
                raise
    except OSError as error:
        raise trouble(error, f"The folder {path} cannot be created") from error


def write_atomically(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` by `data` all at once and durably: a temporary file beside it, fsync, rename, fsync.

    `mode` are the new file's permissions, whatever the umask.

    Raises FileTrouble or NoSpace; the former file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_durably(temporary, data)
        temporary.chmod(mode)
        temporary.rename(path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise trouble(error, f"{path} cannot be written") from error


def write_durably(path: Path, data: bytes) -> None:
    """Create `path` (0600, it must not exist), write and fsync it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def reserve(path: Path) -> None:
    """Have a file of RESERVED_BYTES at `path` for `write_into`, if there is room for it. Nothing is raised."""
    with suppress(OSError, CkptctlError):
        if not path.exists():
            write_atomically(path, b" " * RESERVED_BYTES)


def write_into(reserved: Path, path: Path, data: bytes) -> bool:
    """Create `path` out of a reserved file, which needs no space; what is left of it is filled up with spaces.

    False where that file is gone or too small. Raises OSError.
    """
    if len(data) > RESERVED_BYTES:
        return False
    try:
        descriptor = os.open(reserved, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    with open(descriptor, "wb") as file:
        file.write(data.ljust(RESERVED_BYTES))
        file.flush()
        os.fsync(descriptor)
    reserved.rename(path)
    fsync_folder(path.parent)
    return True


def replace_link(link: Path, target: str) -> None:
    """Let the symbolic link `link` point to `target`, by one rename where there is room.

    Raises FileTrouble and NoSpace.
    """
    temporary = link.with_name(f".{link.name}.{os.urandom(4).hex()}")
    try:
        try:
            temporary.symlink_to(target)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # Where no inodes are left the former link has one. Killed in between, there is none until the next time.
            link.unlink()
            link.symlink_to(target)
        else:
            temporary.rename(link)
        fsync_folder(link.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise trouble(error, f"The link {link} cannot be set") from error


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises FileTrouble."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise trouble(error, f"{path} cannot be removed") from error


def swap(first: Path, second: Path) -> None:
    """Let each of two paths of one file system lead to what the other led to, by one rename. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fsync_file(path: Path) -> None:
    """Bring a file's contents to the disk. Raises OSError, with ELOOP for a link."""
    _fsync(path, os.O_RDONLY | os.O_NOFOLLOW)


def fsync_folder(path: Path) -> None:
    """Bring a folder's entries to the disk. Raises OSError."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def walk_regular_files(folder: Path) -> Iterator[Path]:
    """The regular files below `folder`, sorted by path; links are neither followed nor returned. Raises OSError."""
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        if entry.is_dir(follow_symlinks=False):
            yield from walk_regular_files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def open_beneath(folder: Path, name: str) -> int:
    """Open `folder`/`name` for reading without following any link below `folder`; the descriptor is the caller's.

    Raises FileTrouble for a name that is empty, absolute or leads upwards, and where something is missing or a link.
    """
    parts = Path(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise FileTrouble(f"{name!r} is not a name of a file below {folder}.", hint="The manifest has been altered.")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for depth, part in enumerate(parts, 1):
            kind = os.O_DIRECTORY if depth < len(parts) else 0
            deeper = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
    except OSError as error:
        os.close(descriptor)
        raise trouble(error, f"{folder / name} cannot be opened") from error
    return descriptor


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write on the file system of `folder`. Raises OSError."""
    usage = os.statvfs(folder)
    return usage.f_bavail * usage.f_frsize


def trouble(error: OSError, what: str) -> CkptctlError:
    """The error of ours for an OSError: NoSpace for a full disk or quota, FileTrouble else."""
    message = f"{what}: {error.strerror or error}."
    if error.errno in _FULL:
        return NoSpace(message, hint="Free space there, or choose another place with --store or --to.")
    return FileTrouble(message, hint="Check the permissions and the file system of that path.")


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
