"""Manifests for tests: a complete one, and variations of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from ckptctl.store import manifest_json
from ckptctl.store.layout import SnapshotFolder
from ckptctl.store.manifest import (
    CriuOption,
    CriuRecord,
    CriuTimes,
    Direction,
    End,
    EndKind,
    FileUser,
    HostRecord,
    ImageRecord,
    Images,
    KeptFile,
    ListeningPort,
    Manifest,
    MappedFile,
    Memory,
    OpenFile,
    Phase,
    ProcessRecord,
    ProcessState,
    Progress,
    Timings,
    Transport,
    Tree,
)

SNAPSHOT_ID = "20261120T193000Z-s012000-7f3a"


def make_process(pid: int = 4711, parent_pid: int = 1, **changes: Any) -> ProcessRecord:
    record = ProcessRecord(
        pid=pid,
        host_pid=pid,
        parent_pid=parent_pid,
        start_ticks=123456,
        threads=(pid, pid + 1),
        comm="python",
        cmdline=("python", "-u", "train.py"),
        exe="/usr/bin/python3.11",
        cwd="/home/me/job",
        uid=0,
        gid=0,
        sid=pid,
        pgid=pid,
        state=ProcessState.RUNNING,
        rss_bytes=300 << 20,
        permitted_capabilities=0,
        bounding_capabilities=(1 << 41) - 1,
        environment_names=("HOME", "PATH"),
    )
    return dataclasses.replace(record, **changes)


def make_manifest(**changes: Any) -> Manifest:
    """A manifest with every kind of record in it; `changes` replace fields."""
    manifest = Manifest(
        id=SNAPSHOT_ID,
        run="train",
        created=datetime(2026, 11, 20, 19, 30, 0, 123456, tzinfo=UTC),
        ckptctl_version="0.1.0",
        ended=True,
        host=HostRecord(
            hostname="node-1",
            boot_id="0b1e9c2e-6d43-4f0a-9c39-2d3cf2a7e111",
            kernel="6.18.44",
            arch="x86_64",
            cpu_model="A processor",
            cpu_flags=("avx2", "sse2"),
            memory_bytes=24 << 30,
            page_size_bytes=4096,
        ),
        criu=CriuRecord(
            path="/opt/ckptctl/criu/bin/criu",
            version="4.2.1",
            options=(
                CriuOption("--ghost-limit", "200M", "a deleted file of 100 MiB is open"),
                CriuOption("--network-lock", "skip", "no connection leaves the tree", on_restore=False),
            ),
        ),
        tree=Tree(4711, (make_process(), make_process(4800, 4711, state=ProcessState.STOPPED)), cgroup="/job"),
        memory=Memory(resident_bytes=600 << 20, shared_bytes=64 << 20, image_bytes=5),
        timings=Timings(
            (Phase("freeze", 0.5), Phase("describe", 0.25)), CriuTimes(1000, 500000, 300000, 200000, 75000)
        ),
        images=Images("blake3", (ImageRecord("pages-1.img", 5, blake3(b"pages").hexdigest()),)),
        open_files=(
            OpenFile("/home/me/job/log.txt", (FileUser(4711, 1),), 0o102001, 100, 100, 0o100644, True, False),
            OpenFile("/dev/null", (FileUser(4711, 0),), 0, 0, None, 0o20666, False, False),
        ),
        mapped_files=(MappedFile("/usr/lib/libc.so.6", 1926256, "ab" * 20, 0o100755),),
        kept_files=(KeptFile("/dev/shm/psm_1", "kept-000.bin", 0o600, 0, 0),),
        ends=(End(EndKind.PIPE, "pipe:[123]", 4711, 2, Direction.WRITE, "tee (pid 12)"),),
        ports=(ListeningPort(Transport.TCP, "127.0.0.1", 29500, 4711),),
        progress=Progress(12000, 3, {"loss": 0.125, "worst": float("inf")}, "command line", {"loss": 11500}),
        tags=("before-the-change",),
        note="as told",
    )
    return dataclasses.replace(manifest, **changes)


def put_snapshot(folder: SnapshotFolder, images: dict[str, bytes], **changes: Any) -> Manifest:
    """Write a whole snapshot with these images into `folder`, which must not exist; return its manifest."""
    for path in (folder.path, folder.images, folder.logs):
        path.mkdir(mode=0o700)
    for name, data in images.items():
        _put(folder.images / name, data)
    records = tuple(ImageRecord(name, len(data), blake3(data).hexdigest()) for name, data in sorted(images.items()))
    manifest = make_manifest(images=Images("blake3", records), **changes)
    manifest_json.write(folder.manifest, manifest)
    return manifest


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
