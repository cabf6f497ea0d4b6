"""The manifest on disk: a JSON document with a version, migrated upwards, refused where it is newer or damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store import codec
from ckptctl.store.codec import Misshapen
from ckptctl.store.manifest import Manifest

VERSION: Final = 1
# A manifest of a thousand processes has a few MiB; what is far larger was not written by ckptctl.
_LARGEST_BYTES: Final = 256 << 20

RawManifest = dict[str, object]
Migration = Callable[[RawManifest], RawManifest]
# From the version that is the key to the next one. A migration gets a document that it may change.
MIGRATIONS: Final[Mapping[int, Migration]] = {}


class ManifestDamaged(CkptctlError):
    """A manifest cannot be read, or says what no manifest can say."""

    code = "E_MANIFEST"
    exit_status = ExitStatus.INTEGRITY


class ManifestTooNew(CkptctlError):
    """A manifest was written by a later ckptctl in a form that this one does not know."""

    code = "E_MANIFEST_VERSION"
    exit_status = ExitStatus.INCOMPATIBLE


def to_json(manifest: Manifest) -> bytes:
    """The document that `from_json` reads back as the same manifest.

    Raises ManifestDamaged where it would not: better now than at the restore.
    """
    document = codec.dumps(manifest, version=VERSION)
    from_json(document, "the new manifest")
    return document


def from_json(
    data: bytes, source: str, *, version: int = VERSION, migrations: Mapping[int, Migration] = MIGRATIONS
) -> Manifest:
    """The manifest in `data`; `source` is what messages call it.

    Documents of an older version are taken up to `version` by `migrations`, one step for each.
    Raises ManifestDamaged and ManifestTooNew.
    """
    try:
        raw = codec.loads(data)
        found = _version(raw)
        if found > version:
            raise ManifestTooNew(
                f"{source} has version {found}; this ckptctl reads versions up to {version}.",
                hint=f"Use the ckptctl that took the snapshot ({_author(raw)}) or a later one.",
            )
        for step in range(found, version):
            raw = migrations[step](raw)
        return codec.decode(Manifest, raw)
    except Misshapen as error:
        raise ManifestDamaged(
            f"The manifest {source} is damaged: {error}.",
            hint="The file has been damaged or altered. Use another snapshot, or bring this one back from a copy.",
            details={"where": error.where, "what": str(error)},
        ) from error


def read(path: Path) -> Manifest:
    """The manifest in the file `path`, which must be no link.

    Raises ManifestDamaged (also where there is none) and ManifestTooNew.
    """
    try:
        descriptor = files.open_beneath(path.parent, path.name)
        with open(descriptor, "rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except (OSError, files.FileTrouble) as error:
        problem = error.message if isinstance(error, files.FileTrouble) else f"{path} cannot be read: {error.strerror}."
        raise ManifestDamaged(problem, hint=f"Is {path.parent} a folder that ckptctl dump has made?") from error
    if len(data) > _LARGEST_BYTES:
        raise ManifestDamaged(f"{path} is larger than any manifest.", hint="Is this a snapshot of ckptctl?")
    return from_json(data, os.fspath(path))


def write(path: Path, manifest: Manifest) -> None:
    """Replace the file `path` by the manifest, durably and all at once.

    Raises ManifestDamaged (see `to_json`), files.FileTrouble and files.NoSpace.
    """
    files.write_atomically(path, to_json(manifest))


def describe_manifest() -> Iterator[tuple[str, str, str]]:
    """(path, type, sentence) of every field of the document, for the reference."""
    yield "version", "integer", f"version of this form; {VERSION} is described here"
    yield from codec.describe_fields(Manifest)


def _version(raw: RawManifest) -> int:
    found = raw.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise Misshapen(f"expected a version, found {json.dumps(found)[:40]}", "version")
    return found


def _author(raw: RawManifest) -> str:
    author = raw.get("ckptctl_version")
    return author if isinstance(author, str) else "its version is not known"
