"""A snapshot that has lost data."""

from __future__ import annotations

from ckptctl.errors import CkptctlError, ExitStatus


class SnapshotDamaged(CkptctlError):
    """A snapshot is not what it was when it was taken."""

    code = "E_SNAPSHOT_DAMAGED"
    exit_status = ExitStatus.INTEGRITY
