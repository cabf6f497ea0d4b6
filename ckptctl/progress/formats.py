"""Lines of logs that tell how far a training is: the usual forms, and a user's own regular expression.

Patterns meet whatever a job prints: each is applied to lines of bounded length, and none can backtrack for long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ckptctl.errors import UsageError
from ckptctl.progress import values
from ckptctl.progress.values import Found

_NUMBER: Final = r"[-+]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][-+]?\d{1,4})?|[-+]?(?:nan|inf(?:inity)?)\b"


class BadPattern(UsageError):
    """A pattern for a log that finds nothing out."""

    code = "E_PROGRESS_PATTERN"


@dataclass(frozen=True, slots=True)
class Format:
    """A form that lines of a log may have. `find` gets one line and returns None for any other line."""

    name: str
    description: str
    find: Callable[[str], Found | None]


def from_pattern(pattern: str) -> Format:
    """A user's regular expression: the named groups step, epoch, and any other as a metric. Raises BadPattern."""
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadPattern(
            f"{pattern!r} is no regular expression: {error}.", hint=r"For example log:step (?P<step>\d+)"
        ) from error
    if not expression.groupindex:
        raise BadPattern(
            f"{pattern!r} has no named group, and is none of the forms {', '.join(READY)}.",
            hint=r"Name what is to be found: log:it (?P<step>\d+), loss (?P<loss>[\d.]+)",
        )

    def find(line: str) -> Found | None:
        match = expression.search(line)
        if match is None:
            return None
        groups = match.groupdict()
        measured = values.metrics((name, text) for name, text in groups.items() if name not in {"step", "epoch"})
        return Found(values.whole(groups.get("step")), values.whole(groups.get("epoch")), measured)

    return Format("pattern", pattern, find)


# ---- one JSON object a line ----

_STEP_NAMES: Final = ("global_step", "step", "iteration", "iter", "num_updates")


def _json(line: str) -> Found | None:
    if not line.startswith("{") or not line.rstrip().endswith("}"):
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _of_mapping(document)


def _of_mapping(document: Mapping[str, object]) -> Found | None:
    step = next((found for name in _STEP_NAMES if (found := values.whole(document.get(name))) is not None), None)
    epoch = values.whole(document.get("epoch"))
    if step is None and epoch is None:
        return None
    return Found(step, epoch, values.metrics((k, v) for k, v in document.items() if k not in {*_STEP_NAMES, "epoch"}))


# ---- Hugging Face's Trainer: a Python dictionary; since version 5 its numbers are in quotes ----

_DICTIONARY: Final = re.compile(r"\{'[^{}]{1,4000}\}")
_DICTIONARY_PAIR: Final = re.compile(rf"'([^']{{1,128}})': '?({_NUMBER})'?(?=[,}}])")


def _huggingface(line: str) -> Found | None:
    match = _DICTIONARY.search(line) if "'epoch'" in line else None
    return _of_mapping(dict(_DICTIONARY_PAIR.findall(match[0]))) if match else None


# ---- bars of tqdm ----

_BAR: Final = re.compile(
    r"(?P<title>[^|]{0,200}?)\s{0,4}\d{1,3}%\|[^|]{0,400}\|\s{0,20}"
    r"(?P<done>\d{1,15})/(?P<all>\d{1,15}) \[(?P<rest>.{0,2000})"
)
_RICH_BAR: Final = re.compile(
    r"(?P<title>Epoch \d{1,9}/\d{1,9}) [^\w|]{3,400}(?P<done>\d{1,15})/(?P<all>\d{1,15})\b(?P<rest>.{0,2000})"
)
_BAR_PAIR: Final = re.compile(rf"(?<![\w/.-])([A-Za-z][\w/.-]{{0,100}})(?:=|: )({_NUMBER})(?![\w/%])")
_BAR_EPOCH: Final = re.compile(r"\bepoch\b\D{0,4}(\d{1,15})", re.IGNORECASE)


def _bar(line: str) -> tuple[re.Match[str], dict[str, float]] | None:
    match = _BAR.match(line) or _RICH_BAR.match(line)
    if match is None:
        return None
    pairs = ((name, text) for name, text in _BAR_PAIR.findall(match["rest"]) if name not in {"v_num", "epoch"})
    return match, values.metrics(pairs)


def _epoch_bar(line: str) -> Found | None:
    """A bar for each epoch, as Lightning has them. Its steps are counted on from those of the epochs before."""
    found = _bar(line) if "poch" in line else None
    epoch = _BAR_EPOCH.search(found[0]["title"]) if found else None
    if found is None or epoch is None:
        return None
    match, measured = found
    return Found(values.whole(int(epoch[1]) * int(match["all"]) + int(match["done"])), int(epoch[1]), measured)


def _any_bar(line: str) -> Found | None:
    """One bar for the whole training. Shorter ones, such as of evaluations, are told apart by `steps_in_all`."""
    found = _bar(line)
    if found is None:
        return None
    match, measured = found
    return Found(values.whole(int(match["done"])), None, measured, steps_in_all=int(match["all"]))


# ---- words and numbers ----

_GAP: Final = r"[\s:=#\[(]{1,24}"
# Neither the beginning of a fraction (step 0.5) nor a duration (step 12ms).
_WHOLE: Final = r"(\d{1,3}(?:,\d{3}){1,5}|\d{1,18})(?![\d.]?\d|[.,]\d|\s?(?:ms|s|sec|seconds|min|%)\b|%)"
_NOT_AFTER: Final = "".join(
    rf"(?<!{word}[ _-])" for word in ("per", "max", "total", "warmup", "every", "each", "num", "of", "time", "last")
)
_STEP: Final = re.compile(
    rf"(?<![\w/]){_NOT_AFTER}(?:global[ _-]?step|step|iter(?:ation)?){_GAP}{_WHOLE}", re.IGNORECASE
)
_EPOCH: Final = re.compile(
    rf"(?<![\w/]){_NOT_AFTER}epoch(?:\((?:train|val|test)\))?{_GAP}(\d{{1,18}})(?:\.\d{{1,20}})?(?![\d.]|\s?(?:ms|s|%)\b)",
    re.IGNORECASE,
)
_PAIR: Final = re.compile(
    rf"(?<![\w/.@-])([A-Za-z][\w/.@-]{{0,100}})[ \t:=]{{1,12}}({_NUMBER})(?![\w/])", re.IGNORECASE
)
# Of all that has a number, only what says how good the model is.
_OUTCOME: Final = re.compile(
    r"loss|acc|ppl|perplexity|bleu|rouge|f1|auc|auroc|mse|mae|wer|cer|bpb|bpc|iou|map|dice|psnr|reward|score",
    re.IGNORECASE,
)
_QUALIFIERS: Final = re.compile(
    r"(?<![\w/.@-])(?:(?:train|training|val|valid|validation|eval|test|best|avg|average|mean|lm) ){1,2}$", re.IGNORECASE
)
_LONGEST_QUALIFIERS: Final = 24


def _words(line: str) -> Found | None:
    step, epoch = _STEP.search(line), _EPOCH.search(line)
    measured = values.metrics(_outcomes(line)) if _OUTCOME.search(line) else {}
    if not (step or epoch or measured):
        return None
    return Found(values.whole(step[1]) if step else None, values.whole(epoch[1]) if epoch else None, measured)


def _outcomes(line: str) -> Iterator[tuple[str, str]]:
    """`Val Loss: 1.5` as ("val_loss", "1.5"): what stands in a log as words is named in one way."""
    for match in _PAIR.finditer(line):
        if _OUTCOME.search(match[1]):
            qualified = _QUALIFIERS.search(line, max(0, match.start() - _LONGEST_QUALIFIERS), match.start())
            yield ((qualified[0] if qualified else "") + match[1]).lower().replace(" ", "_"), match[2]


def _automatic(line: str) -> Found | None:
    if "%|" in line:
        return _epoch_bar(line)  # other bars may be those of anything
    return _epoch_bar(line) or _json(line) or _huggingface(line) or _words(line)


AUTOMATIC: Final = Format("auto", "json, huggingface, epochs and words, whichever fits a line", _automatic)
READY: Final[Mapping[str, Format]] = {
    form.name: form
    for form in (
        AUTOMATIC,
        Format("json", 'a JSON object on each line: `{"step": 100, "loss": 2.31}`', _json),
        Format(
            "huggingface", "the dictionaries of Hugging Face's Trainer: `{'loss': 2.31, 'epoch': 0.53}`", _huggingface
        ),
        Format(
            "epochs", "a progress bar for each epoch, as Lightning has: `Epoch 3:  45%|████ | 45/100 [...]`", _epoch_bar
        ),
        Format("tqdm", "one progress bar for the whole training: ` 45%|████ | 450/1000 [...]`", _any_bar),
        Format("words", "words and numbers: `step 100: train loss 2.31`, `[Epoch 3][Step 100]`, `iter 100`", _words),
    )
}
