"""What tests of all areas share: real jobs, the command line as a real process, waiting, and capability gates."""

from support.command_line import CommandLine, Ended
from support.jobs import Job, Jobs, python
from support.waiting import lines, wait_for

__all__ = ["CommandLine", "Ended", "Job", "Jobs", "lines", "python", "wait_for"]
