"""The known causes of a failed `criu dump` or `criu restore`, as data.

Each row: code, when, patterns (searched in one line of the log; a line break in one reaches into the next), what is
the matter, what to do. Named groups of the pattern that matched fill both texts; a name that it lacks becomes empty.
Patterns are compiled when a log is read, which most runs never do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Action(Enum):
    """What criu was doing."""

    DUMP = "dump"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Cause:
    """One row: `summary` says what is the matter, with names from the log; `remedy` what the user does about it."""

    code: str
    actions: frozenset[Action]
    patterns: tuple[str, ...]
    summary: str
    remedy: str


_DUMP: Final = frozenset({Action.DUMP})
_RESTORE: Final = frozenset({Action.RESTORE})
_BOTH: Final = _DUMP | _RESTORE
_AGAIN: Final = "Run the same command again: it came up after ckptctl had looked at the job"

# fmt: off
_ROWS: Final[tuple[tuple[str, frozenset[Action], tuple[str, ...], str, str], ...]] = (
    # --- what processes hold ---
    ("io-uring", _DUMP, (r"Unknown shit \d+ \(anon_inode:\[io_uring\]\)", r"send_fds failed \(-22\)"),
     "the job holds an io_uring, which criu cannot save.",
     "Start the job with examples/without_io_uring.py, which keeps io_uring from it; libraries then use epoll."),
    ("profiler", _DUMP,
     (r"Can't dump file (?P<fd>\d+) of that type .* anon_inode:\[?(?P<what>perf_event|userfaultfd|bpf[\w-]*)",),
     "descriptor {fd} of the job is a {what}, which criu cannot save.",
     "Stop the profiler or whatever else opened it, then dump again."),
    ("device-file", _DUMP, (r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \(chr (?P<device>\d+:\d+)",),
     "descriptor {fd} of the job is the character device {device}, which criu cannot save.",
     "Close the device before the dump. The devices of a GPU need NVIDIA's driver 570 or newer."),
    ("unsupported-file", _DUMP,
     (r"Can't dump file (?P<fd>\d+) of that type \[\d+\] \((?P<what>[^)]*)\)", r"Unknown shit \d+ \((?P<what>[^)]*)\)"),
     "the job holds a kind of file that criu cannot save: {what}.",
     "Close it before the dump, or start the job without what opens it."),
    ("ghost-too-large", _DUMP, (r"Can't dump ghost file (?P<path>.*) of (?P<size>\d+) size, increase limit",),
     "the deleted file {path} that the job holds open has {size} bytes, more than was allowed for.",
     f"{_AGAIN}; or raise the limit with `--criu-option`."),
    ("link-remap-off", _DUMP, (r"Can't create link remap for (?P<path>.*)\. Use link-remap option",),
     "the job holds {path} open, which has another name by now or none.", f"{_AGAIN}."),
    ("link-remap-left", _DUMP, (r"Can't link remap to (?P<path>.*): File exists",),
     "{path} is left over from an earlier dump that did not end well.",
     "Delete the files link_remap.* in that folder, then dump again."),
    ("link-remap-gone", _RESTORE, (r"Can't link (?P<source>.*link_remap\.\d+) -> (?P<path>.*): No such file",),
     "/{source} is gone, from which {path} is made again. It lies on the host of the dump only.",
     "Restore on the host of the dump; after it was restarted, use a snapshot of another moment."),
    ("library-changed", _RESTORE,
     (r"File (?P<path>.*) has bad (?:size|build-ID|mode).*\n`- Can't open vma", r"File (?P<path>.*) has bad build-ID"),
     "the program or library {path} is another one than at the dump.",
     "Put back the version that the job ran with, for example by undoing the upgrade of its package."),
    ("file-size", _RESTORE, (r"File (?P<path>.*) has bad size (?P<now>\d+) \(expect (?P<then>\d+)\)",),
     "{path} has {now} bytes, and had {then} when the job was dumped.",
     "Stop whoever writes to it (kill -STOP), or use `--files roll-back`; open logs for appending (>>) in future."),
    ("file-mode", _RESTORE, (r"File (?P<path>.*) has bad mode (?P<now>\w+) \(expect (?P<then>\w+)\)",),
     "{path} has the mode {now}, and had {then} when the job was dumped.", "Put the mode back with chmod."),
    ("file-missing", _RESTORE, (r"Can't open file (?P<path>.*) on restore: (?P<why>.*)",),
     "{path}, which the job had open, cannot be opened: {why}.", "Put it back where it was, then restore again."),
    ("file-locks", _DUMP, (r"Some file locks are hold by dumping tasks",), "the job holds file locks.", f"{_AGAIN}."),
    ("inotify", _DUMP, (r"fsnotify:.*(?:Can't dump that handle|can't be resolved|Can't find suitable path)",),
     "criu cannot tell which path the job watches with inotify.",
     "Stop the watcher (TensorBoard, watchdog), or let it watch a folder on a local file system."),
    ("mount-outside", _DUMP, (r"Can't lookup mount=\S+ for fd=(?P<fd>-?\d+) path=(?P<path>.*)",),
     "descriptor {fd} of the job is {path} on a mount that is gone or that it cannot see itself.",
     "Give the job files of its own mounts: in a container, start it without `docker --init` and with </dev/null."),
    # --- sockets ---
    ("tcp-connected", _DUMP, (r"Connected TCP socket, consider using",),
     "the job has an open TCP connection.", f"{_AGAIN}."),
    ("tcp-in-flight", _DUMP, (r"In-flight connection \(",), "somebody is just connecting to the job.", f"{_AGAIN}."),
    ("tcp-close-missing", _RESTORE, (r"Need to set the --tcp-close options",),
     "the job was dumped with its TCP connections closed, and the restore was not told so.",
     "Restore it with `ckptctl restore`, which repeats the options of the dump."),
    ("network-lock", _BOTH, (r"Iptables configuration failed", r"Locking connection failed using nftables",
                             r"Locking network failed", r"execvp\(\"ip6?tables\S*\", \.\.\.\) failed"),
     "criu could not lock the network of the job while it was frozen.",
     "Run ckptctl as root (CAP_NET_ADMIN) on a kernel with nf_tables; or install iptables."),
    ("address-in-use", _RESTORE, (r"Can't bind inet socket.*: Address already in use",),
     "a port that the job listens on or is connected from is taken.",
     "End the program that has the port (`ss -tlnp` lists them), then restore again."),
    ("address-gone", _RESTORE, (r"Can't bind inet socket.*: Cannot assign requested address",),
     "this machine lacks an IP address that the job's connections used.",
     "Restore on the host of the dump, or give this machine the address."),
    ("unix-external", _DUMP, (r"External socket is used\. Consider using --ext-unix-sk",
                              r"Can't dump half of stream unix connection"),
     "the job is connected by a unix socket to a program that is not dumped with it.",
     "Close the connection before the dump (journald, D-Bus, Ray, trackers), or dump a parent of both programs."),
    ("unix-unresolved", _RESTORE, (r"FATAL: Peer (?P<peer>\d+) unresolved",),
     "the other end of a unix socket of the job (inode {peer}) is not in the snapshot.",
     "Use a snapshot of a moment at which that connection was accepted or closed."),
    # --- the tree ---
    ("no-process", _DUMP, (r"Unable to interrupt task: (?P<pid>\d+) \(No such process\)",),
     "process {pid} has gone.", "Look whether the job still runs."),
    ("traced", _DUMP, (r"Unable to interrupt task: (?P<pid>\d+) \(Operation not permitted\)",),
     "criu may not stop process {pid}: a debugger has it, its main thread has ended, or rights are missing.",
     "Detach gdb, strace or py-spy from the job; run ckptctl as root (CAP_SYS_PTRACE)."),
    ("not-session-leader", _BOTH, (r"The root process (?P<pid>\d+) is not a session leader",),
     "process {pid} was started by a shell and leads no session of its own.",
     "Dump it with ckptctl's own choice of options; or start it with `setsid`."),
    ("tty-without-master", _DUMP, (r"Found slave peer index (?P<index>\d+) without correspond master peer",),
     "the job has the terminal /dev/pts/{index} open, which belongs to a program outside.",
     "Start the job with `setsid`, its input from /dev/null and its output in files."),
    ("tty-to-inherit", _RESTORE, (r"Don't have tty to inherit session from",),
     "the job was started from a terminal, and there is none here.", "Restore it from a terminal."),
    ("pid-taken", _RESTORE,
     (r"Can't fork for (?P<pid>\d+): File exists", r"Pid \d+ do not match expected (?P<pid>\d+)"),
     "the process number {pid} is taken: by a process, a zombie, or a session that still has members.",
     "Wait until it is free or end what has it, or restore with `--new-pid-namespace`."),
    ("thread-id-taken", _RESTORE, (r"Unable to create a thread: -17", r"Thread pid mismatch"),
     "the number of one of the job's threads is taken by another process.",
     "Restore again later, or with `--new-pid-namespace`."),
    ("timeout", _DUMP, (r"Timeout reached\. Try to interrupt",),
     "a process of the job could not be stopped in time: it waits in the kernel (state D).",
     "Dump again later; waiting for a disk, NFS or a child of vfork(2) cannot be interrupted."),
    ("nested-namespace", _DUMP, (r"Can't dump nested (?P<kind>\w+) namespace for (?P<pid>\d+)",),
     "process {pid} of the job lives in a {kind} namespace of its own.",
     "Dump the processes inside it on their own, or start them without the namespace."),
    ("init-of-namespace", _RESTORE, (r"This process tree can only be restored in a new pid namespace",),
     "the root of the job was process 1 of a PID namespace.",
     "Dump its child instead; a container as a whole is not for ckptctl."),
    ("killed", _RESTORE, (r"^(?P<pid>\d+) killed by signal (?P<number>\d+)(?:: (?P<name>.*))?",),
     "process {pid} was killed by signal {number} ({name}) while it was brought back.",
     "Look in the kernel's log (dmesg): signal 9 is usually a lack of memory. Free some, then restore again."),
    ("mounts", _BOTH,
     (r"doesn't have a proper root mount", r"has unreachable sharing", r"No mapping for \S+ mountpoint"),
     "criu cannot make sense of the mounts of the job.",
     "Run ckptctl inside the container of the job; give it GPUs by CDI instead of the NVIDIA runtime."),
    # --- memory ---
    ("sysv-shm", _DUMP, (r"Task (?P<pid>\d+) with SysVIPC shmem map @?(?P<address>\w+) doesn't live in IPC ns",),
     "process {pid} uses SysV shared memory, which belongs to the whole machine.",
     "Start the job with `unshare --ipc`, so that this memory is its own."),
    ("device-mapping", _DUMP, (r"handle_device_vma plugin failed", r"Can't handle non-regular mapping"),
     "the job has the memory of a device mapped.",
     "A GPU needs NVIDIA's driver 570 or newer; close other devices before the dump."),
    ("uprobes", _DUMP, (r"has uprobes vma",), "a profiler has set probes in the job.",
     "Stop the eBPF profiler, then dump again."),
    ("guard-pages", _DUMP, (r"doesn't support PAGE_IS_GUARD",),
     "this kernel does not tell criu about the guard pages of thread stacks.", "Use Linux 6.16 or newer."),
    ("pages-tracking", _DUMP,
     (r"BUG at criu/mem\.c",), "criu's tracking of changed memory does not work on this kernel.",
     "Dump without `--criu-option`."),
    ("no-memory", _BOTH, (r"Cannot allocate memory", r"Out of memory"),
     "memory ran out.", "Free memory, or raise the limit of the container or of the batch job."),
    # --- the machine ---
    ("disk-full", _BOTH, (r"No space left on device", r"Disk quota exceeded"),
     "the disk is full.", "Free space there, or choose another place with `--store` or `--to`."),
    ("file-size-limit", _DUMP, (r"File too large",),
     "an image file may not grow any further.", "Raise the limit of file sizes (`ulimit -f unlimited`)."),
    ("vdso", _BOTH, (r"Unexpected rt vDSO area bounds",),
     "this criu is too old for the running kernel.", "Run `ckptctl check --fix` for a newer one."),
    ("kernel-features", _BOTH,
     (r"(?P<what>\w+) failed when initializing kerndat", r"Could not initialize kernel features"),
     "criu could not find out what the kernel can do. {what}",
     "Run ckptctl as root with all capabilities; or run `ckptctl check --fix` for a newer criu."),
    ("rseq", _DUMP, (r"has rseq but kernel lacks get_rseq_conf",),
     "the C library of the job uses restartable sequences, which this kernel does not reveal.",
     "Use Linux 5.13 or newer, or start the job with GLIBC_TUNABLES=glibc.pthread.rseq=0."),
    ("xsave", _BOTH, (r"max xsave frame exceed xsave_struct", r"Can't set FPU registers"),
     "this criu does not know the registers of this processor.", "Run `ckptctl check --fix` for a newer one."),
    ("cpu", _RESTORE,
     (r"(?P<what>FPU feature required by image is not supported on host)", r"(?P<what>CPU xsave size mismatch)",
                       r"(?P<what>CPU \w+ capabilities do not match run time)"),
     "this processor differs from that of the dump: {what}.", "Restore on a machine with the same kind of processor."),
    ("clock", _RESTORE, (r"Unable to set a monotonic clock offset",),
     "the clock of the job cannot be set.", "Run ckptctl as root with CAP_SYS_TIME."),
    ("security-module", _BOTH, (r"Unable to connect a transport socket: Permission denied",),
     "AppArmor or SELinux keeps criu's code in the job from talking to criu.",
     "Run the container with apparmor=unconfined or label=disable."),
    ("seccomp", _BOTH, (r"suspending seccomp failed: Operation not permitted",),
     "criu may not set aside the seccomp filter of the job.", "Run ckptctl as root of the machine (CAP_SYS_ADMIN)."),
    ("capability", _BOTH, (r"CRIU needs to have the (?P<what>CAP_\w+(?: or the CAP_\w+)?)",),
     "rights are missing: {what}.", "Run ckptctl as root."),
    ("rlimit", _DUMP, (r"Can't get rlimit \d+: Operation not permitted",),
     "criu may not read the limits of a process of another user.",
     "Run ckptctl as the user of the job, or with CAP_SYS_RESOURCE."),
    ("drop-capability", _RESTORE, (r"Unable to drop capability (?P<number>\d+)",),
     "criu may not take the capability {number} from the job, which had not had it.", "Restore as root."),
    ("plugin", _BOTH, (r"Corrupted plugin", r"undefined symbol: check_and_remove_inventory_plugin",
                       r"Unable to load (?P<name>\S+\.so)", r"Unable to open directory (?P<name>.*): No such",
      r"Missing required plugin: (?P<name>\w+)"),
     "a plugin of criu is missing or of another build: {name}.",
     "Dump and restore with ckptctl, which uses none; run `ckptctl check --fix` for a whole criu."),
    ("image-folder", _BOTH, (r"Couldn't open image dir (?P<path>.*)", r"Can't open dir (?P<path>.*): No such"),
     "the folder of the images cannot be opened: {path}.",
     "Look whether it exists inside the job's mount namespace too."),
    ("image-damaged", _RESTORE,
     (r"magic doesn't match for (?P<name>.*)", r"bytes while \d+ expected from (?P<name>\S+\w)",
                                 r"Unexpected EOF on (?P<name>.*)", r"Failed unpacking object (?P<name>.*)"),
     "an image file is missing or damaged: {name}.",
     "Look with `ckptctl verify --read-data`, and restore another snapshot."),
)
# fmt: on

CAUSES: Final = tuple(
    Cause(f"criu.{code}", actions, patterns, summary, remedy) for code, actions, patterns, summary, remedy in _ROWS
)

HARMLESS: Final = (
    # Root without CAP_SYS_RESOURCE, as in most containers.
    r"Can't setup RLIMIT_NOFILE for self",
    # Every process without CUDA, when criu's plugin for it is there.
    r"Could not find restore thread for process ID",
)
"""What criu marks as an error in runs that succeed."""
