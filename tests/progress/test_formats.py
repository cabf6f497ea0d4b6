"""Lines as real programs print them, and what they tell."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.progress.formats import AUTOMATIC, READY, BadPattern, from_pattern
from ckptctl.store import manifest_json
from ckptctl.store.manifest import Progress
from support.manifests import make_manifest

Told = tuple[int | None, int | None, dict[str, float]]

# line, (step, epoch, metrics); what they are of stands before each.
LINES: list[tuple[str, str, Told]] = [
    ("nanoGPT", "iter 100: loss 1.2345, time 12.34ms, mfu 1.23%", (100, None, {"loss": 1.2345})),
    (
        "nanoGPT-eval",
        "step 250: train loss 2.4112, val loss 2.5031",
        (250, None, {"train_loss": 2.4112, "val_loss": 2.5031}),
    ),
    ("plain", "step 100 loss 1.23", (100, None, {"loss": 1.23})),
    ("brackets", "[Epoch 3][Step 100] loss=0.25 lr=1e-4", (100, 3, {"loss": 0.25})),
    ("tutorial", "Epoch [3/10], Step [100/600], Loss: 0.3012", (100, 3, {"loss": 0.3012})),
    ("mnist", "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.300585", (None, 1, {"loss": 2.300585})),
    (
        "mnist-test",
        "Test set: Average loss: 0.0510, Accuracy: 9850/10000 (98%)",
        (None, None, {"average_loss": 0.051}),
    ),
    ("keras-epoch", "Epoch 3/10", (None, 3, {})),
    (
        "keras-2",
        "100/100 [==============================] - 1s 5ms/step - loss: 0.3012 - accuracy: 0.9123 - val_loss: 0.4001",
        (None, None, {"loss": 0.3012, "accuracy": 0.9123, "val_loss": 0.4001}),
    ),
    (
        "keras-3",
        "100/100 ━━━━━━━━━━━━━━━━━━━━ 1s 5ms/step - accuracy: 0.9123 - loss: 0.3012 - val_loss: 0.4001",
        (None, None, {"loss": 0.3012, "accuracy": 0.9123, "val_loss": 0.4001}),
    ),
    (
        "megatron",
        "iteration      100/  500000 | consumed samples:        25600 | elapsed time per iteration (ms): 1234.5 | "
        "learning rate: 1.5E-04 | global batch size:   256 | lm loss: 6.412345E+00 | grad norm: 1.234 |",
        (100, None, {"lm_loss": 6.412345}),
    ),
    (
        "torchtitan",
        "[titan] 2026-01-01 00:00:00,000 - root - INFO - step: 10  loss:  8.1234  memory: 10.1GiB(12.9%)  tps: 5,123",
        (10, None, {"loss": 8.1234}),
    ),
    ("deepspeed", "[INFO] [logging.py:96:log_dist] [Rank 0] step=40, skipped=0, lr=[1e-05]", (40, None, {})),
    ("timm", "Train: 3 [ 100/1251 (  8%)]  Loss: 6.9 (6.85)  Time: 0.25s", (None, None, {"loss": 6.9})),
    (
        "mmengine",
        "01/01 10:00:00 - mmengine - INFO - Epoch(train) [1][ 100/500]  lr: 1.0e-02  eta: 0:10:00  loss: 0.3512",
        (None, 1, {"loss": 0.3512}),
    ),
    ("percent", "Epoch: 5 | Train loss: 0.4 | Val acc: 98.1%", (None, 5, {"train_loss": 0.4, "val_acc": 98.1})),
    ("thousands", "global_step: 12,345 | val/loss: 1.5e-3", (12345, None, {"val/loss": 0.0015})),
    ("infinite", "epoch=3 step=1200 loss=inf", (1200, 3, {"loss": math.inf})),
    (
        "huggingface",
        "{'loss': 2.3145, 'grad_norm': 1.25, 'learning_rate': 4.5e-05, 'epoch': 1.53}",
        (None, 1, {"loss": 2.3145, "grad_norm": 1.25, "learning_rate": 4.5e-05}),
    ),
    (
        "huggingface-5",
        "{'loss': '2.314', 'grad_norm': '1.25', 'learning_rate': '4.5e-05', 'epoch': '0.53'}",
        (None, 0, {"loss": 2.314, "grad_norm": 1.25, "learning_rate": 4.5e-05}),
    ),
    ("json", '{"epoch": 3, "iter": 100, "lr": 0.01, "loss": 0.35}', (100, 3, {"lr": 0.01, "loss": 0.35})),
    ("fairseq", '{"epoch": 2, "train_loss": "3.21", "num_updates": "1200"}', (1200, 2, {"train_loss": 3.21})),
    (
        "lightning",
        "Epoch 3:  45%|████▌     | 45/100 [00:10<00:12,  4.30it/s, v_num=0, train_loss=1.250]",
        (345, 3, {"train_loss": 1.25}),
    ),
    (
        "lightning-rich",
        "Epoch 3/9 ━━━━━━━━━━━━━━━━ 45/100 0:00:10 • 0:00:12 4.30it/s v_num: 0.000 train_loss: 1.25",
        (345, 3, {"train_loss": 1.25}),
    ),
]

TELL_NOTHING = [
    "  Total optimization steps = 1,000",
    "  Num Epochs = 3",
    "Saving model checkpoint to ./out/checkpoint-500",
    "warmup steps: 100, max_steps=1000",
    "time per step: 0.5 s",
    "max step 1000",
    "step 0.5",
    "step 12ms",
    "step 12 s",
    "epoch 1.5 s",
    "a footstep 12 behind",
    " 45%|████▌     | 450/1000 [00:10<00:12,  4.30it/s, loss=1.2]",
    "Map: 100%|██████████| 50000/50000 [00:10<00:00, 5000.00 examples/s]",
    "Validation DataLoader 0: 100%|██████████| 10/10 [00:00<00:00, 100.00it/s]",
    '{"message": "hello"}',
    "{'train_batch_size': 8}",
    "{not json}",
    "loss 5/7",
    "",
]


@pytest.mark.parametrize(("line", "told"), [(line, told) for _, line, told in LINES], ids=[name for name, *_ in LINES])
def test_the_usual_forms_are_understood(line: str, told: Told) -> None:
    found = AUTOMATIC.find(line)
    assert found is not None
    assert (found.step, found.epoch, dict(found.metrics)) == told


@pytest.mark.parametrize("line", TELL_NOTHING)
def test_other_lines_tell_nothing(line: str) -> None:
    assert AUTOMATIC.find(line) is None


def test_a_loss_that_became_nan_is_seen() -> None:
    found = AUTOMATIC.find("step 7 loss nan")
    assert found is not None
    assert found.step == 7
    assert math.isnan(found.metrics["loss"])


def test_one_bar_for_the_whole_training() -> None:
    found = READY["tqdm"].find(" 45%|████▌     | 450/1000 [00:10<00:12,  4.30it/s, loss=1.2]")
    assert found is not None
    assert (found.step, found.steps_in_all, found.metrics) == (450, 1000, {"loss": 1.2})


@pytest.mark.parametrize("name", READY)
def test_each_form_understands_the_example_in_its_description(name: str) -> None:
    form = READY[name]
    examples = form.description.split("`")[1::2]
    assert name == "auto" or examples
    for example in examples:
        found = form.find(example.replace("[...]", "[00:10<00:12, 4.30it/s]"))
        assert found is not None, example


def test_a_pattern_of_ones_own() -> None:
    form = from_pattern(r"batch (?P<step>[\d,]+) of epoch (?P<epoch>\d+)(?:, wer (?P<wer>\S+))?")
    found = form.find("batch 1,200 of epoch 3, wer 12.5")
    assert found is not None
    assert (found.step, found.epoch, found.metrics) == (1200, 3, {"wer": 12.5})
    without = form.find("batch 1,300 of epoch 3")
    assert without is not None
    assert (without.step, without.metrics) == (1300, {})
    assert form.find("something else") is None


@pytest.mark.parametrize(
    "pattern", ["step (", r"step (\d+)", "kears", "(?P<step>", "(?P<1>x)", "a{99999999999}(?P<a>.)"]
)
def test_a_pattern_that_finds_nothing_out_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern) as caught:
        from_pattern(pattern)
    assert caught.value.hint


@given(
    st.text() | st.lists(st.sampled_from([*"{}'\":|%[]=,.- 0123456789", "step", "epoch", "loss", "1/2 ["])).map("".join)
)
def test_whatever_a_line_is_the_manifest_can_hold_what_it_tells(line: str) -> None:
    for form in (*READY.values(), from_pattern(r"(?P<step>.*?)\s(?P<loss>.*)")):
        found = form.find(line)
        if found is not None:
            progress = Progress(found.step, found.epoch, found.metrics, form.name)
            manifest_json.to_json(make_manifest(progress=progress))


@pytest.mark.parametrize(
    "piece",
    [
        "step ",
        "1",
        "loss ",
        "train ",
        "train val ",
        "a",
        "step" + " " * 40,
        ",111",
        "|",
        "5%|",
        "{'epoch'",
        "a=",
        "━",
        "{'",
    ],
)
@pytest.mark.parametrize("name", READY)
def test_no_line_takes_for_ever(name: str, piece: str) -> None:
    """Four times the line must not take sixteen times as long, as it would with a pattern that goes back and forth."""
    short, long = ("Epoch 1/1 " + piece * (count // len(piece)) for count in (2000, 8000))
    assert _seconds(name, long) < 10 * _seconds(name, short) + 0.002


def _seconds(name: str, line: str) -> float:
    """The least of several, which other work on the machine hardly disturbs."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        READY[name].find(line)
        times.append(time.perf_counter() - began)
    return min(times)
