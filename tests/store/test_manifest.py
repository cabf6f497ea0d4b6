"""The manifest on disk: what goes in comes out, and what nobody could have written is refused in words."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.images.levels import Compression
from ckptctl.store import manifest_json
from ckptctl.store.manifest import ContainerRecord, FileUser, ImageRecord, Images, OpenFile, PackRecord, Progress, Tree
from ckptctl.store.manifest_json import ManifestDamaged, ManifestTooNew, describe_manifest, from_json, to_json
from support.manifests import make_manifest, make_process

GOLDEN = Path(__file__).with_name("golden") / "manifest-v1.json"

# What os.fsdecode makes of any bytes that a path or an argument can have.
os_text = st.binary(max_size=30).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
sizes = st.integers(0, 2**63 - 1)
pids = st.integers(1, 4 * 1024 * 1024)
image_names = st.from_regex(r"[a-z0-9 '\";-]{1,20}\.img", fullmatch=True)


@st.composite
def manifests(draw: st.DrawFn) -> Any:
    numbers = draw(st.lists(pids, min_size=1, max_size=4, unique=True))
    processes = tuple(
        make_process(
            pid,
            cmdline=tuple(draw(st.lists(os_text, max_size=3))),
            cwd=draw(st.none() | os_text),
            threads=(pid,),
            environment=draw(st.none() | st.dictionaries(os_text, os_text, max_size=3)),
        )
        for pid in numbers
    )
    opened = st.builds(
        OpenFile,
        path=os_text,
        users=st.lists(st.builds(FileUser, pid=pids, fd=st.integers(0, 2**31 - 1)), max_size=2).map(tuple),
        flags=sizes,
        position_bytes=sizes,
        size_bytes=st.none() | sizes,
        mode=st.none() | sizes,
        append=st.booleans(),
        deleted=st.booleans(),
    )
    names = draw(st.lists(image_names, max_size=3, unique=True))
    return make_manifest(
        tree=Tree(numbers[0], processes),
        open_files=tuple(draw(st.lists(opened, max_size=3))),
        images=Images("blake3", tuple(ImageRecord(name, draw(sizes), "0" * 64) for name in names)),
        created=draw(st.datetimes(timezones=st.just(UTC))),
        progress=Progress(
            draw(st.none() | sizes),
            draw(st.none() | sizes),
            draw(st.dictionaries(os_text, st.floats(allow_nan=False), max_size=3)),
        ),
        tags=tuple(draw(st.lists(os_text, max_size=3))),
        note=draw(st.none() | os_text),
    )


@given(manifests())
def test_what_is_written_is_read_back(manifest: Any) -> None:
    assert from_json(to_json(manifest), "it") == manifest


def test_the_shape_on_disk_is_that_of_version_1() -> None:
    # A difference here breaks the snapshots that people have: it needs a new version and a migration.
    assert to_json(make_manifest()).decode() == GOLDEN.read_text()
    assert from_json(GOLDEN.read_bytes(), "it") == make_manifest()


def test_a_manifest_from_before_there_were_containers() -> None:
    raw = json.loads(GOLDEN.read_text())
    del raw["images"]["container"]
    assert from_json(json.dumps(raw).encode(), "it") == make_manifest()


def test_a_container_survives() -> None:
    pack = PackRecord(f"pages-{'ab' * 16}.blocks", 1 << 20)
    container = ContainerRecord("pages.blocks", 8192, 1 << 30, 1 << 29, "ab" * 32, 1 << 28, Compression.AUTO, (pack,))
    manifest = make_manifest()
    images = dataclasses.replace(manifest.images, container=container)
    manifest = dataclasses.replace(manifest, images=images)
    assert from_json(to_json(manifest), "it") == manifest
    own = make_manifest().images.size_bytes
    assert (images.size_bytes, images.contents_bytes, images.shared_bytes) == (own + 8192, own + (1 << 30), 1 << 28)


def test_two_files_of_one_name_are_refused() -> None:
    record = ImageRecord("pages.blocks", 1, "cd" * 32)
    with pytest.raises(ValueError, match="named twice"):
        Images("blake3", (record, record))
    with pytest.raises(ValueError, match="named twice"):
        Images("blake3", (record,), ContainerRecord("pages.blocks", 1, 1, 0, "ab" * 32))
    packs = (PackRecord("pages.blocks", 1),)
    with pytest.raises(ValueError, match="named twice"):
        Images("blake3", (), ContainerRecord("pages.blocks", 1, 1, 0, "ab" * 32, packs=packs))


def test_bytes_that_are_no_utf8_survive_the_file(tmp_path: Path) -> None:
    name = os.fsdecode(b"/data/\xff\xfe\x80 caf\xc3\xa9\n")
    manifest = make_manifest(tree=Tree(4711, (make_process(cwd=name, cmdline=(name,)),)))
    path = tmp_path / "manifest.json"
    manifest_json.write(path, manifest)
    path.read_bytes().decode("utf-8")  # it is text for everybody else
    found = manifest_json.read(path)
    assert os.fsencode(found.tree.root.cwd or "") == b"/data/\xff\xfe\x80 caf\xc3\xa9\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_numbers_that_json_does_not_have_survive() -> None:
    manifest = make_manifest(progress=Progress(metrics={"a": math.nan, "b": -math.inf}))
    metrics = from_json(to_json(manifest), "it").progress.metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] == -math.inf


def test_a_time_keeps_its_moment_whatever_zone_it_is_written_in() -> None:
    raw = _raw()
    raw["created"] = "2026-11-20T20:30:00.123456+01:00"
    assert from_json(json.dumps(raw).encode(), "it").created == make_manifest().created
    assert from_json(json.dumps(raw).encode(), "it").created.tzinfo is UTC


def test_fields_of_later_versions_are_passed_over() -> None:
    raw = _raw()
    raw["weather"] = {"degrees": [7]}
    raw["tree"]["processes"][0]["mood"] = "good"
    assert from_json(json.dumps(raw).encode(), "it") == make_manifest()


def test_fields_that_came_later_may_be_absent() -> None:
    raw = _raw()
    for name in ("open_files", "ends", "ports", "progress", "tags", "note", "mapped_files", "kept_files"):
        del raw[name]
    manifest = from_json(json.dumps(raw).encode(), "it")
    assert manifest.open_files == ()
    assert manifest.progress == Progress()


def test_a_later_version_is_refused_in_words() -> None:
    raw = _raw() | {"version": 2, "ckptctl_version": "9.9"}
    with pytest.raises(ManifestTooNew, match=r"it has version 2; this ckptctl reads versions up to 1") as caught:
        from_json(json.dumps(raw).encode(), "it")
    assert "9.9" in (caught.value.hint or "")


def test_earlier_versions_are_taken_up_step_by_step() -> None:
    def second(raw: dict[str, object]) -> dict[str, object]:
        return {**raw, "note": f"{raw['remark']}, then 2"}

    def third(raw: dict[str, object]) -> dict[str, object]:
        return {**raw, "note": f"{raw['note']}, then 3"}

    raw = _raw()
    raw["remark"] = "from 1"
    manifest = from_json(json.dumps(raw).encode(), "it", version=3, migrations={1: second, 2: third})
    assert manifest.note == "from 1, then 2, then 3"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("tree", "processes", 1, "pid"), "4800", r"tree.processes\[1\].pid: expected a whole number, found a string"),
        (("tree", "processes", 1, "pid"), -1, r"tree.processes\[1\].pid: expected a number from 1 to 4194304"),
        (("tree", "processes", 1, "pid"), 4711, r"tree: two processes have the same pid"),
        (("tree", "processes", 0, "threads", 1), True, r"tree.processes\[0\].threads\[1\]: expected a whole number"),
        (("tree", "root_pid"), 5, r"tree: the root process is not among the processes"),
        (("tree", "processes"), {}, r"tree.processes: expected a list, found an object"),
        (("tree", "processes", 0, "state"), "dancing", r"state: expected one of running, stopped, zombie; found 'danc"),
        (("tree", "processes", 0, "cwd"), "a\0b", r"cwd: a string must not hold a NUL"),
        (("tree", "processes", 0, "cwd"), "\ud800", r"cwd: holds characters that no file name"),
        (("images", "files", 0, "name"), "../../etc/passwd", r"images.files\[0\]: '../../etc/passwd' is not a name"),
        (("images", "files", 0, "name"), "/etc/passwd", r"'/etc/passwd' is not a name"),
        (("images", "files", 0, "name"), "a//b", r"'a//b' is not a name"),
        (("images", "files", 0, "name"), "./a", r"'./a' is not a name"),
        (("images", "files", 0, "name"), "", r"'' is not a name"),
        (("images", "files", 0, "size_bytes"), -5, r"size_bytes: expected a number from 0"),
        (("images", "files", 0, "size_bytes"), 2**63, r"size_bytes: expected a number from 0"),
        (("images", "files", 0, "size_bytes"), 1.5, r"size_bytes: expected a whole number, found a number"),
        (("images", "files", 0, "digest"), "00", r"a digest has 64 hexadecimal digits"),
        (("images", "algorithm"), "crc32", r"images: the digest algorithm 'crc32' is not known"),
        (("criu", "options", 0, "flag"), "x", r"criu.options\[0\]: the flag of an option begins with a dash"),
        (("progress", "metrics", "loss"), "low", r"progress.metrics\['loss'\]: expected a number, found a string"),
        (("progress", "metrics", "loss"), 10**400, r"progress.metrics\['loss'\]: the number is too large"),
        (("progress", "step"), -1, r"progress.step: expected a number from 0"),
        (("ended",), 1, r"ended: expected true or false, found a number"),
        (("created",), "yesterday", r"created: expected a time such as"),
        (("created",), "2026-11-20T19:30:00", r"created: expected a time such as"),
        (("id",), "../x", r"'../x' is not an id of a snapshot"),
        (("run",), "..", r"'..' is not a name of a run"),
        (("host",), None, r"host: expected an object, found nothing"),
        (("version",), "1", r"version: expected a version"),
        (("version",), 0, r"version: expected a version"),
    ],
)
def test_damage_is_named_with_its_place(path: tuple[str | int, ...], value: object, message: str) -> None:
    raw = _raw()
    place: Any = raw
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(ManifestDamaged, match=message):
        from_json(json.dumps(raw).encode(), "it")


def test_a_missing_field_is_named() -> None:
    raw = _raw()
    del raw["tree"]["processes"][1]["comm"]
    with pytest.raises(ManifestDamaged, match=r"tree.processes\[1\].comm: is missing"):
        from_json(json.dumps(raw).encode(), "it")


def test_an_image_named_twice_is_refused() -> None:
    raw = _raw()
    raw["images"]["files"] *= 2
    with pytest.raises(ManifestDamaged, match="images: a file is named twice"):
        from_json(json.dumps(raw).encode(), "it")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JSON"),
        (b"[]", "expected an object, found a list"),
        (b"\xff\xff", "no JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"version": 1, "x": NaN}', "the bare word NaN is no JSON"),
        (b'{"version": ' + b"9" * 5000 + b"}", "a number that is too long"),
        (to_json(make_manifest())[:-200], "no JSON"),
    ],
    ids=["empty", "list", "binary", "deep", "nan", "long-number", "truncated"],
)
def test_what_is_no_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ManifestDamaged, match=message):
        from_json(data, "it")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_any_value_in_any_field_is_refused_or_understood(value: object) -> None:
    for name in _raw():
        with_it = json.dumps(_raw() | {name: value}).encode()
        try:
            from_json(with_it, "it")
        except (ManifestDamaged, ManifestTooNew):
            continue


def test_a_manifest_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    broken = make_manifest(note="a\0b")
    with pytest.raises(ManifestDamaged, match="note: a string must not hold a NUL"):
        manifest_json.write(tmp_path / "manifest.json", broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")]
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "manifest.json")
    with pytest.raises(ManifestDamaged, match=r"manifest\.json"):
        manifest_json.read(tmp_path / "manifest.json")


def test_every_field_of_the_document_is_described() -> None:
    rows = {path: (kind, text) for path, kind, text in describe_manifest()}
    assert rows["tree.processes[].pid"][0] == "integer"
    assert rows["timings.criu.frozen_us"][0] == "integer"
    assert rows["ends[].kind"][0].startswith('"pipe" | ')
    assert all(text for _, text in rows.values())
    assert {path for path in rows if "." not in path} == set(_raw())
    assert {field.name for field in dataclasses.fields(OpenFile)} == {
        path.partition("[].")[2] for path in rows if path.startswith("open_files[].") and path.count(".") == 1
    }


def test_a_time_without_a_zone_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="time zone"):
        make_manifest(created=datetime(2026, 11, 20))


def _raw() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(to_json(make_manifest()))
    return raw
