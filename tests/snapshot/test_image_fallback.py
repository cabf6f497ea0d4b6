"""Where CRIU cannot hand its images over, or the stream breaks off, criu's own files do the same in one command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support import CommandLine
from support.leftovers import assert_goes_on, assert_nothing_is_left
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

# It knows nothing of --stream.
OLD = """#!/bin/sh
case " $* " in
*" --help "*) {criu} --help | grep -v -e --stream ;;
*" --stream "*) exit 1 ;;
*) exec {criu} "$@" ;;
esac
"""
# It says that it does, and writes its files all the same.
DEAF = """#!/bin/sh
for word in "$@"; do
    shift
    [ "$word" = --stream ] || set -- "$@" "$word"
done
exec {criu} "$@"
"""
# Somebody else talks to ckptctl before CRIU does.
RUBBISH = """#!/bin/sh
case " $* " in
*" --stream "*) {python} -c '
import socket, sys
words = sys.argv
with socket.socket(socket.AF_UNIX) as one:
    one.connect(words[-1] + "/streamer-capture.sock")
    one.sendall(b"rubbish" * 100)
    one.recv(1)
' "$@" ;;
esac
exec {criu} "$@"
"""


def criu_that(script: str, folder: Path, criu: Path) -> dict[str, str]:
    path = folder / "criu"
    path.write_text(script.format(criu=criu, python=sys.executable, folder=folder))
    path.chmod(0o755)
    return {"CKPTCTL_CRIU": str(path)}


@pytest.mark.parametrize("leave", [(), ("--leave-running",)], ids=["ended", "goes on"])
@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param(OLD, "knows nothing of --stream", id="old"),
        pytest.param(DEAF, "criu has written its images itself", id="deaf"),
        pytest.param(RUBBISH, "a message is not understood", id="rubbish"),
    ],
)
def test_criu_writes_its_files_itself(
    script: str, said: str, leave: tuple[str, ...], counting: Shape, ckptctl: CommandLine,
    criu: Path, tmp_path: Path,
) -> None:  # fmt: skip
    environment = criu_that(script, tmp_path, criu)
    dumped = ckptctl("dump", "--pid", str(counting.pid), *leave, "--json", environment=environment).check()
    report = dumped.document["result"]
    assert report["images"] == "directory"
    assert said in dumped.stderr
    assert [one for one in report["warnings"] if said in one]
    (only,) = ckptctl.json("list")["result"]
    assert only["id"] == report["id"]
    assert list(Path(only["folder"], "images").glob("pages-*.img"))
    if leave:
        assert_goes_on(counting)
    else:
        ckptctl("restore", "latest").check()
        assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


# It can write past the page cache, as CRIU after 4.2.1.
DIRECT = """#!/bin/sh
case " $* " in
*" --help "*) {criu} --help; echo "  --image-io-mode MODE   writeback or direct"; exit ;;
*" --image-io-mode direct "*) touch {folder}/direct ;;
esac
for word in "$@"; do
    shift
    case "$word" in
    --image-io-mode|direct) ;;
    *) set -- "$@" "$word" ;;
    esac
done
exec {criu} "$@"
"""


def test_criu_writes_past_the_page_cache_where_it_can(
    counting: Shape, ckptctl: CommandLine, criu: Path, tmp_path: Path
) -> None:
    environment = criu_that(DIRECT, tmp_path, criu)
    ckptctl("dump", "--pid", str(counting.pid), "-R", environment=environment).check()
    assert not (tmp_path / "direct").exists(), "in a stream it writes only small files"
    words = ("--images", "directory")
    dumped = ckptctl("dump", "--pid", str(counting.pid), *words, "--json", environment=environment).check()
    assert (tmp_path / "direct").exists()
    manifest = ckptctl.json("show", dumped.document["result"]["id"])["result"]["manifest"]
    (option,) = (one for one in manifest["criu"]["options"] if one["flag"] == "--image-io-mode")
    assert "page cache" in option["reason"]
    assert not option["on_restore"]
    ckptctl("restore", "latest", environment=environment).check()
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


# It fails without a stream.
THEN_FAILS = """#!/bin/sh
case " $* " in
*" --stream "*) ;;
*" dump "*) exit 1 ;;
esac
""" + RUBBISH.removeprefix("#!/bin/sh\n")


def test_there_is_no_third_try(counting: Shape, ckptctl: CommandLine, criu: Path, tmp_path: Path) -> None:
    failed = ckptctl("dump", "--pid", str(counting.pid), environment=criu_that(THEN_FAILS, tmp_path, criu)).check(7)
    assert "saved once more" in failed.stderr
    assert "runs on" in failed.stderr
    assert ckptctl.json("list")["result"] == []
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_what_is_the_fault_of_the_disk_is_not_tried_again(counting: Shape, ckptctl: CommandLine) -> None:
    """Nor is a dump during which a file of it could grow no further."""
    words = ("dump", "--pid", str(counting.pid))
    failed = ckptctl(*words, prefix=("prlimit", f"--fsize={1 << 20}")).check(10)
    assert "File too large" in failed.stderr
    assert "saved once more" not in failed.stderr
    assert "runs on" in failed.stderr
    assert ckptctl.json("list")["result"] == []
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)
