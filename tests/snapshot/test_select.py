"""Choosing what is restored, before anything is touched."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from ckptctl.app import opened
from ckptctl.events import Silence
from ckptctl.interrupt import Interrupted
from ckptctl.snapshot.select import choose
from ckptctl.store import links
from ckptctl.store.layout import create_store
from support import CommandLine
from support.manifests import put_snapshot


class Now:
    """An interrupt that has come."""

    def check(self) -> None:
        raise Interrupted("Stopped by SIGINT.")


def test_ctrl_c_while_latest_is_read_says_that_nothing_was_changed(ckptctl: CommandLine) -> None:
    store = create_store(ckptctl.store)
    name = "20261120T190100Z-0001"
    store.run("train").path.mkdir()
    created = datetime(2026, 11, 20, 19, 1, tzinfo=UTC)
    put_snapshot(store.run("train").snapshot(name), {"core-1.img": b"core"}, id=name, run="train", created=created)
    links.advance(store.run("train"), name)
    with opened({"store": ckptctl.store, "state": ckptctl.state}, Silence()) as app:
        services = dataclasses.replace(app.services, interrupt=Now())
        with pytest.raises(Interrupted) as stopped:
            choose(store, "latest", None, services)
    assert stopped.value.outcome == "Nothing was changed."
