"""Hooks are real programs: what they are told, what they may spoil, and how they are ended."""

from __future__ import annotations

import shlex
import stat
import time
from pathlib import Path

import pytest

from ckptctl.supervise.hooks import HookCommands, HookEvent, HookFacts, HookOutcome, HookResult, Hooks
from support.pids import alive, kill, wait_gone, written

FACTS = HookFacts(run="gpt")


def hooks(folder: Path, script: str, timeout_s: float = 60) -> Hooks:
    words = ("sh", "-c", script)
    return Hooks(HookCommands(words, words, words), log=folder / "hooks.log", timeout_s=timeout_s)


def test_a_hook_that_is_not_set_does_nothing(tmp_path: Path) -> None:
    result = Hooks(HookCommands(), log=tmp_path / "hooks.log").run(HookEvent.BEFORE, FACTS)
    assert result == HookResult(HookEvent.BEFORE, HookOutcome.NOT_SET)
    assert result.ok and not result.prevents_snapshot
    assert list(tmp_path.iterdir()) == []


def test_each_event_has_its_own_command(tmp_path: Path) -> None:
    log = tmp_path / "hooks.log"
    commands = HookCommands(("echo", "one two"), ("echo", "three"), ("echo", "four"))
    for event in HookEvent:
        assert Hooks(commands, log=log).run(event, FACTS).outcome is HookOutcome.DONE
    assert log.read_text().splitlines() == [
        "== before: echo 'one two'",
        "one two",
        "== after: echo three",
        "three",
        "== failure: echo four",
        "four",
    ]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def variables(log: Path) -> dict[str, str]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("CKPTCTL_")]
    return dict(line.split("=", 1) for line in lines)


def test_a_hook_finds_the_facts_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CKPTCTL_CRIU", "CKPTCTL_REQUIRE"):
        monkeypatch.delenv(name, raising=False)
    facts = HookFacts(
        run="gpt",
        pid=4711,
        reason="interval",
        snapshot=Path("/store/runs/gpt/x y"),
        snapshot_id="20261120T193000Z-s012000-7f3a",
        step=12000,
        error_code="E_NO_SPACE",
        error="The disk is full.",
        last=True,
    )
    hooks(tmp_path, "env").run(HookEvent.FAILURE, facts)
    assert variables(tmp_path / "hooks.log") == {
        "CKPTCTL_EVENT": "failure",
        "CKPTCTL_RUN": "gpt",
        "CKPTCTL_PID": "4711",
        "CKPTCTL_REASON": "interval",
        "CKPTCTL_SNAPSHOT": "/store/runs/gpt/x y",
        "CKPTCTL_ID": "20261120T193000Z-s012000-7f3a",
        "CKPTCTL_STEP": "12000",
        "CKPTCTL_ERROR_CODE": "E_NO_SPACE",
        "CKPTCTL_ERROR": "The disk is full.",
        "CKPTCTL_LAST": "1",
    }


def test_what_is_not_known_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CKPTCTL_CRIU", "CKPTCTL_REQUIRE"):
        monkeypatch.delenv(name, raising=False)
    hooks(tmp_path, "env").run(HookEvent.BEFORE, HookFacts(run="gpt", step=0))
    expected = {"CKPTCTL_EVENT": "before", "CKPTCTL_RUN": "gpt", "CKPTCTL_STEP": "0"}
    assert variables(tmp_path / "hooks.log") == expected


@pytest.mark.parametrize(
    ("event", "last", "prevents"),
    [
        (HookEvent.BEFORE, False, True),
        (HookEvent.BEFORE, True, False),
        (HookEvent.AFTER, False, False),
        (HookEvent.FAILURE, False, False),
    ],
)
def test_only_a_hook_before_prevents_and_never_the_last_snapshot(
    event: HookEvent, last: bool, prevents: bool, tmp_path: Path
) -> None:
    result = hooks(tmp_path, "exit 3").run(event, HookFacts(run="gpt", last=last))
    assert result.outcome is HookOutcome.FAILED
    assert not result.ok
    assert result.words == f"The hook sh ({event.value}) failed with exit status 3."
    assert result.prevents_snapshot is prevents


def test_a_hook_that_succeeds_prevents_nothing(tmp_path: Path) -> None:
    result = hooks(tmp_path, "exit 0").run(HookEvent.BEFORE, FACTS)
    assert result.ok and not result.prevents_snapshot and result.words == ""


@pytest.mark.parametrize("program", ["/nonexistent/program", "/dev/null"])
def test_a_hook_that_cannot_be_run_has_failed(program: str, tmp_path: Path) -> None:
    result = Hooks(HookCommands(before=(program,)), log=tmp_path / "log").run(HookEvent.BEFORE, FACTS)
    assert result.outcome is HookOutcome.FAILED
    assert result.prevents_snapshot
    assert program in result.words


def test_a_hook_whose_log_cannot_be_written_has_failed(tmp_path: Path) -> None:
    result = Hooks(HookCommands(before=("true",)), log=tmp_path / "missing" / "log").run(HookEvent.BEFORE, FACTS)
    assert result.outcome is HookOutcome.FAILED


def test_words_are_not_given_to_a_shell(tmp_path: Path) -> None:
    log = tmp_path / "hooks.log"
    Hooks(HookCommands(before=("echo", "$HOME;", "`id`")), log=log).run(HookEvent.BEFORE, FACTS)
    assert log.read_text().splitlines()[1] == "$HOME; `id`"


def endless(pids: Path, trap: str = "") -> str:
    return f"{trap} sleep 1000 & echo $$ $! >{shlex.quote(str(pids))}; echo waiting; while :; do wait; sleep 1; done"


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"], ids=["obeys", "ignores-sigterm"])
def test_a_hook_that_takes_too_long_is_ended_with_its_children(trap: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = hooks(tmp_path, endless(pids, trap), timeout_s=2).run(HookEvent.BEFORE, FACTS)
    assert result.outcome is HookOutcome.TIMED_OUT
    assert result.prevents_snapshot
    assert "within 2 s" in result.words
    wait_gone(pids)
    assert "waiting" in (tmp_path / "hooks.log").read_text()


def test_a_hook_may_clean_up_when_it_is_asked_to_end(tmp_path: Path) -> None:
    script = "trap 'echo cleaned; exit 1' TERM; while :; do sleep 0.05; done"
    result = hooks(tmp_path, script, timeout_s=2).run(HookEvent.AFTER, FACTS)
    assert result.outcome is HookOutcome.TIMED_OUT
    assert (tmp_path / "hooks.log").read_text().endswith("cleaned\n")


def test_the_caller_may_allow_less_time(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = hooks(tmp_path, endless(pids)).run(HookEvent.BEFORE, HookFacts(run="gpt", last=True), limit_s=2)
    assert result.outcome is HookOutcome.TIMED_OUT
    assert "within 2 s" in result.words
    assert not result.prevents_snapshot
    wait_gone(pids)


def test_a_hook_gives_way_to_what_is_more_urgent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = hooks(tmp_path, endless(pids)).run(HookEvent.BEFORE, FACTS, give_up=pids.exists)
    assert result.outcome is HookOutcome.GIVEN_UP
    assert result.prevents_snapshot


def test_what_a_hook_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began_s = time.monotonic()
    result = hooks(tmp_path, f"sleep 1000 & echo $! >{shlex.quote(str(pids))}").run(HookEvent.AFTER, FACTS)
    assert result.outcome is HookOutcome.DONE
    assert time.monotonic() - began_s < 60
    (pid,) = written(pids)
    assert alive(pid)
    kill(pids)


def test_a_fact_that_no_environment_can_hold_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    result = hooks(tmp_path, "true").run(HookEvent.FAILURE, HookFacts(run="gpt", error="a\0b"))
    assert result.outcome is HookOutcome.FAILED
