"""Forgetting by policy, as a user does it: the table with reasons, dry runs, refusals, several runs, pins and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ckptctl.store import links
from ckptctl.store.layout import create_store
from ckptctl.store.manifest import Progress
from support import CommandLine
from support.manifests import put_snapshot

Add = Callable[..., Path]
LOSSES = (0.9, 0.3, 0.5, 0.7, 0.6)


@pytest.fixture
def five(add: Add) -> list[str]:
    """A run with five snapshots of two epochs, the second one with the best loss."""
    return [
        add("gpt", number, progress=Progress(100 * number, number // 3, {"val_loss": loss}), tags=()).name
        for number, loss in enumerate(LOSSES)
    ]


def listed(ckptctl: CommandLine, run: str = "gpt") -> list[str]:
    return [entry["id"] for entry in ckptctl.json("list", "--run", run)["result"]]


def test_the_table_says_why(ckptctl: CommandLine, five: list[str]) -> None:
    words = ("forget", "--keep-last", "2", "--keep-epochs", "all", "--keep-best", "1", "--metric", "val_loss")
    planned = ckptctl(*words, "--dry-run").check().stdout
    assert listed(ckptctl) == five
    done = ckptctl(*words).check().stdout
    assert planned.splitlines()[0].startswith("run gpt: would remove 1 of 5 snapshots")
    assert done.splitlines()[0].startswith("run gpt: removed 1 of 5 snapshots")
    rows = [re.split(r"  +", line) for line in planned.splitlines()[2:7]]
    assert [(row[0], row[-2], row[-1]) for row in rows] == [
        (five[0], "remove", "no rule keeps it"),
        (five[1], "keep", "best 1 by val_loss = 0.3"),
        (five[2], "keep", "epoch 0"),
        (five[3], "keep", "backup, last 2 of 2"),
        (five[4], "keep", "latest, last 1 of 2, epoch 1"),
    ]
    assert planned.splitlines()[1:7] == done.splitlines()[1:7]
    assert "ckptctl prune" in done
    assert "prune" not in planned
    assert listed(ckptctl) == five[1:]


def test_the_document_has_every_reason(ckptctl: CommandLine, five: list[str]) -> None:
    words = ("forget", "--run", "gpt", "--keep-every-steps", "200", "--max-size", "1")
    planned = ckptctl(*words, "--dry-run", "--json").check(3).document["result"]
    (run,) = planned["runs"]
    assert planned["dry_run"] is True
    assert run["removed"] == []
    assert [one["id"] for one in run["keep"]] == [five[3], five[4]]
    reasons = {one["id"]: one["reasons"] for one in (*run["keep"], *run["remove"])}
    assert reasons[five[2]] == [
        {"rule": "keep-every-steps", "text": "nearest to step 200"},
        {"rule": "max-size", "text": "removed for --max-size 1 B"},
    ]
    assert [one["rule"] for one in reasons[five[4]]] == ["latest", "keep-every-steps"]
    assert len(run["unmet"]) == 1
    (run,) = ckptctl(*words, "--json").check(3).document["result"]["runs"]
    assert run["removed"] == five[:3]
    assert listed(ckptctl) == five[3:]


def test_what_the_disk_lacks_is_said_once_and_first(ckptctl: CommandLine, five: list[str], add: Add) -> None:
    add("other", 1)
    lines = ckptctl("forget", "--min-free", "99.9%", "--dry-run").check(3).stdout.splitlines()
    assert lines[0].startswith("--min-free 99.9% cannot be met: ")
    assert "more must be free" in lines[0]
    assert [line for line in lines[1:] if "--min-free" in line and "cannot" in line] == []


def test_a_policy_of_today_is_applied_to_snapshots_of_yesterday(ckptctl: CommandLine, five: list[str]) -> None:
    ckptctl("forget", "--keep-best", "2", "--metric", "val_loss").check()
    assert listed(ckptctl) == five[1:]
    assert ckptctl.json("show", "best")["result"]["manifest"]["id"] == five[1]
    ckptctl("forget", "--keep-best", "1", "--metric", "val_loss", "--mode", "max").check()
    assert listed(ckptctl) == five[3:]
    assert ckptctl.json("show", "best")["result"]["manifest"]["id"] == five[3]
    assert (ckptctl.store / "runs" / "gpt" / "best").readlink() == Path(five[3])


def test_each_run_is_judged_by_itself(ckptctl: CommandLine, add: Add, five: list[str]) -> None:
    others = [add("vit", 10 + number, progress=Progress(number)).name for number in range(3)]
    ckptctl("forget", "--keep-last", "1", "--run", "vit").check()
    assert (listed(ckptctl, "vit"), listed(ckptctl)) == (others[1:], five)
    ended = ckptctl("forget", "--keep-best", "1", "--metric", "val_loss").check(3)
    assert "run vit: nothing is removed. No snapshot of the run vit has the metric val_loss" in ended.stdout
    assert (listed(ckptctl, "vit"), listed(ckptctl)) == (others[1:], [five[1], *five[3:]])


def test_a_metric_mistyped_removes_nothing(ckptctl: CommandLine, five: list[str]) -> None:
    ended = ckptctl("forget", "--run", "gpt", "--keep-best", "1", "--metric", "vall_loss").check(4)
    assert "they have val_loss" in ended.stderr
    assert listed(ckptctl) == five
    assert not (ckptctl.store / "runs" / "gpt" / "best.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        (), ("--keep-last", "0"), ("--keep-last", "-1"), ("--keep-last", "some"), ("--keep-best", "2"),
        ("--metric", "val_loss"), ("--keep-last", "1", "--mode", "max"), ("--keep-within", "soon"),
        ("--keep-within", "0"), ("--keep-best", "1", "--metric", "x"), ("--keep-every-steps", "all"),
        ("--keep-best", "1", "--metric", "val_loss", "--mode", "least"), ("--max-size", "0"), ("--max-size", "much"),
        ("--min-free", "100%"), ("--min-free", "some%"), ("--min-free", "nan%"), ("--keep-tag", " "),
        ("--keep-last", "9" * 5000),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_says_nothing_is_refused(ckptctl: CommandLine, five: list[str], words: tuple[str, ...]) -> None:
    ended = ckptctl("forget", *words).check(2)
    assert "  What to do: " in ended.stderr
    assert listed(ckptctl) == five


def test_forgetting_and_giving_back_at_once(ckptctl: CommandLine, five: list[str]) -> None:
    planned = ckptctl("forget", "--keep-last", "2", "--prune", "--dry-run").check().stdout
    assert planned.endswith("Nothing to delete.\nWhat is to be removed by the rules would be deleted, too.\n")
    result = ckptctl.json("forget", "--keep-last", "2", "--prune")["result"]
    assert result["runs"][0]["removed"] == five[:3]
    assert len(result["pruned"]["deleted"]) == 3
    assert list((ckptctl.store / "trash").iterdir()) == []


def test_snapshots_of_tomorrow_are_left_alone(ckptctl: CommandLine, five: list[str]) -> None:
    store = create_store(ckptctl.store)
    created = datetime.now(UTC) + timedelta(days=1)
    name = f"{created:%Y%m%dT%H%M%SZ}-beef"
    put_snapshot(store.run("gpt").snapshot(name), {"core-1.img": b"core"}, id=name, run="gpt", created=created)
    ckptctl("forget", "--keep-last", "1").check()
    assert listed(ckptctl) == [*five[3:], name]


def test_damaged_snapshots_do_not_count_and_stay(ckptctl: CommandLine, five: list[str]) -> None:
    run = ckptctl.store / "runs" / "gpt"
    (run / five[4] / "manifest.json").write_text("{")
    (run / five[2] / "images" / "core-1.img").write_bytes(b"evil")
    ckptctl("forget", "--keep-last", "2").check()
    # The third one's bytes have not been read yet: nothing tells that it is damaged.
    assert listed(ckptctl) == [five[2], five[3], five[4]]
    ckptctl("verify", five[2], "--read-data").check(13)
    result = ckptctl.json("forget", "--keep-last", "1")["result"]["runs"][0]
    assert [one["id"] for one in result["keep"]] == five[2:]
    assert ["damaged" in [reason["rule"] for reason in one["reasons"]] for one in result["keep"]] == [True, False, True]


def test_the_newest_verified_one_stays_whatever_the_limit(ckptctl: CommandLine, five: list[str]) -> None:
    ckptctl("verify", five[1], "--read-data").check()
    ckptctl("verify", five[2]).check()  # names and sizes alone are no verification
    ckptctl("forget", "--max-size", "1").check(3)
    assert listed(ckptctl) == [five[1], *five[3:]]
    shown = ckptctl("show", five[1]).check().stdout
    assert re.search(r"verified .* UTC: every byte was right", shown)
    assert ckptctl.json("show", five[1])["result"]["verification"]["sound"] is True


# --- pins and tags


def test_a_pin_keeps_and_is_seen(ckptctl: CommandLine, five: list[str]) -> None:
    ckptctl("pin", five[0], "--reason", "the paper").check()
    assert ckptctl("list").check().stdout.splitlines()[1].endswith("  pinned")
    assert "the paper" in ckptctl("show", five[0]).check().stdout
    ckptctl("forget", "--keep-last", "1").check()
    assert listed(ckptctl) == [five[0], *five[3:]]
    refused = ckptctl("rm", five[0]).check(10)
    assert "the paper" in refused.stderr
    assert "--force" in refused.stderr
    since = ckptctl.json("show", five[0])["result"]["pin"]["since"]
    assert ckptctl.json("pin", five[0], "--reason", "the thesis")["result"]["pin"] == {
        "since": since,
        "reason": "the thesis",
    }
    assert "is pinned no more" in ckptctl("unpin", five[0]).check().stdout
    assert "was not pinned" in ckptctl("unpin", five[0]).check().stdout
    ckptctl("rm", five[0]).check()
    assert listed(ckptctl) == five[3:]


def test_tags_come_and_go_after_the_dump(ckptctl: CommandLine, add: Add) -> None:
    first, second = add("gpt", 1, tags=("dumped",)), add("gpt", 2, tags=("dumped",))
    before = (first / "manifest.json").read_bytes()
    assert ckptctl.json("tag", first.name, "--add", "a b", "--add", "x", "--remove", "dumped")["result"]["tags"] == [
        "a b",
        "x",
    ]
    assert (first / "manifest.json").read_bytes() == before
    assert ckptctl.json("show", "tag:a b")["result"]["manifest"]["id"] == first.name
    assert ckptctl.json("show", "tag:dumped")["result"]["manifest"]["id"] == second.name
    assert "tag x" in ckptctl("show", first.name).check().stdout
    assert ckptctl("list").check().stdout.splitlines()[1].endswith("backup, tag:a b, tag:x")
    assert "has no tags" in ckptctl("tag", first.name, "--remove", "a b", "--remove", "x").check().stdout
    ckptctl("tag", first.name).check(2)
    ckptctl("tag", first.name, "--add", "\n").check(2)
    ckptctl("verify", "--read-data").check()


def test_a_tag_keeps(ckptctl: CommandLine, five: list[str]) -> None:
    ckptctl("tag", five[0], "--add", "milestone").check()
    ckptctl("forget", "--keep-tag", "milestone", "--keep-tag", "other").check()
    assert listed(ckptctl) == [five[0], *five[3:]]


def test_a_folder_of_its_own_has_no_pin(ckptctl: CommandLine, tmp_path: Path, five: list[str]) -> None:
    folder = ckptctl.store / "runs" / "gpt" / five[0]
    folder.rename(tmp_path / "alone")
    assert "not in the store" in ckptctl("pin", tmp_path / "alone").check(2).stderr
    assert ckptctl.json("show", tmp_path / "alone")["result"]["pin"] is None


def test_labels_that_cannot_be_read_may_be_a_pin(ckptctl: CommandLine, five: list[str]) -> None:
    labels = ckptctl.store / "runs" / "gpt" / five[0] / "labels.json"
    labels.write_text(json.dumps({"version": 2}))
    ckptctl("forget", "--keep-last", "1").check()
    assert listed(ckptctl) == [five[0], *five[3:]]
    assert "cannot be read" in ckptctl("show", five[0]).check().stdout
    assert "E_LABELS" in ckptctl("pin", five[0], "--json").check(13).stdout
    labels.unlink()
    ckptctl("pin", five[0]).check()


def test_a_store_that_may_not_be_written_is_verified_all_the_same(
    ckptctl: CommandLine, add: Add, five: list[str]
) -> None:
    labels = ckptctl.store / "runs" / "gpt" / five[0] / "labels.json"
    labels.mkdir()
    ended = ckptctl("verify", five[0], "--read-data").check()
    assert "cannot be written down" in ended.stderr
    assert "sound (every byte checked)" in ended.stdout


def test_links_of_a_run_are_no_way_out_of_the_store(ckptctl: CommandLine, five: list[str], tmp_path: Path) -> None:
    run = create_store(ckptctl.store).run("gpt")
    ckptctl("forget", "--keep-best", "1", "--metric", "val_loss").check()
    run.best.unlink()
    run.best.symlink_to(tmp_path)
    assert links.target(run, run.best) is None
    assert ckptctl.json("show", "best")["result"]["manifest"]["id"] == five[1]
