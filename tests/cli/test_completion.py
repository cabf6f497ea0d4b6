"""Completion in shells: the scripts are ones that the shell takes, and the answers are the right ones."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ckptctl.cli.commands import COMMANDS
from ckptctl.cli.main import SHELLS
from support import CommandLine
from support.command_line import PROGRAM


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_every_shell(shell: str, ckptctl: CommandLine) -> None:
    ended = ckptctl("--show-completion", shell).check()
    assert "_CKPTCTL_COMPLETE" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_takes_the_script(shell: str, ckptctl: CommandLine) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is missing")
    script = ckptctl("--show-completion", shell).check().stdout
    done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_refused(ckptctl: CommandLine) -> None:
    ended = ckptctl("--show-completion", "frobnicate").check(2)
    assert "bash, zsh, fish" in ended.stderr


@pytest.mark.parametrize(
    ("typed", "answers"),
    [("ckptctl ", set(COMMANDS)), ("ckptctl du", {"dump"}), ("ckptctl dump --leave", {"--leave-running"}),
     ("ckptctl restore --new", {"--new-pid-namespace"})],
)  # fmt: skip
def test_bash_completes(typed: str, answers: set[str], ckptctl: CommandLine) -> None:
    """Asked as the script asks: once the shell has sourced it, Tab does nothing else."""
    script = ckptctl("--show-completion", "bash").check().stdout
    words = typed.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n_ckptctl_completion ckptctl\n"
    path = f"{PROGRAM.parent}:{ckptctl.environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        env={**ckptctl.environment, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == answers, done.stderr
