"""Causes read from logs: those in logs/ are of real failures of criu 4.2.1, without what lies between the errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptctl.criu.causes import CAUSES
from ckptctl.criu.failures import (
    UNKNOWN,
    Action,
    CriuDiskFull,
    CriuDumpFailed,
    CriuRestoreFailed,
    dump_failed,
    explain,
)
from support.tmpfs import fill, tmpfs

LOGS = Path(__file__).parent / "logs"
DUMP, RESTORE = Action.DUMP, Action.RESTORE

REAL = {
    "io-uring": (DUMP, "criu.io-uring", "io_uring"),
    "perf": (DUMP, "criu.profiler", "descriptor 3 of the job is a perf_event"),
    "userfaultfd": (DUMP, "criu.profiler", "userfaultfd"),
    "bpf": (DUMP, "criu.profiler", "bpf-map"),
    "tcp-connected": (DUMP, "criu.tcp-connected", "TCP"),
    "network-lock": (DUMP, "criu.network-lock", "network"),
    "netns": (DUMP, "criu.network-lock", "network"),
    "in-flight": (DUMP, "criu.tcp-in-flight", "connecting"),
    "unix-external": (DUMP, "criu.unix-external", "unix socket"),
    "unix-ext2": (DUMP, "criu.unix-external", "unix socket"),
    "file-locks": (DUMP, "criu.file-locks", "locks"),
    "ghost": (DUMP, "criu.ghost-too-large", "/srv/job/log.deleted that the job holds open has 104857600 bytes"),
    "renamed": (DUMP, "criu.link-remap-off", "/srv/job/log.first"),
    "sysv": (DUMP, "criu.sysv-shm", "process 32585"),
    "traced": (DUMP, "criu.traced", "process 32599"),
    "no-process": (DUMP, "criu.no-process", "process 1910 has gone"),
    "not-session-leader": (DUMP, "criu.not-session-leader", "process 1781"),
    "tty-without-master": (DUMP, "criu.tty-without-master", "/dev/pts/0"),
    "image-folder": (DUMP, "criu.image-folder", "/srv/nothere"),
    "disk-full": (DUMP, "criu.disk-full", "full"),
    "file-size-limit": (DUMP, "criu.file-size-limit", "grow"),
    "capability": (DUMP, "criu.capability", "CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE"),
    "no-sys-admin": (DUMP, "criu.kernel-features", "kerndat_has_nftables_concat"),
    "other-user": (DUMP, "criu.rlimit", "another user"),
    "plugin-bad": (DUMP, "criu.plugin", "x.so"),
    "plugin-dir": (DUMP, "criu.plugin", "/srv/job/nope"),
    "pidns": (DUMP, "criu.nested-namespace", "pid namespace"),
    "vfork": (DUMP, "criu.timeout", "in time"),
    "mount-outside": (DUMP, "criu.mount-outside", "descriptor 3 of the job is /f"),
    "file-size": (RESTORE, "criu.file-size", "/srv/job/x.log has 11 bytes, and had 3"),
    "file-missing": (RESTORE, "criu.file-missing", "/srv/job/x.log"),
    "file-mode": (RESTORE, "criu.file-mode", "/srv/job/x.log has the mode 0100600"),
    "cwd-missing": (RESTORE, "criu.file-missing", "/srv/cw"),
    "exe-missing": (RESTORE, "criu.file-missing", "/srv/mysleep"),
    "build-id": (RESTORE, "criu.library-changed", "/srv/mysleep"),
    "link-remap-gone": (RESTORE, "criu.link-remap-gone", "/srv/job/link_remap.29 is gone"),
    "tcp-close-missing": (RESTORE, "criu.tcp-close-missing", "closed"),
    "address-in-use": (RESTORE, "criu.address-in-use", "port"),
    "pid-taken": (RESTORE, "criu.pid-taken", "5616"),
    "tid-taken": (RESTORE, "criu.thread-id-taken", "thread"),
    "tty-to-inherit": (RESTORE, "criu.tty-to-inherit", "terminal"),
    "image-damaged": (RESTORE, "criu.image-damaged", "files.img"),
    "image-truncated": (RESTORE, "criu.image-damaged", "mm-5787.img"),
    "image-missing": (RESTORE, "criu.image-damaged", "missing or damaged"),
}

# What cannot be brought about on every machine: the texts that criu's sources and users' reports have.
RECORDED = [
    (DUMP, "Unknown shit 600 (anon_inode:[io_uring])", "criu.io-uring"),
    (DUMP, "Unknown shit 600 (anon_inode:[secretmem])", "criu.unsupported-file"),
    (DUMP, "Can't dump file 9 of that type [20666] (chr 195:255)", "criu.device-file"),
    (DUMP, "Can't dump file 9 of that type [600] (anon anon_inode:[hidraw])", "criu.unsupported-file"),
    (DUMP, "handle_device_vma plugin failed: No such file or directory", "criu.device-mapping"),
    (DUMP, "Can't handle non-regular mapping on 1's map 7f0000000000", "criu.device-mapping"),
    (DUMP, "Can't link remap to dev/shm/link_remap.7: File exists", "criu.link-remap-left"),
    (DUMP, "fsnotify: \tHandle 0x20:0x5 can't be resolved", "criu.inotify"),
    (DUMP, "has uprobes vma. Consider using --allow-uprobes", "criu.uprobes"),
    (DUMP, "12 has rseq but kernel lacks get_rseq_conf feature", "criu.rseq"),
    (DUMP, "ioctl(PAGEMAP_SCAN) doesn't support PAGE_IS_GUARD flag. CRIU dump will fail if", "criu.guard-pages"),
    (DUMP, "max xsave frame exceed xsave_struct (11008 4096)", "criu.xsave"),
    (DUMP, "Unable to connect a transport socket: Permission denied", "criu.security-module"),
    (DUMP, "suspending seccomp failed: Operation not permitted", "criu.seccomp"),
    (DUMP, "mnt: 12:./ doesn't have a proper root mount", "criu.mounts"),
    (DUMP, "mnt: Mount 5 (master_id: 3) has unreachable sharing. Try --enable-external-masters.", "criu.mounts"),
    (DUMP, "Can't lookup mount=812 for fd=0 path=/dev/null", "criu.mount-outside"),
    (DUMP, "vdso: Unexpected rt vDSO area bounds", "criu.vdso"),
    (DUMP, "Could not initialize kernel features detection.", "criu.kernel-features"),
    (DUMP, "Corrupted plugin /usr/lib/criu/cuda_plugin.so", "criu.plugin"),
    (DUMP, "Cannot allocate memory", "criu.no-memory"),
    (RESTORE, "mnt: No mapping for 31:/proc/driver/nvidia mountpoint", "criu.mounts"),
    (RESTORE, "Missing required plugin: cuda_plugin", "criu.plugin"),
    (RESTORE, "unix: FATAL: Peer 4711 unresolved for 4712", "criu.unix-unresolved"),
    (RESTORE, "inet: Can't bind inet socket (id 26): Cannot assign requested address", "criu.address-gone"),
    (RESTORE, "Pid 812 do not match expected 700", "criu.pid-taken"),
    (RESTORE, "Thread pid mismatch 8/9", "criu.thread-id-taken"),
    (RESTORE, "File usr/lib/libc.so.6 has bad build-ID (got aa, expected bb)", "criu.library-changed"),
    (RESTORE, "4711 killed by signal 9: Killed", "criu.killed"),
    (RESTORE, "cpu: FPU feature required by image is not supported on host (expected avx512f)", "criu.cpu"),
    (RESTORE, "cpu: CPU xsave size mismatch (saved 11008 on host 2696)", "criu.cpu"),
    (RESTORE, "cpu: CPU instruction capabilities do not match run time", "criu.cpu"),
    (RESTORE, "Can't set FPU registers for 4711: No such device", "criu.xsave"),
    (RESTORE, "Unable to set a monotonic clock offset: Operation not permitted", "criu.clock"),
    (RESTORE, "Unable to drop capability 24: Operation not permitted", "criu.drop-capability"),
    (RESTORE, "This process tree can only be restored in a new pid namespace.", "criu.init-of-namespace"),
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_log(name: str) -> None:
    action, code, part = REAL[name]
    failure = explain((LOGS / f"{name}.log").read_text(), action=action)
    assert failure.code == code
    assert part in failure.summary
    assert failure.remedy
    assert failure.log_lines


def test_every_log_is_tried() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(REAL)


@pytest.mark.parametrize(("action", "text", "code"), RECORDED, ids=[text[:40] for _, text, _ in RECORDED])
def test_recorded_line(action: Action, text: str, code: str) -> None:
    log = f"(00.001) earlier\n(00.012345)   4711: Error (criu/some.c:12): {text}\n(00.02) Error (criu/x.c:1): FAILED.\n"
    assert explain(log, action=action).code == code


def test_the_stderr_of_an_abort() -> None:
    assert explain("BUG at criu/mem.c:46\n", action=DUMP).code == "criu.pages-tracking"


def test_every_cause_is_tried() -> None:
    tried = {code for _, code, _ in REAL.values()} | {code for _, _, code in RECORDED} | {"criu.pages-tracking"}
    assert {cause.code for cause in CAUSES} == tried


def test_a_cause_of_the_other_action_is_none() -> None:
    assert explain((LOGS / "pid-taken.log").read_text(), action=DUMP).code == UNKNOWN


def test_harmless_errors_are_left_out() -> None:
    log = "(00.03) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    failure = explain(log, action=DUMP)
    assert failure.code == UNKNOWN
    assert failure.log_lines == ()


def test_unknown_causes_show_the_last_errors() -> None:
    lines = [f"(00.{i:06}) Error (criu/x.c:{i}): trouble {i}" for i in range(9)]
    failure = explain("\n".join(lines), action=RESTORE)
    assert failure.code == UNKNOWN
    assert "trouble 0" in failure.summary
    assert failure.log_lines == tuple(f"trouble {i}" for i in range(3, 9))


@pytest.mark.parametrize("text", ["", "\0\xff(", "(", "Error (", "{pid} Error (x): {no}"])
def test_any_text_is_explained(text: str) -> None:
    assert explain(text, action=DUMP).code == UNKNOWN


def test_braces_in_a_path_stay_as_they_are() -> None:
    log = "(0.1) Error (c.c:1): File tmp/{weird} has bad size 2 (expect 1)"
    assert "/tmp/{weird} has 2 bytes" in explain(log, action=RESTORE).summary


def test_the_error_carries_the_facts() -> None:
    failure = explain((LOGS / "pid-taken.log").read_text(), action=RESTORE)
    error = CriuRestoreFailed(failure, 1, Path("/logs/restore.log"))
    assert error.details["cause"] == "criu.pid-taken"
    assert error.details["criu_log"] == "/logs/restore.log"
    assert error.details["criu_status"] == "exit status 1"
    assert "5616" in error.message
    assert error.hint == failure.remedy


@pytest.mark.requires_namespaces
@pytest.mark.parametrize(("free", "error"), [(0, CriuDiskFull), (1 << 20, CriuDumpFailed)])
def test_a_log_without_a_reason_on_a_full_disk(free: int, error: type[CriuDumpFailed], tmp_path: Path) -> None:
    """There criu could not write it down."""
    with tmpfs(tmp_path / "small", "size=4m") as folder:
        log = folder / "dump.log"
        log.write_text("(00.000001) Dumping processes\n")
        fill(folder, but=free)
        found = dump_failed(log.read_text(), 1, log)
    assert type(found) is error
    assert found.exit_status == (14 if free == 0 else 7)
