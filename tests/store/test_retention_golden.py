"""A table of policies and what each keeps of two runs, with every reason: golden/retention.txt, to be read by people.

With CKPTCTL_GOLDEN=write it is written anew. The idea is that of the truth table in Determined's reference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ckptctl.store.best import BestBy, Mode
from ckptctl.store.retention import ALL, MinFree, Retention
from ckptctl.store.retention_judge import judge
from ckptctl.store.retention_verdict import Condition, Disk, Facts, Rule

TABLE: Final = Path(__file__).parent / "golden" / "retention.txt"
NOW: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DISK: Final = Disk(free_bytes=300, total_bytes=1000)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Three epochs of 100 steps, a validation at 40, 90, 140 ... whose value stays until the next one.
TRAINING: Final = tuple(
    Facts(
        f"t{number:02}",
        NOW - timedelta(minutes=30 * (14 - number)),
        size_bytes=100,
        step=step,
        epoch=step // 100,
        metrics={} if loss is None else {"val_loss": loss},
        tags=frozenset({"before-lr-change"} if number == 6 else ()),
        pinned=number == 2,
        verified=number in (1, 4),
        is_latest=number == 14,
        is_backup=number == 13,
    )
    for number, (step, loss) in enumerate(
        [
            (20, None), (45, 0.9), (65, 0.9), (88, 0.9), (110, 0.7), (131, 0.7), (152, 0.4), (175, 0.4), (199, 0.6),
            (221, 0.6), (240, float("nan")), (262, float("nan")), (281, 0.5), (297, 0.5), (305, 0.4),
        ]
    )
)  # fmt: skip

# Weeks of snapshots with everything that can be wrong with one.
LONG: Final = (
    Facts("w01", at("2026-10-25 23:59"), 40, step=1),
    Facts("w02", at("2026-10-26 00:00"), 40, step=2),  # a Monday
    Facts("w03", at("2026-11-08 12:00"), 40, step=3, verified=True),
    Facts("w04", at("2026-11-17 08:00"), 40, Condition.DAMAGED, step=4, pinned=True),
    Facts("w05", at("2026-11-18 08:00"), 40, Condition.DAMAGED, step=5),
    Facts("w06", at("2026-11-18 08:30"), 40, step=6, labels_known=False),
    Facts("w07", at("2026-11-18 23:50"), 40, step=7),
    Facts("w08", at("2026-11-19 00:10"), 40, Condition.TOO_NEW, step=8),
    Facts("w09", at("2026-11-19 09:05"), 40, step=9, in_use=True),
    Facts("w10", at("2026-11-19 09:55"), 40, step=10),
    Facts("w11", at("2026-11-19 10:00"), 40, step=11, is_best=True),
    Facts("w12", at("2026-11-20 11:00"), 40, Condition.DAMAGED, step=12, is_backup=True),
    Facts("w13", at("2026-11-20 11:30"), 40, Condition.DAMAGED, step=13, is_latest=True),
    Facts("w14", at("2026-11-21 11:30"), 40, step=14, verified=True),
)
LOSS: Final = BestBy("val_loss", Mode.MIN)

POLICIES: Final = (
    ("--keep-last 1", TRAINING, Retention(keep_last=1)),
    ("--keep-last 3", TRAINING, Retention(keep_last=3)),
    ("--keep-epochs all", TRAINING, Retention(keep_epochs=ALL)),
    ("--keep-epochs 2", TRAINING, Retention(keep_epochs=2)),
    ("--keep-best 1 --metric val_loss --mode min", TRAINING, Retention(keep_best=1, best_by=LOSS)),
    ("--keep-best 3 --metric val_loss --mode min", TRAINING, Retention(keep_best=3, best_by=LOSS)),
    (
        "--keep-best 2 --metric val_loss --mode max", TRAINING,
        Retention(keep_best=2, best_by=BestBy("val_loss", Mode.MAX)),
    ),
    ("--keep-best 2 --metric accuracy", TRAINING, Retention(keep_best=2, best_by=BestBy("accuracy", Mode.MAX))),
    ("--keep-every-steps 50", TRAINING, Retention(keep_every_steps=50)),
    ("--keep-every-steps 1000", TRAINING, Retention(keep_every_steps=1000)),
    ("--keep-within 1h", TRAINING, Retention(keep_within_s=3600)),
    ("--keep-tag before-lr-change", TRAINING, Retention(keep_tags=("before-lr-change",))),
    (
        "--keep-last 2 --keep-epochs all --keep-best 1 --metric val_loss --keep-every-steps 100", TRAINING,
        Retention(keep_last=2, keep_epochs=ALL, keep_best=1, best_by=LOSS, keep_every_steps=100),
    ),
    ("--max-size 600", TRAINING, Retention(max_size_bytes=600)),
    (
        "--keep-last 5 --keep-epochs all --keep-best 2 --metric val_loss --max-size 700", TRAINING,
        Retention(keep_last=5, keep_epochs=ALL, keep_best=2, best_by=LOSS, max_size_bytes=700),
    ),
    (
        "--keep-best 3 --metric val_loss --max-size 600", TRAINING,
        Retention(keep_best=3, best_by=LOSS, max_size_bytes=600),
    ),
    (
        "--keep-last 10 --max-size 900 --min-free 80% (30% are free, each takes 10%)", TRAINING,
        Retention(keep_last=10, max_size_bytes=900, min_free=MinFree(percent=80)),
    ),
    ("--keep-last 10 --max-size 200", TRAINING, Retention(keep_last=10, max_size_bytes=200)),
    (
        "--keep-last 10 --min-free 90% (30% are free, each takes 10%)", TRAINING,
        Retention(keep_last=10, min_free=MinFree(percent=90)),
    ),
    ("--min-free 500 (300 free)", TRAINING, Retention(min_free=MinFree(size_bytes=500))),
    ("--keep-last 1", LONG, Retention(keep_last=1)),
    ("--keep-hourly 3", LONG, Retention(keep_hourly=3)),
    ("--keep-daily 2", LONG, Retention(keep_daily=2)),
    ("--keep-weekly all", LONG, Retention(keep_weekly=ALL)),
    ("--keep-within 2d", LONG, Retention(keep_within_s=2 * 86400)),
    ("--keep-last 3 --max-size 400", LONG, Retention(keep_last=3, max_size_bytes=400)),
)  # fmt: skip


def rendered() -> Iterator[str]:
    yield "Policies and what they keep. Of each run first what is known of its snapshots, each of 100 or 40 bytes."
    for name, run in (("A training run", TRAINING), ("A long run with damaged snapshots", LONG)):
        yield from ("", f"# {name}; now it is {NOW:%Y-%m-%d %H:%M}", "")
        yield from (_known(one) for one in run)
        for words, of, policy in POLICIES:
            if of is run:
                judgement = judge(policy, run, now=NOW, disk=DISK)
                kept = " ".join(verdict.id for verdict in judgement.kept)
                yield from ("", f"{words}", f"  keeps {kept}")
                for verdict in judgement.verdicts:
                    mark = "+" if verdict.kept else "-"
                    if verdict.reasons[0].rule is not Rule.UNKEPT:
                        yield f"  {mark} {verdict.id} " + ", ".join(reason.text for reason in verdict.reasons)
                yield from (f"  ! {one.text}" for one in judgement.unmet)


def _known(one: Facts) -> str:
    loss = one.metrics.get("val_loss")
    flags = (
        ("latest", one.is_latest), ("backup", one.is_backup), ("best", one.is_best), ("pinned", one.pinned),
        ("verified", one.verified), ("in use", one.in_use), ("labels unknown", not one.labels_known),
        (one.condition.value, one.condition is not Condition.SOUND), (f"tags {sorted(one.tags)}", bool(one.tags)),
        (f"val_loss {loss}", loss is not None), (f"epoch {one.epoch}", one.epoch is not None),
    )  # fmt: skip
    words = [f"step {one.step}", *(word for word, holds in flags if holds)]
    return f"{one.id} {one.created:%Y-%m-%d %H:%M} " + ", ".join(words)


def test_policies_keep_what_the_table_says() -> None:
    text = "\n".join(rendered()) + "\n"
    if os.environ.get("CKPTCTL_GOLDEN") == "write":
        TABLE.write_text(text)
    assert text == TABLE.read_text()
