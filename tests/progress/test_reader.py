"""Several sources together: who is believed, and what becomes of one that is in disorder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptctl.errors import UsageError
from ckptctl.events import Caution, Event
from ckptctl.progress.given import CommandLine
from ckptctl.progress.iteration_file import IterationFile
from ckptctl.progress.parse import Places, parse_source, parse_sources
from ckptctl.progress.reader import ProgressReader, merge
from ckptctl.progress.source import Source
from ckptctl.progress.status_file import StatusFile
from ckptctl.store.manifest import Progress


class Heard:
    """Keeps the cautions."""

    def __init__(self) -> None:
        self.cautions: list[Caution] = []

    def report(self, event: Event) -> None:
        assert isinstance(event, Caution)
        self.cautions.append(event)

    def close(self) -> None:
        """Nothing is held."""


def test_the_first_source_that_knows_a_thing_is_believed() -> None:
    status = Progress(20, None, {"loss": 1.0}, "status file", {"loss": 20})
    table = Progress(18, 3, {"loss": 9.0, "val_loss": 2.0}, "metrics.csv", {"loss": 18, "val_loss": 15})
    silent = Progress(19, 4, {"loss": 8.0}, "log", {})
    assert merge([status, table, silent]) == Progress(
        20, 3, {"loss": 1.0, "val_loss": 2.0}, "status file, metrics.csv", {"loss": 20, "val_loss": 15}
    )


def test_what_was_measured_after_the_step_was_taken_back() -> None:
    status = Progress(20, None, {}, "status file")
    table = Progress(30, None, {"val_loss": 2.0, "acc": 0.5, "ppl": 9.0}, "metrics.csv", {"val_loss": 21, "acc": 20})
    merged = merge([status, table])
    assert (merged.metrics, merged.metric_steps) == ({"acc": 0.5, "ppl": 9.0}, {"acc": 20})


def test_nothing_known_has_no_source() -> None:
    assert merge([]) == merge([Progress(), Progress()]) == Progress()
    assert ProgressReader([]).read() == Progress()


def test_a_source_in_disorder_keeps_what_it_knew_and_is_complained_of_once(tmp_path: Path) -> None:
    path, heard = tmp_path / "iteration", Heard()
    reader = ProgressReader([IterationFile(path), CommandLine(None, 2)], heard)
    path.write_text("120\n")
    assert reader.read() == Progress(120, 2, {}, "iteration file, command line")
    for broken in ("rubbish", "more rubbish"):
        path.write_text(broken)
        assert reader.read().step == 120
    path.write_text("130\n")
    assert reader.read().step == 130
    path.write_text("rubbish")
    assert reader.read().step == 130
    assert [caution.code for caution in heard.cautions] == ["W_PROGRESS"]
    assert f"the iteration file ({path}): it holds" in heard.cautions[0].text
    assert "'rubbish'" in heard.cautions[0].text


def test_a_source_that_is_not_there_yet_is_nothing_to_complain_of(tmp_path: Path) -> None:
    heard = Heard()
    words = ("auto", f"hf:{tmp_path}/out", f"lightning:{tmp_path}", f"file:{tmp_path}/it")
    sources = parse_sources(words, Places(tmp_path / "status.json", (tmp_path / "log",)))
    assert ProgressReader(sources, heard).read() == Progress()
    assert heard.cautions == []


# ---- words ----


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "status.json", (tmp_path / "stdout.log", tmp_path / "stderr.log"))


def names(sources: tuple[Source, ...]) -> list[str]:
    return [source.name for source in sources]


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("auto", ["status file", "log stdout.log (auto)", "log stderr.log (auto)"]),
        ("status", ["status file"]),
        ("log", ["log stdout.log (auto)", "log stderr.log (auto)"]),
        ("log:tqdm", ["log stdout.log (tqdm)", "log stderr.log (tqdm)"]),
        (r"log:at (?P<step>\d+)", ["log stdout.log (pattern)", "log stderr.log (pattern)"]),
        ("hf:out", ["trainer_state.json"]),
        ("lightning:a:b", ["metrics.csv"]),
        ("file:/x/it", ["iteration file"]),
    ],
)
def test_words_and_their_sources(places: Places, word: str, named: list[str]) -> None:
    assert names(parse_source(word, places)) == named


def test_without_a_word_it_is_auto_and_the_order_is_that_of_the_words(places: Places) -> None:
    assert names(parse_sources((), places)) == names(parse_source("auto", places))
    assert names(parse_sources(("hf:out", "status"), places)) == ["trainer_state.json", "status file"]
    first = parse_sources((), places)[0]
    assert isinstance(first, StatusFile)
    assert first.path == places.status


@pytest.mark.parametrize(
    "word", ["", "hf", "hf:", "file:", "log:", "status:x", "auto:", "wandb:x", "log:kears", "log:(", "file:a\0b"]
)
def test_other_words_are_refused(places: Places, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(word, places)
    assert caught.value.hint


def test_a_path_too_long_is_a_source_in_disorder(places: Places) -> None:
    heard = Heard()
    assert ProgressReader(parse_source(f"file:{'x' * 5000}", places), heard).read() == Progress()
    assert len(heard.cautions) == 1
