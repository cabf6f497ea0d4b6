"""The options that CRIU is given: each has its reason, and where it is needed nothing works without it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ckptctl.criu.choice import choose_options, with_asked
from ckptctl.criu.options import Option, Options
from ckptctl.host.machine import read_machine
from ckptctl.process.tree import read_tree
from support import Jobs, wait_for
from support.plain_criu import PlainCriu, goes_on, restored
from support.shapes import FOLDER, Shape, started

MACHINE = read_machine()


def option(options: Options, flag: str) -> Option:
    (found,) = (item for item in options.chosen if item.flag == flag)
    return found


def without(options: Options, flag: str) -> Options:
    return Options(tuple(item for item in options.chosen if item.flag != flag))


# shape, its words, the option that it needs, a word of the reason
NEEDED = (
    ("tcp_server", "", "--tcp-established", "is connected to 127.0.0.1"),
    ("tcp_unaccepted", "", "--skip-in-flight", "listens on 127.0.0.1"),
    ("file_locks", "", "--file-locks", "FLOCK"),
    ("renamed_file", "", "--link-remap", "log.first"),
    ("deleted_file", "--mib 8", "--ghost-limit", "log.deleted of 8388608 bytes"),
    ("unix_outside", "--kind datagram --absolute", "--ext-unix-sk", "outside the tree"),
    ("terminal", "--master outside", "--external", "/dev/pts/"),
    ("namespace", "--kind cgroup", "--manage-cgroups=ignore", "control groups"),
)


@pytest.mark.requires_criu
@pytest.mark.parametrize(("shape_name", "words", "flag", "reason"), NEEDED, ids=[row[2] for row in NEEDED])
def test_without_its_option_it_fails(
    shape_name: str, words: str, flag: str, reason: str, start_job: Jobs, criu: Path, tmp_path: Path
) -> None:
    with started(start_job, shape_name, *words.split()) as shape:
        options = choose_options(read_tree(shape.pid), MACHINE)
        assert reason in option(options, flag).reason
        assert not restored(PlainCriu(criu, tmp_path), shape, without(options, flag))


@pytest.mark.requires_criu
def test_a_root_that_leads_no_session_is_a_shell_job(start_job: Jobs, criu: Path, tmp_path: Path) -> None:
    # The shell says `Killed` when its child is dumped: appended, so that the file may grow.
    job = start_job(["sh", "-c", '"$0" "$1" log; :', sys.executable, FOLDER / "append_log.py"], append=True)
    wait_for(lambda: (job.folder / "log").exists(), 20, "the log")
    child = next(pid for pid in job.processes() if pid != job.pid)
    shape = Shape(job, job.folder / "log", child)
    shape.wait_steps(3)
    options = choose_options(read_tree(child), MACHINE)
    assert str(job.pid) in option(options, "--shell-job").reason
    plain = PlainCriu(criu, tmp_path)
    assert not plain.dump(child, without(options, "--shell-job").dump_words())
    assert restored(plain, shape, options)
    assert goes_on(shape)


def test_a_plain_tree_gets_only_what_protects_it(start_job: Jobs) -> None:
    with started(start_job, "append_log") as shape:
        options = choose_options(read_tree(shape.pid), MACHINE)
    flags = {item.flag for item in options.chosen}
    assert flags == {
        "--tcp-established",
        "--network-lock",
        "--file-locks",
        "--link-remap",
        "--ghost-limit",
        "--manage-cgroups=ignore",
        "--timeout",
    }
    for flag in ("--tcp-established", "--file-locks", "--link-remap", "--ghost-limit"):
        assert "before the tree is frozen" in option(options, flag).reason


def test_the_ghost_limit_leaves_room_to_grow(start_job: Jobs) -> None:
    with started(start_job, "deleted_file", "--mib", "1", "--sparse-gib", "3") as shape:
        options = choose_options(read_tree(shape.pid), MACHINE)
    assert option(options, "--ghost-limit").value == str(2 * ((3 << 30) + (1 << 20)))


@pytest.mark.parametrize(
    ("nftables", "iptables", "capabilities", "expected"),
    [
        (True, True, {"CAP_NET_ADMIN"}, "nftables"),
        (False, True, {"CAP_NET_ADMIN"}, "iptables"),
        (False, True, set(), "skip"),
        (False, False, {"CAP_NET_ADMIN"}, "skip"),
    ],
)
def test_the_network_lock_is_what_the_machine_has(
    nftables: bool, iptables: bool, capabilities: set[str], expected: str, start_job: Jobs
) -> None:
    machine = replace(MACHINE, nftables=nftables, iptables=iptables, capabilities=frozenset(capabilities))
    with started(start_job, "tcp_server") as shape:
        options = choose_options(read_tree(shape.pid), machine)
    assert option(options, "--network-lock").value == expected


def test_a_tree_without_tcp_does_not_wait_for_a_network_lock(start_job: Jobs) -> None:
    machine = replace(MACHINE, nftables=True, capabilities=frozenset({"CAP_NET_ADMIN"}))
    with started(start_job, "append_log") as shape:
        lock = option(choose_options(read_tree(shape.pid), machine), "--network-lock")
    assert lock.value == "skip"
    assert "no TCP socket" in lock.reason


@pytest.mark.requires_criu
def test_connections_inside_live_without_a_network_lock(start_job: Jobs, criu: Path, tmp_path: Path) -> None:
    machine = replace(MACHINE, nftables=False, iptables=False)
    with started(start_job, "tcp_server") as shape:
        shape.wait_steps(3)
        assert restored(PlainCriu(criu, tmp_path), shape, choose_options(read_tree(shape.pid), machine))
        assert goes_on(shape)


@pytest.mark.requires_criu
def test_a_dump_that_keeps_connections_can_be_restored_with_them_closed(
    start_job: Jobs, criu: Path, tmp_path: Path
) -> None:
    with started(start_job, "tcp_outside") as shape:
        shape.wait_steps(3)
        options = choose_options(read_tree(shape.pid), MACHINE)
        kept = option(options, "--tcp-established")
        closed = Option("--tcp-close", None, "another host", on_dump=False)
        mixed = Options((*without(options, kept.flag).chosen, replace(kept, on_restore=False), closed))
        assert restored(PlainCriu(criu, tmp_path), shape, mixed)
        assert goes_on(shape)


def test_what_the_user_asks_for_takes_the_place_of_what_was_chosen(start_job: Jobs) -> None:
    extra = ("--ghost-limit 5G", "--manage-cgroups=soft", "--tcp-close", "--mntns-compat-mode")
    with started(start_job, "append_log") as shape:
        options = choose_options(read_tree(shape.pid), MACHINE, extra)
    words = options.dump_words()
    assert words.count("--ghost-limit") == 1
    assert words[words.index("--ghost-limit") + 1] == "5G"
    assert [word for word in words if word.startswith("--manage-cgroups")] == ["--manage-cgroups=soft"]
    assert "--tcp-close" in words
    assert "--tcp-established" not in words
    assert "--mntns-compat-mode" not in words
    assert "--mntns-compat-mode" in options.restore_words()
    assert option(options, "--tcp-close").reason == "asked for on the command line"


def test_what_is_asked_at_a_restore_takes_the_place_of_what_was_recorded() -> None:
    """Rivals go; what may be given several times stays beside what was recorded."""
    recorded = Options(
        (
            Option("--tcp-established", None, "why"),
            Option("--external", "tty[1:2]", "why"),
            Option("--file-locks", None, ""),
        )
    )
    words = with_asked(recorded, ("--tcp-close", "--external mnt[a]:b")).restore_words()
    assert words == ["--external", "tty[1:2]", "--file-locks", "--tcp-close", "--external", "mnt[a]:b"]
    assert with_asked(recorded, ()).chosen == recorded.chosen


def test_every_option_has_a_reason(start_job: Jobs) -> None:
    with started(start_job, "tcp_unaccepted") as shape:
        options = choose_options(read_tree(shape.pid), MACHINE)
    assert all(len(item.reason) > 20 for item in options.chosen)
