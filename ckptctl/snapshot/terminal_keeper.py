"""Keeps the terminal of a restored job open. A program of its own: nothing of ckptctl is imported.

    python terminal_keeper.py MASTER_FD

Copies what the job writes to its terminal to standard output, until nobody has the terminal open any more. Without a
process at this end the kernel would hang the terminal up, and the job with it.
"""

import errno
import os
import signal
import sys

_PIECE_BYTES = 1 << 16


def main(argv: list[str]) -> int:
    """See the module."""
    master = int(argv[0])
    # The terminal must outlive whatever ckptctl was started from.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while piece := _read(master):
        _write_all(piece)
    return 0


def _read(master: int) -> bytes:
    try:
        return os.read(master, _PIECE_BYTES)
    except OSError as error:
        # EIO: the last process has closed the other end (pty(7)).
        if error.errno == errno.EIO:
            return b""
        raise


def _write_all(piece: bytes) -> None:
    while piece:
        try:
            piece = piece[os.write(1, piece) :]
        except OSError:
            # Whoever read along has gone or the disk is full; the job must not stand still for that.
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
