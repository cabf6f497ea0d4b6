"""What the command line says about a schedule, and what it means."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptctl.errors import ExitStatus
from ckptctl.schedule.parse import (
    BadSchedule,
    PolicyWords,
    parse_every,
    parse_gpu_stable,
    parse_on_best,
    parse_overhead,
    parse_policy,
)
from ckptctl.schedule.policy import EveryAuto, EveryEpochs, EverySeconds, EverySteps, GpuStable, Interval, Policy
from ckptctl.schedule.wording import interval_words
from ckptctl.store.best import BestBy, Mode
from support.schedules import policy_of


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("500steps", EverySteps(500)),
        ("500 steps", EverySteps(500)),
        ("1step", EverySteps(1)),
        (" 10 Steps ", EverySteps(10)),
        ("1epoch", EveryEpochs(1)),
        ("2 epochs", EveryEpochs(2)),
        ("1ep", EveryEpochs(1)),
        ("30m", EverySeconds(1800)),
        ("30min", EverySeconds(1800)),
        ("30 minutes", EverySeconds(1800)),
        ("90s", EverySeconds(90)),
        ("90 sec", EverySeconds(90)),
        ("1h30m", EverySeconds(5400)),
        ("1h 30min", EverySeconds(5400)),
        ("2h", EverySeconds(7200)),
        ("1d", EverySeconds(86400)),
        ("1.5 hours", EverySeconds(5400)),
        ("500ms", EverySeconds(0.5)),
        ("auto", EveryAuto()),
        ("Auto", EveryAuto()),
    ],
)
def test_every(text: str, interval: Interval) -> None:
    assert parse_every(text) == interval


@pytest.mark.parametrize("text", ["", "500", "0steps", "0 epochs", "0s", "-5m", "30 parsecs", "steps", "1.5steps",
                                  "m", "1e3steps", "999999d", "\u0665steps", "30m steps", "1m30",
                                  "auto 5m"])  # fmt: skip
def test_every_refuses_with_a_hint(text: str) -> None:
    with pytest.raises(BadSchedule) as caught:
        parse_every(text)
    assert caught.value.hint
    assert "--every" in caught.value.message
    assert caught.value.exit_status is ExitStatus.USAGE


def test_a_number_without_a_unit_is_not_guessed_at() -> None:
    with pytest.raises(BadSchedule) as caught:
        parse_every("500")
    assert caught.value.hint == "Write 500s, or 500steps."


@given(st.one_of(
    st.builds(EverySteps, st.integers(1, 10**9)),
    st.builds(EveryEpochs, st.integers(1, 10**6)),
    st.builds(EverySeconds, st.integers(1, 59).map(float)),
    st.builds(EverySeconds, st.integers(1, 59).map(lambda minutes: minutes * 60.0)),
    st.builds(EverySeconds, st.integers(1, 23).map(lambda hours: hours * 3600.0)),
    st.just(EveryAuto()),
))  # fmt: skip
def test_what_is_shown_of_an_interval_can_be_typed(interval: Interval) -> None:
    words = interval_words(interval).removeprefix("every ")
    assert parse_every(f"1{words}" if words in {"step", "epoch"} else words) == interval


@given(st.text(max_size=16))
@example("1h\x0030m")
@example("9" * 400 + "s")
@example("9" * 400)
@example("9" * 4000 + "steps")
@example("1/1/1/1")
@example("9" * 400 + "%")
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    for parse in (parse_every, parse_on_best, parse_gpu_stable, parse_overhead):
        try:
            parse(text)
        except BadSchedule as error:
            assert error.hint


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("val_loss", BestBy("val_loss", Mode.MIN)),
        ("val_loss:min", BestBy("val_loss", Mode.MIN)),
        ("val_loss:max", BestBy("val_loss", Mode.MAX)),
        ("accuracy", BestBy("accuracy", Mode.MAX)),
        ("accuracy:MIN", BestBy("accuracy", Mode.MIN)),
        (" eval/loss : min ", BestBy("eval/loss", Mode.MIN)),
        ("a:b:max", BestBy("a:b", Mode.MAX)),
    ],
)
def test_on_best(text: str, rule: BestBy) -> None:
    assert parse_on_best(text) == rule


@pytest.mark.parametrize(
    "text", ["", ":", ":min", "val_loss:", "val_loss:lower", "a:b", "  :max", "x", "step_time", "fact"]
)
def test_on_best_refuses(text: str) -> None:
    with pytest.raises(BadSchedule, match="--on-best") as caught:
        parse_on_best(text)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["acc", "val_acc", "valAcc", "acc@1", "top5_acc", "eval/accuracy", "f1", "macro-F1",
                                  "val_auc", "BLEU", "bleu4", "rouge2", "rougeL", "mAP", "r2", "mIoU", "eval_reward",
                                  "F1Score", "ap50"])  # fmt: skip
def test_names_of_which_more_is_better(name: str) -> None:
    assert parse_on_best(name).mode is Mode.MAX


@pytest.mark.parametrize("name", ["loss", "val_loss", "valLoss", "f1_loss", "accuracy_loss", "reward/loss",
                                  "ppl", "perplexity", "rmse", "error", "top1_error", "wer"])  # fmt: skip
def test_names_of_which_less_is_better(name: str) -> None:
    assert parse_on_best(name).mode is Mode.MIN


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("default", GpuStable(64 << 20, 10, 300)),
        ("1GiB", GpuStable(1 << 30, 10, 300)),
        ("64MiB/10s", GpuStable(64 << 20, 10, 300)),
        ("0/30s/90s", GpuStable(0, 30, 90)),
        (" 64MiB / 10 sec / 5 min ", GpuStable(64 << 20, 10, 300)),
        # A limit that is left out leaves room for the window.
        ("64MiB/5m", GpuStable(64 << 20, 300, 600)),
    ],
)
def test_when_gpu_stable(text: str, rule: GpuStable) -> None:
    assert parse_gpu_stable(text) == rule


@pytest.mark.parametrize("text", ["", "64MiB/", "10s", "64MiB/10s/5s", "64MiB/20m", "64MiB/10s/5m/1", "/10s", "-1MiB",
                                  "64MiB/0s"])  # fmt: skip
def test_when_gpu_stable_refuses(text: str) -> None:
    with pytest.raises(BadSchedule, match="--when-gpu-stable") as caught:
        parse_gpu_stable(text)
    assert caught.value.hint


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.5 %", 0.005), ("99.9%", 0.999)])
def test_max_overhead(text: str, share: float) -> None:
    assert parse_overhead(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "5", "0.05", "0%", "100%", "250%", "-5%", "%"])
def test_max_overhead_refuses(text: str) -> None:
    with pytest.raises(BadSchedule, match="--max-overhead"):
        parse_overhead(text)


def test_a_whole_policy() -> None:
    words = PolicyWords(
        every=("500steps", "auto", "500 steps"), mtbf="6h", first_after="2m", at_epoch_end=True,
        on_best=("val_loss", "acc", "val_loss:min"), when_gpu_stable="1MiB", min_interval="5m", max_overhead="5%",
    )  # fmt: skip
    assert parse_policy(words) == Policy(
        every=(EverySteps(500), EveryAuto(21600.0)),
        first_after_s=120.0,
        at_epoch_end=True,
        on_best=(BestBy("val_loss", Mode.MIN), BestBy("acc", Mode.MAX)),
        when_gpu_stable=GpuStable(1 << 20),
        min_interval_s=300.0,
        max_overhead=0.05,
    )


def test_nothing_said_is_no_trigger() -> None:
    assert parse_policy(PolicyWords()) == Policy()
    assert not Policy().has_triggers


@pytest.mark.parametrize("option", ["min_interval", "max_overhead", "when_gpu_stable", "mtbf"])
def test_an_option_that_would_do_nothing_is_refused(option: str) -> None:
    text = {"max_overhead": "5%", "when_gpu_stable": "default"}.get(option, "5m")
    with pytest.raises(BadSchedule, match="--" + option.replace("_", "-")) as caught:
        policy_of(**{option: text})
    assert "--every" in (caught.value.hint or "")


def test_mtbf_needs_auto() -> None:
    with pytest.raises(BadSchedule, match="--mtbf"):
        policy_of("30m", mtbf="6h")
    assert policy_of("auto", mtbf="6h").every == (EveryAuto(21600.0),)


def test_a_metric_has_one_mode() -> None:
    with pytest.raises(BadSchedule, match="min and as max"):
        policy_of(on_best=("a:min", "a:max"))


@pytest.mark.parametrize("option", ["first_after", "min_interval", "mtbf"])
def test_a_bad_duration_names_its_option(option: str) -> None:
    with pytest.raises(BadSchedule, match="--" + option.replace("_", "-")):
        policy_of("auto", **{option: "soon"})
