"""One supervisor for each run, on all machines that share the store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ckptctl.app import opened
from ckptctl.events import Caution, Notice
from ckptctl.files import make_private_folder
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.twice import require_absent
from ckptctl.store import locks
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.locks import Intent, Locked, Want
from ckptctl.store.owner import Owner
from ckptctl.supervise.claim import claim
from support import CommandLine
from support.manifests import make_manifest
from support.recorder import Recorder

BEAT_S = 0.1
SILENCE_S = 1.0


@pytest.fixture
def services(ckptctl: CommandLine, recorder: Recorder) -> Iterator[Services]:
    """Those of the real application, with the test's folders."""
    with opened({"store": ckptctl.store, "state": ckptctl.state}, recorder) as app:
        yield app.services


@pytest.fixture
def run(store: Store) -> RunFolder:
    folder = store.run("gpt")
    make_private_folder(folder.path)
    return folder


@contextmanager
def held_elsewhere(store: Store, services: Services) -> Iterator[Path]:
    """A lock of a supervisor on another machine."""
    elsewhere: Owner = replace(services.owner, host="node7", machine_id="another", boot_id="another")
    want = [Want("supervisor:gpt", Intent.EXCLUSIVE)]
    with locks.hold(store.locks, want, elsewhere, wait_s=0, interrupt=services.interrupt) as lock:
        yield lock


def test_two_of_one_machine_are_refused_at_once(store: Store, run: RunFolder, services: Services) -> None:
    with claim(store, run, services, beat_s=BEAT_S), pytest.raises(Locked):
        with claim(store, run, services, silence_s=3600):
            raise AssertionError("there are two")


def test_a_machine_that_gives_no_sign_of_life_is_taken_for_dead(
    store: Store, run: RunFolder, services: Services, recorder: Recorder
) -> None:
    run.heartbeat.touch()
    with held_elsewhere(store, services) as lock:
        with claim(store, run, services, beat_s=BEAT_S, silence_s=SILENCE_S) as ours:
            assert not lock.exists()
            assert not ours.is_lost()
    said = [event.text for event in recorder.events if isinstance(event, Notice | Caution)]
    assert "on node7" in said[0]
    assert "taken for dead" in said[1]


def test_a_machine_that_lives_keeps_its_run(store: Store, run: RunFolder, services: Services) -> None:
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(BEAT_S):
            run.heartbeat.touch()

    thread = threading.Thread(target=beat)
    with held_elsewhere(store, services) as lock:
        thread.start()
        try:
            with pytest.raises(Locked), claim(store, run, services, silence_s=3600):
                raise AssertionError("there are two")
        finally:
            stopped.set()
            thread.join()
        assert lock.exists()


def test_whoever_was_taken_for_dead_sees_it(store: Store, run: RunFolder, services: Services) -> None:
    with claim(store, run, services, beat_s=BEAT_S) as ours:
        assert not ours.is_lost()
        (lock,) = store.locks.glob("[!.]*.json")
        assert json.loads(lock.read_text())["wants"][0]["resource"] == "supervisor:gpt"
        lock.unlink()
        assert ours.is_lost()


def test_a_store_that_is_away_takes_no_run_away(store: Store, run: RunFolder, services: Services) -> None:
    """Unmounted beneath the supervisor, say: its job must not be ended for that."""
    with claim(store, run, services, beat_s=BEAT_S) as ours:
        away = store.path.rename(store.path.with_name("away"))
        store.path.mkdir()
        assert not ours.is_lost()
        store.path.rmdir()
        away.rename(store.path)
        assert not ours.is_lost()


def test_a_lock_that_cannot_be_read_is_left_and_named(store: Store, run: RunFolder, services: Services) -> None:
    make_private_folder(store.locks)
    damaged = store.locks / "1-0123456789abcdef.json"
    damaged.write_text("{")
    with pytest.raises(Locked, match="cannot be read"), claim(store, run, services, silence_s=3600):
        raise AssertionError("there may be two")
    assert damaged.exists()


def test_signs_of_life_end_with_the_claim(store: Store, run: RunFolder, services: Services) -> None:
    def moved() -> int:
        return run.heartbeat.stat().st_mtime_ns

    with claim(store, run, services, beat_s=BEAT_S):
        time.sleep(3 * BEAT_S)
        before = moved()
        time.sleep(5 * BEAT_S)
        assert moved() > before
    time.sleep(3 * BEAT_S)
    after = moved()
    time.sleep(5 * BEAT_S)
    assert moved() == after


def test_what_is_locked_inside_is_not_taken_for_the_claim(store: Store, run: RunFolder, services: Services) -> None:
    with pytest.raises(Locked, match="inner"):
        with claim(store, run, services, beat_s=BEAT_S):
            raise Locked("inner", hint="", details={"out_of_sight": True, "lock": "/nonexistent", "host": "x"})


def test_a_job_that_is_looked_after_is_not_brought_back_by_others(
    store: Store, run: RunFolder, services: Services
) -> None:
    """But by its supervisor itself: what is our own is not in our way."""
    manifest = make_manifest(run="gpt")
    with held_elsewhere(store, services), pytest.raises(Locked) as refused:
        require_absent(manifest, store, services)
    assert "The run gpt is looked after by process" in refused.value.message
    assert "on node7" in refused.value.message
    assert "--new-pid-namespace" in (refused.value.hint or "")
    with claim(store, run, services, beat_s=BEAT_S):
        require_absent(manifest, store, services)
