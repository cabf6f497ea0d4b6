from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.store.names import (
    BadRunName,
    check_run_name,
    id_time,
    is_run_name,
    is_snapshot_id,
    new_id,
    run_name_from,
)

moments = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC))
randoms = st.text("0123456789abcdef", min_size=4, max_size=16)


def test_an_id_as_documented() -> None:
    now = datetime(2026, 11, 20, 20, 30, tzinfo=timezone(timedelta(hours=1)))
    assert new_id(now, 12000, "7f3a") == "20261120T193000Z-s012000-7f3a"
    assert new_id(now, None, "7f3a") == "20261120T193000Z-7f3a"


@given(moments, st.none() | st.integers(0, 10**15), randoms)
def test_every_id_is_an_id_that_tells_its_time(now: datetime, step: int | None, random: str) -> None:
    made = new_id(now, step, random)
    assert is_snapshot_id(made)
    assert id_time(made) == now.replace(microsecond=0)
    assert "/" not in made


@given(moments, moments, st.none() | st.integers(0, 10**15), st.none() | st.integers(0, 10**15))
def test_ids_sort_by_time(first: datetime, second: datetime, step: int | None, other: int | None) -> None:
    if first.replace(microsecond=0) < second.replace(microsecond=0):
        assert new_id(first, step, "ffff") < new_id(second, other, "0000")


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "latest", "20261120T193000Z", "20261120T193000Z-7F3A", "20261120T193000Z-7f3a/.."),
        *("20261120T193000Z-7f3a\n", "20261320T193000Z-7f3a", "\u0662\u0660261120T193000Z-7f3a"),
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert not is_snapshot_id(text)


@pytest.mark.parametrize("name", ["train", "GPT 2", "a.b", "läuft", "x" * 128, "a;b", "it's", 'quo"te', "$(id)"])
def test_names_that_runs_can_have(name: str) -> None:
    assert check_run_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (".", "dot"),
        ("..", "dot"),
        (".hidden", "dot"),
        ("-rf", "dash"),
        ("a/b", "slash"),
        ("/", "slash"),
        ("a\nb", "printed"),
        ("a\0b", "printed"),
        ("\x1b[2J", "printed"),
        (" a", "blank"),
        ("a ", "blank"),
        ("ä" * 65, "128 bytes"),
        ("\udcff", "printed"),
    ],
)
def test_names_that_runs_cannot_have(name: str, why: str) -> None:
    with pytest.raises(BadRunName, match=why):
        check_run_name(name)


@given(st.text(max_size=140))
def test_a_valid_name_is_one_folder(name: str) -> None:
    if is_run_name(name):
        assert Path("/store/runs", name).parent == Path("/store/runs")
        assert len(os.fsencode(name)) <= 128


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py", "train"),
        ("python -m pkg.mod --epochs 3", "pkg.mod"),
        ("/usr/bin/python3.11 -u x/train.py", "train"),
        ("python3 -X dev -W ignore -u /srv/a b.py", "a"),
        ("python /opt/app/__main__.py", "app"),
        ("python -c print()", "python"),
        ("python", "python"),
        ("python -m", "python"),
        ("/usr/bin/python3 /usr/local/bin/torchrun --nproc-per-node 2 ddp.py --epochs 3", "ddp"),
        ("python -m torch.distributed.run --nproc_per_node=2 train/ddp.py", "ddp"),
        ("torchrun --nproc-per-node 2 -m pkg.train", "pkg.train"),
        ("torchrun --help", "torchrun"),
        ("python /usr/bin/accelerate launch --num_processes 2 finetune.py", "finetune"),
        ("bash run.sh", "run"),
        ("-bash", "bash"),
        ("sh -c sleep", "sh"),
        ("./my-trainer --lr 1", "my-trainer"),
        ("/opt/bin/train.v2", "train.v2"),
        ("python ../..", "job"),
        ("python --", "python"),
    ],
)
def test_the_name_that_a_job_gets(command: str, name: str) -> None:
    assert run_name_from(command.split(" ")) == name


def test_no_command_line_gives_a_name_too() -> None:
    assert run_name_from([]) == "job"
    assert run_name_from([""]) == "job"


@pytest.mark.parametrize("script", ["a b;rm -rf.py", "$(id).py", "\udcff\udcfe.py", "a\nb.py", "…", "-x.py"])
def test_hostile_scripts_give_harmless_names(script: str) -> None:
    name = run_name_from(["python", script])
    assert is_run_name(name)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


@given(st.lists(st.text(max_size=20), max_size=6))
def test_every_command_line_gives_a_valid_name(words: list[str]) -> None:
    assert is_run_name(run_name_from(words))
    assert is_run_name(run_name_from(["python", *words]))
    assert is_run_name(run_name_from(["torchrun", *words]))
