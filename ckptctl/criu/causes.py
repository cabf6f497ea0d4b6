"""The known causes of a failed `criu dump` or `criu restore`, as data. Named groups of a pattern fill the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Action(Enum):
    """What criu was doing."""

    DUMP = "dump"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause: `pattern` is searched in the text of one error line. `summary` says what is the matter, with the
    names from the log; `remedy` what the user does about it, in terms of ckptctl and of how the job is started.
    """

    code: str
    actions: frozenset[Action]
    pattern: re.Pattern[str]
    summary: str
    remedy: str


def _cause(code: str, actions: Iterable[Action], pattern: str, summary: str, remedy: str) -> Cause:
    return Cause(f"criu.{code}", frozenset(actions), re.compile(pattern), summary, remedy)


_DUMP: Final = (Action.DUMP,)
_RESTORE: Final = (Action.RESTORE,)
_BOTH: Final = (Action.DUMP, Action.RESTORE)
_AGAIN: Final = "Run the same command again: it appeared after ckptctl had looked at the job"
_NEWER: Final = "Run scripts/install-criu for a newer criu"

HARMLESS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # Root without CAP_SYS_RESOURCE, as in most containers.
        r"Can't setup RLIMIT_NOFILE for self",
        # Every process without CUDA, when criu's plugin for it is there.
        r"Could not find restore thread for process ID",
    )
)

_FILES: Final = (
    _cause(
        "io-uring",
        _DUMP,
        r"Unknown shit \d+ \(anon_inode:\[io_uring\]\)|send_fds failed \(-22\)|Can't retrieve FDs from socket",
        "the job holds an io_uring, which criu cannot save.",
        "Start the job with `ckptctl run`, which keeps io_uring from it; libraries then use epoll.",
    ),
    _cause(
        "profiler",
        _DUMP,
        r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \(\S+ anon_inode:\[?(?P<what>perf_event|userfaultfd|bpf[\w-]*)",
        "descriptor {fd} of the job is a {what}, which criu cannot save.",
        "Stop the profiler or debugger that is attached to the job, then dump again.",
    ),
    _cause(
        "device-file",
        _DUMP,
        r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \(chr (?P<device>\d+:\d+)",
        "descriptor {fd} of the job is the character device {device}, which criu cannot save.",
        "Close the device before the dump. A GPU's device (195:* and nvidia-uvm) needs driver 570 or newer and `--cuda`.",
    ),
    _cause(
        "unsupported-file",
        _DUMP,
        r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \((?P<what>.*)\)|Unknown shit \d+ \((?P<other>[^)]*)\)",
        "the job holds a kind of file that criu cannot save: {what}{other}.",
        "Close it before the dump, or start the job without what opens it.",
    ),
    _cause(
        "ghost-too-large",
        _DUMP,
        r"Can't dump ghost file (?P<path>.*) of (?P<size>\d+) size, increase limit",
        "the deleted file {path} that the job holds open has {size} bytes, more than allowed for.",
        f"{_AGAIN}; or raise the limit with `--criu-option '--ghost-limit 100G'`.",
    ),
    _cause(
        "link-remap-off",
        _DUMP,
        r"Can't create link remap for (?P<path>\S+?)\.? Use link-remap option",
        "the job holds {path} open, which was unlinked and has another name.",
        f"{_AGAIN}.",
    ),
    _cause(
        "link-remap-left",
        _DUMP,
        r"Can't link remap to (?P<path>.*): File exists",
        "{path} is left from an earlier dump that did not end well.",
        "Delete the files link_remap.* in that folder.",
    ),
    _cause(
        "link-remap-gone",
        _RESTORE,
        r"Can't link (?P<source>\S*link_remap\.\d+) -> (?P<path>.*): No such file",
        "{source} is gone, from which {path} comes back: such files live on the host of the dump, until it restarts.",
        "Restore on the host of the dump, or use a snapshot of a moment at which the file was closed.",
    ),
    _cause(
        "file-size",
        _RESTORE,
        r"File (?P<path>.*) has bad size (?P<now>\d+) \(expect (?P<then>\d+)\)",
        "{path} has {now} bytes, and had {then} when the job was dumped.",
        "Restore with `--files roll-back`, which puts it back and keeps the rest; open logs for appending (>>) in future.",
    ),
    _cause(
        "build-id",
        _RESTORE,
        r"File (?P<path>.*) has bad build-ID",
        "the program or library {path} is another one than at the dump.",
        "Put back the version that the job ran with, for example by undoing the upgrade of the package.",
    ),
    _cause(
        "file-mode",
        _RESTORE,
        r"File (?P<path>.*) has bad mode (?P<now>\w+) \(expect (?P<then>\w+)\)",
        "{path} has the mode {now}, and had {then} at the dump.",
        "Put the mode back with chmod.",
    ),
    _cause(
        "file-missing",
        _RESTORE,
        r"Can't open file (?P<path>.*) on restore: No such file|Can't open (?:dir|root|cwd) (?P<folder>.*): No such file",
        "{path}{folder} is missing, which the job had open.",
        "Put it back where it was, then restore again.",
    ),
    _cause(
        "file-locks",
        _DUMP,
        r"Some file locks are hold by dumping tasks",
        "the job holds file locks.",
        f"{_AGAIN}.",
    ),
    _cause(
        "inotify",
        _DUMP,
        r"fsnotify:.*(?:Can't dump that handle|can't be resolved|Can't find suitable path)",
        "criu cannot tell which path the job watches with inotify.",
        "Stop the watcher (TensorBoard, watchdog), or let it watch a folder on a local file system.",
    ),
)

_SOCKETS: Final = (
    _cause(
        "tcp-connected",
        _DUMP,
        r"Connected TCP socket, consider using",
        "the job has an open TCP connection.",
        f"{_AGAIN}.",
    ),
    _cause(
        "tcp-in-flight",
        _DUMP,
        r"In-flight connection",
        "somebody is just connecting to the job.",
        f"{_AGAIN}.",
    ),
    _cause(
        "tcp-close-missing",
        _RESTORE,
        r"Need to set the --tcp-close options",
        "the job was dumped with its TCP connections closed, and the restore was not told.",
        "Restore with ckptctl, which repeats the options of the dump; remove other `--criu-option`s.",
    ),
    _cause(
        "network-lock",
        _BOTH,
        r"Iptables configuration failed|Locking connection failed using nftables|Error initializing (?:nftables|iptables)",
        "criu could not lock the network of the job while it was frozen: no usable iptables or nftables.",
        "Load the kernel's nf_tables module or install iptables; as root with CAP_NET_ADMIN.",
    ),
    _cause(
        "address-in-use",
        _RESTORE,
        r"Can't bind inet socket.*: Address already in use|Can't bind socket.*Address already in use",
        "a port that the job listens on or is connected from is taken.",
        "End the program that has the port (`ss -tlnp` shows it), then restore again.",
    ),
    _cause(
        "address-gone",
        _RESTORE,
        r"Can't bind inet socket.*: Cannot assign requested address",
        "this machine does not have the IP address that the job's connections used.",
        "Restore on the host of the dump, or give this one that address.",
    ),
    _cause(
        "unix-external",
        _DUMP,
        r"External socket is used\. Consider using --ext-unix-sk",
        "the job is connected by a unix socket to a program that is not dumped with it.",
        "Start the job with its output in files, and close clients of local services (journald, D-Bus, Ray) before the dump.",
    ),
    _cause(
        "unix-half-stream",
        _DUMP,
        r"Can't dump half of stream unix connection\.?(?: name: (?P<name>.*); peer name: (?P<peer>.*))?",
        "the job is connected by a unix socket to a program that is not dumped with it (peer {peer}).",
        "Close that connection before the dump, or dump a process that is a parent of both.",
    ),
    _cause(
        "unix-unresolved",
        _RESTORE,
        r"FATAL: Peer (?P<peer>\d+) unresolved",
        "the other end of a unix socket of the job ({peer}) is not in the snapshot.",
        "Dump the job again when that connection is accepted or closed.",
    ),
)

_TREE: Final = (
    _cause(
        "no-process",
        _DUMP,
        r"Can't (?:open|stat) .*proc.*(?P<pid>\d+)?.*: No such (?:file|process)|No such process|Failed to open pidfd",
        "the process has gone.",
        "Look whether the job still runs.",
    ),
    _cause(
        "not-session-leader",
        _BOTH,
        r"The root process (?P<pid>\d+) is not a session leader",
        "process {pid} was started by a shell and leads no session of its own.",
        "Start the job with `ckptctl run` or `setsid`, or dump it with ckptctl without other `--criu-option`s.",
    ),
    _cause(
        "session-outside",
        _DUMP,
        r"A session leader of (?P<pid>\d+)\(\d+\) is outside",
        "process {pid} belongs to a session whose leader is not dumped.",
        "Dump the leader of the session, or start the job with `ckptctl run`.",
    ),
    _cause(
        "tty-without-master",
        _DUMP,
        r"tty: Found slave peer index (?P<index>\d+) without correspond master peer",
        "the job writes to the terminal /dev/pts/{index}, which another program holds.",
        "Start the job with `ckptctl run`, or with `setsid` and its input and output in files.",
    ),
    _cause(
        "tty-to-inherit",
        _RESTORE,
        r"tty: Don't have tty to inherit session from",
        "the job was started from a terminal, and the restore has none.",
        "Restore it from a terminal.",
    ),
    _cause(
        "pid-taken",
        _RESTORE,
        r"Can't fork for (?P<pid>\d+): File exists|Pid (?P<got>\d+) do not match expected (?P<want>\d+)|Thread pid mismatch",
        "a process number of the job is taken ({pid}{want}), perhaps by a zombie that waits to be reaped.",
        "End that process or the parent that does not reap it, or restore with `--new-pid-namespace`.",
    ),
    _cause(
        "traced",
        _DUMP,
        r"(?:Unable to|Can't) (?:seize|attach to|interrupt)\D*(?P<pid>\d+)?.*: Operation not permitted|SEIZE (?P<other>\d+): can't ptrace",
        "criu may not stop process {pid}{other}: a debugger has it, or rights are missing.",
        "Detach gdb, strace or py-spy from the job; run ckptctl as root.",
    ),
    _cause(
        "timeout",
        _DUMP,
        r"Timeout reached\. Try to interrupt",
        "the job could not be stopped in time.",
        "Dump it at another moment; a process that waits for a disk or NFS cannot be stopped.",
    ),
    _cause(
        "nested-namespace",
        _DUMP,
        r"Can't dump nested (?P<kind>\w+) namespace for (?P<pid>\d+)|(?P<other>\w+) namespace.*nested",
        "process {pid} of the job lives in a {kind}{other} namespace of its own.",
        "Dump the processes inside it on their own, or start them without the namespace.",
    ),
    _cause(
        "init-in-namespace",
        _RESTORE,
        r"This process tree can only be restored in a new pid namespace",
        "the root of the job was process 1 of a PID namespace.",
        "Restore with `--new-pid-namespace`.",
    ),
    _cause(
        "killed",
        _RESTORE,
        r"(?P<pid>\d+) killed by signal (?P<number>\d+): (?P<name>.*)",
        "process {pid} was killed by signal {number} ({name}) while it was brought back.",
        "Look in the kernel's log (dmesg): signal 9 is usually a lack of memory; free some, then restore again.",
    ),
    _cause(
        "mount-outside",
        _DUMP,
        r"Can't lookup mount=(?P<mount>-?\d+) for fd=(?P<fd>-?\d+) path=(?P<path>\S+)",
        "descriptor {fd} of the job is {path} from a mount that it does not see itself.",
        "Start the job with its input from /dev/null opened inside the container (without `docker --init`).",
    ),
    _cause(
        "mounts",
        _BOTH,
        r"doesn't have a proper root mount|has unreachable sharing|No mapping for (?P<mount>\S+) mountpoint",
        "criu cannot make sense of the mounts of the job.",
        "Run ckptctl inside the container of the job; mount GPUs with CDI instead of the NVIDIA runtime.",
    ),
)

_MEMORY: Final = (
    _cause(
        "sysv-shm",
        _DUMP,
        r"Task (?P<pid>\d+) with SysVIPC shmem map @?(?P<address>\S+) doesn't live in IPC ns",
        "process {pid} uses SysV shared memory (at {address}), which belongs to the whole machine.",
        "Start the job with `unshare --ipc`, so that the memory is its own.",
    ),
    _cause(
        "device-mapping",
        _DUMP,
        r"handle_device_vma plugin failed|Can't handle non-regular mapping(?: on (?P<pid>\d+))?",
        "the job has memory of a device mapped (process {pid}).",
        "Dump with `--cuda` for a GPU; other devices must be closed before the dump.",
    ),
    _cause(
        "uprobes",
        _DUMP,
        r"has uprobes vma",
        "a profiler has set uprobes in the job.",
        "Stop the eBPF profiler, then dump again.",
    ),
    _cause(
        "guard-pages",
        _DUMP,
        r"doesn't support PAGE_IS_GUARD|madvise guard",
        "this kernel does not tell criu about the guard pages of thread stacks.",
        "Use Linux 6.16 or newer.",
    ),
    _cause(
        "pre-dump",
        _DUMP,
        r"BUG at criu/mem\.c",
        "criu's memory tracking does not work on this kernel.",
        "Dump without `--criu-option`.",
    ),
    _cause(
        "no-memory",
        _BOTH,
        r"Cannot allocate memory|Can't mmap section|Out of memory",
        "memory ran out.",
        "Free memory, or raise the limit of the container or Slurm job.",
    ),
)

_MACHINE: Final = (
    _cause(
        "vdso", _BOTH, r"Unexpected rt vDSO area bounds|Could not initialize kernel features detection",
        "this criu is too old for the running kernel.", f"{_NEWER}.",
    ),
    _cause(
        "rseq", _DUMP, r"has rseq but kernel lacks get_rseq_conf|rseq:.*can't",
        "the C library of the job uses restartable sequences, which this kernel does not reveal.",
        "Use Linux 5.13 or newer, or start the job with GLIBC_TUNABLES=glibc.pthread.rseq=0.",
    ),
    _cause(
        "xsave", _BOTH, r"max xsave frame exceed xsave_struct|Can't (?:set|obtain) FPU registers",
        "this criu does not know the registers of this processor.", f"{_NEWER}.",
    ),
    _cause(
        "cpu", _RESTORE, r"(?P<what>FPU feature required by image is not supported on host|CPU xsave size mismatch|CPU instruction capabilities do not match run time|CPU capabilit\w+ do not match run time)",
        "this processor differs from that of the dump: {what}.",
        "Restore on a machine with the same kind of processor.",
    ),
    _cause(
        "time-namespace", _RESTORE, r"Unable to set a monotonic clock offset", "the clock of the job cannot be set.", "Run ckptctl as root with CAP_SYS_TIME.",
    ),
    _cause(
        "security-module", _BOTH, r"Unable to connect a transport socket: Permission denied",
        "AppArmor or SELinux keeps criu's code in the job from talking to criu.",
        "Run the container with apparmor=unconfined, or label=disable.",
    ),
    _cause(
        "seccomp", _BOTH, r"suspending seccomp failed: Operation not permitted",
        "criu may not set aside the seccomp filter of the job.", "Run ckptctl as root of the machine (CAP_SYS_ADMIN).",
    ),
    _cause(
        "capability", _BOTH, r"CRIU needs to have the (?P<what>CAP_\w+(?: or the CAP_\w+)?)",
        "rights are missing: {what}.", "Run ckptctl as root.",
    ),
    _cause(
        "rlimit", _DUMP, r"Can't get rlimit \d+: Operation not permitted",
        "criu may not read the limits of a process of another user.", "Run ckptctl as the user of the job, or with CAP_SYS_RESOURCE.",
    ),
    _cause(
        "drop-capability", _RESTORE, r"Unable to drop capability (?P<number>\d+)",
        "criu may not take capability {number} from the job, which it did not have.", "Restore as root.",
    ),
    _cause(
        "plugin", _BOTH, r"Corrupted plugin|undefined symbol: check_and_remove_inventory_plugin|Missing required plugin: (?P<name>\w+)",
        "criu and its plugins are not of one build, or a plugin is missing {name}.", "Run scripts/install-criu; it needs no plugin.",
    ),
    _cause(
        "disk-full", _BOTH, r"No space left on device|Disk quota exceeded",
        "the disk is full.", "Free space there, or choose another place with `--store` or `--to`.",
    ),
    _cause(
        "cancelled", _DUMP, r"File too large", "a file grew larger than is allowed (or the dump was cancelled).", "Raise the limit of file sizes (`ulimit -f`).",
    ),
    _cause(
        "image-folder", _BOTH, r"Couldn't open image dir|Can't open dir (?P<path>\S+): No such",
        "the folder of the images cannot be opened.", "Verify the snapshot with `ckptctl verify`.",
    ),
    _cause(
        "image-damaged", _RESTORE, r"Magic doesn't match for (?P<path>\S+)|Unexpected EOF on (?P<other>\S+)|Failed unpacking object|Image file corrupted|Can't read from image file",
        "an image file is damaged: {path}{other}.", "Verify the snapshot with `ckptctl verify --read-data`; restore another one.",
    ),
    _cause(
        "image-missing", _RESTORE, r"Unable to open (?P<path>\S+\.img): No such file",
        "the image file {path} is missing.", "Verify the snapshot with `ckptctl verify`; restore another one.",
    ),
)  # fmt: skip

CAUSES: Final = (*_FILES, *_SOCKETS, *_TREE, *_MEMORY, *_MACHINE)
