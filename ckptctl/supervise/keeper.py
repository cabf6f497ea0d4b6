"""Keeps a job: the root of the tree that is dumped. A program of its own: nothing of ckptctl is imported.

    python -I -S keeper.py RUN SPECIFICATION_FD REPORT_FD

Reads what to start (see `Specification.render` in launch.py) from SPECIFICATION_FD to its end; one that is cut off, by
the death of ckptctl, starts nothing. Says on REPORT_FD how the start went, then closes both: from there on nothing
leads out of the tree.

The job is its child, in a session of its own. Orphans of the job become children too and are reaped. Every signal goes
on to the job, but SIGCONT: that is what a restore sends to each process by itself, and a job that was stopped when it
was dumped is to stay so. When the job ends, its exit is written down at once. Then those that it left behind have
`linger_s` to end by themselves, as long again after SIGTERM, and get SIGKILL: a helper in the background must not keep
a run alive for ever. A job that was asked to end (SIGTERM, SIGINT, SIGHUP, SIGQUIT) may have been a shell around the
real one: what it leaves is asked at once. The keeper ends as the job did, of the same signal or with the same status.

Nothing here depends on when or where it runs: CRIU restores the subreaper, the blocked signals and the pids of its
namespace, and time is only counted in short waits, because the clock jumps with a restore.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

# linux/prctl.h, linux/seccomp.h; the numbers of seccomp(2) are those of asm/unistd.h.
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 22, 36, 38
_MODE_FILTER, _SET_MODE_FILTER, _SPEC_ALLOW = 2, 1, 4
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_INSTRUCTION_BYTES = 8

_JOB_FILE = b"CUDA_CHECKPOINT_JOB_FILE"
_OWN_DESCRIPTORS = b"/proc/self/fd/"
_NOT_FORWARDED = (signal.SIGCHLD, signal.SIGCONT)
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_TICK_S = 0.1
# Our own writes may cause SIGPIPE and SIGXFSZ, which Python ignores; the other two cannot be waited for.
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}

_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    """See the module."""
    specification_fd, report_fd = int(argv[1]), int(argv[2])
    os.set_inheritable(report_fd, False)
    words = _read_all(specification_fd).split(b"\0")
    if words.pop() != b"end":
        return 1
    exit_file, linger_s, umask, program, count, *rest = words
    environment = _job_environment(rest[: int(count)])
    command = rest[int(count) :]
    os.umask(int(umask))
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.time()
    pid, unfiltered, failure = _start(command, environment, bytes.fromhex(program.decode()))
    _report(report_fd, b"%d %d %d" % (pid, unfiltered, failure))
    if failure:
        return 1
    # The folder that the job was started in may go once the job has left it.
    os.chdir("/")
    status, asked = _keep(pid)
    _write_down(exit_file, pid, status, began)
    _end_the_rest(float(linger_s), asked)
    return _end_like(status)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts)


def _report(descriptor: int, text: bytes) -> None:
    try:
        os.write(descriptor, text)
    except BrokenPipeError:
        # ckptctl has died; the next one finds us.
        return
    finally:
        os.close(descriptor)


def _job_environment(entries: list[bytes]) -> dict[bytes, bytes]:
    """The job's variables; a job file for CUDA that we hold is named so that every descendant can open it."""
    environment = dict(entry.split(b"=", 1) for entry in entries)
    own = os.environb.get(_JOB_FILE, b"")
    if own.startswith(_OWN_DESCRIPTORS) and os.path.exists(own):  # noqa: PTH110 - see _write_down
        # Launchers such as torchrun close descriptors that their workers do not know of: ours stays open.
        descriptor = int(own.removeprefix(_OWN_DESCRIPTORS))
        os.set_inheritable(descriptor, False)
        environment[_JOB_FILE] = b"/proc/%d/fd/%d" % (os.getpid(), descriptor)
    return environment


def _start(command: list[bytes], environment: dict[bytes, bytes], program: bytes) -> tuple[int, int, int]:
    """Start the job. Returns its pid, why the filter could not be installed, why it could not be executed (errno)."""
    said, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, environment, program, saying)
    os.close(saying)
    unfiltered, failure = (int(word) for word in [*_read_all(said).split(), b"0", b"0"][:2])
    if failure:
        os.waitpid(pid, 0)
    return pid, unfiltered, failure


def _become(command: list[bytes], environment: dict[bytes, bytes], program: bytes, saying: int) -> None:
    """Turn this process into the job. Never returns; `saying` gets two numbers of errors, the second if it fails."""
    try:
        os.setsid()
        unfiltered = _install(program) if program else 0
        os.write(saying, b"%d " % unfiltered)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(saying, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def _install(program: bytes) -> int:
    """Install a filter for system calls in this process and its descendants. Returns 0, or the number of the error."""

    class Filter(ctypes.Structure):
        """struct sock_fprog"""

        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    where = ctypes.byref(Filter(len(program) // _INSTRUCTION_BYTES, program))
    call = _SECCOMP_CALL.get(os.uname().machine)
    for can_gain_rights in (True, False):
        if not can_gain_rights:
            # Without the right to administer the system, only such a program may have a filter (seccomp(2)).
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Linux before 5.16 slows down every program under a filter, unless told that it guards no secrets.
        if call and _libc.syscall(call, _SET_MODE_FILTER, _SPEC_ALLOW, where) == 0:
            return 0
        if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, where, 0, 0) == 0:
            return 0
    return ctypes.get_errno()


def _keep(pid: int) -> tuple[int, bool]:
    """Pass signals on to the job and reap, until it ends. Returns its status, and whether it was asked to end."""
    asked = False
    while True:
        # Several children may have ended for one SIGCHLD.
        while (ended := _reap()) is not None:
            if ended[0] == pid:
                return ended[1], asked
        number = signal.sigwaitinfo(_SIGNALS).si_signo
        asked = asked or number in _ENDING
        if number not in _NOT_FORWARDED:
            os.kill(pid, number)


def _reap() -> tuple[int, int] | None:
    """The pid and status of a child that has ended; None where there is none."""
    try:
        ended = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return ended if ended[0] else None


def _write_down(exit_file: bytes, pid: int, status: int, began: float) -> None:
    """Say how the job ended, all at once and durably."""
    code = os.waitstatus_to_exitcode(status)
    text = b'{"version": 1, "pid": %d, "code": %s, "signal": %s, "began": %.6f, "ended": %.6f}\n' % (
        pid,
        b"%d" % code if code >= 0 else b"null",
        b"%d" % -code if code < 0 else b"null",
        began,
        time.time(),
    )
    folder = exit_file.rpartition(b"/")[0]
    temporary = b"%s.%s" % (exit_file, os.urandom(4).hex().encode())
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.write(descriptor, text)
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(temporary, exit_file)  # noqa: PTH104 - a Path takes a megabyte that every dump would save
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
    except OSError as error:
        _say(f"ckptctl: {os.fsdecode(exit_file)} cannot be written: {error.strerror}\n")


def _say(text: str) -> None:
    """Write to the log, on a disk that may be full: what sys.stderr could not write would change our own status."""
    try:
        os.write(2, os.fsencode(text))
    except OSError:
        return


def _end_the_rest(linger_s: float, asked: bool) -> None:
    """Wait until nobody is left; see the module for how long."""
    for number in (signal.SIGTERM,) if asked else (None, signal.SIGTERM):
        if _all_ended(linger_s, number):
            return
    while not _all_ended(_TICK_S, signal.SIGKILL):
        if not _children():
            return  # This kernel does not tell which children there are; they become those of our parent.


def _all_ended(patience_s: float, number: int | None) -> bool:
    """Whether no child is left within that time. Each, those adopted meanwhile too, gets the signal once."""
    told: set[int] = set()
    left_s = patience_s
    while True:
        while _reap() is not None:
            pass
        if not _has_children():
            return True
        if number is not None:
            for pid in _children() - told:
                os.kill(pid, number)
                told.add(pid)
        if left_s <= 0:
            return False
        before = time.monotonic()
        received = signal.sigtimedwait(_SIGNALS, _TICK_S)
        if received is not None and received.si_signo in _ENDING:
            return False
        left_s -= min(max(time.monotonic() - before, 0.0), _TICK_S)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> set[int]:
    """Our children; they keep their pids until we reap them."""
    try:
        with open("/proc/thread-self/children") as file:
            return {int(word) for word in file.read().split()}
    except OSError:
        return set()


def _end_like(status: int) -> int:
    """End of the signal that the job ended of, without a core file; or return its exit status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
