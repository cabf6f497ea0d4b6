"""Process 1 of a PID namespace that a tree is restored into. A program of its own: nothing of ckptctl is imported.

    python namespace_init.py STATUS_FD ROOT_PID COMMAND...

Runs COMMAND (criu restore, detached), writes its exit status as text to STATUS_FD and closes it. When that was 0, goes
on as the parent of the restored root and of every orphan: reaps them, passes signals on to the root, and when nobody is
left exits with the root's status (128 + N for signal N).
"""

import os
import signal
import sys

_FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT,
    signal.SIGWINCH,
)  # fmt: skip


def main(argv: list[str]) -> int:
    """See the module."""
    status_fd, root_pid, command = int(argv[0]), int(argv[1]), argv[2:]
    # Seen from inside, the session from outside has the number 0, which criu could not restore into.
    os.setsid()
    os.set_inheritable(status_fd, False)
    status = _run(command)
    os.write(status_fd, b"%d" % status)
    os.close(status_fd)
    if status != 0:
        return status
    _let_go_of_descriptors()
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: _forward(root_pid, received))
    return _reap_all(root_pid)


def _run(command: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            sys.stderr.write(f"{command[0]}: {error.strerror}\n")
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    return _exit_status(status)


def _let_go_of_descriptors() -> None:
    # The pipes that the tree inherited: as long as we held them, a reader would never see their end.
    os.closerange(3, 1 + max(int(entry.name) for entry in os.scandir("/proc/self/fd")))


def _forward(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap_all(root_pid: int) -> int:
    result = 0
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return result
        if pid == root_pid:
            result = _exit_status(status)


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
