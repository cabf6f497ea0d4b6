"""restore.sh: the exact criu command for the day without ckptctl, with the checks that a person would forget.

The script overwrites nothing: where a pid is taken or a file is not as it was it says what to do, and ends. Only files
of /dev/shm and the like that are gone, with the machine's last boot say, are put back from the images.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ckptctl import files
from ckptctl.store.manifest import ContainerRecord, Direction, End, EndKind, KeptFile, Manifest, OpenFile
from ckptctl.units import format_size

_HEAD = """\
#!/bin/sh
# Restores a snapshot by criu alone, for the day without ckptctl. `ckptctl restore` does more: it compares digests,
# the machine and the libraries, puts files back to their size, and looks at the result.
#
{facts}
#
# As root: sh restore.sh [FOLDER]
# criu's log, the pid of the restored job and criu's statistics go to FOLDER, which exists (default: a new one below
# /tmp). Another criu than that of the dump is named by CKPTCTL_CRIU.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
criu={criu}
[ -z "${{CKPTCTL_CRIU:-}}" ] || criu=$CKPTCTL_CRIU
trouble=0

complain() {{
    printf '%s\\n' "$1" >&2
    trouble=1
}}
[ -z "${{1:-}}" ] || [ -d "$1" ] || complain "There is no folder $1."
"""

_PIDS = """
# Every process and thread gets the number that it had: none of them may be in use.
for id in {ids}; do
    [ -e "/proc/$id" ] || continue
    who=$(tr '\\0' ' ' <"/proc/$id/cmdline" || :)
    if grep -qs '^State:.Z' "/proc/$id/status"; then
        who="a process that has ended and that its parent has yet to take note of; try again, or end the parent."
    elif [ -z "$who" ]; then
        who=$(cat -- "/proc/$id/comm" || :)
    fi
    complain "The process id $id is in use: $who"
done
"""

_SIZES = """
# criu refuses files whose size is not that of the dump. Keep what was written since, then cut the file back.
need_size() {{
    size=$(stat -L -c %s -- "$2" 2>/dev/null) || size=
    if [ -z "$size" ]; then
        complain "$2 must have $1 bytes; it is missing. Bring it back from a copy."
    elif [ "$size" -gt "$1" ]; then
        complain "$2 must have $1 bytes; it has grown to $size. Keep a copy (cp -p), then: truncate -s $1 $2"
    elif [ "$size" -lt "$1" ]; then
        complain "$2 must have $1 bytes; it has only $size. What is missing must come back from a copy."
    fi
}}
{checks}
"""

_KEPT = """
# Files that live in memory: their contents are among the images.
put_back() {{
    if [ ! -e "$5" ]; then
        mkdir -p -- "$(dirname -- "$5")"
        (umask 077 && cp -- "$here/images/$1" "$5")
        chown -- "$3:$4" "$5"
        chmod -- "$2" "$5"
    elif ! cmp -s -- "$here/images/$1" "$5"; then
        complain "$5 is not as it was at the dump. If nobody needs it, move it away."
    fi
}}
{puts}
"""

_NEED_PYTHON = """
python=${PYTHON:-python3}
command -v -- "$python" >/dev/null || complain "The memory of the job is in a container: this needs Python 3 ($python)."
"""

_WORK = """
[ "$trouble" -eq 0 ] || exit 1
work=$(CDPATH= cd -- "${1:-$(mktemp -d)}" && pwd -P)
# criu's own plugins stay off, as they were at the dump; it insists on the folder.
mkdir -p -- "$work/no-plugins"
echo "The bytes of the snapshot are not compared with their digests here: ckptctl verify --read-data does that." >&2
"""

# Only what Python brings along: digests are compared by `ckptctl verify --read-data`.
_UNPACK = """
# The memory of the job lies in one container: criu gets files made from it, which are removed afterwards. Their folder
# must have room for {size}; it is below the folder for the log. (`ckptctl export` makes a snapshot without container.)
images=$work/images
unpack() {{
    mkdir -- "$images"
    trap 'rm -r -- "$images"' EXIT
    for file in "$here"/images/*; do
        case "${{file##*/}}" in
        pages*.blocks) ;;
        *) ln -s -- "$file" "$images/" ;;
        esac
    done
    "$python" - "$here/images/"{name} "$images" <<'END'
{program}END
}}
"""

_TAIL = """
{prepare}{ends}
if ! "$criu" restore \\
{words}
then
    echo "criu failed; its log is $work/restore.log" >&2
    exit 1
fi
echo "Restored: process $(cat -- "$work/restore.pid"), log in $work" >&2
"""


def restore_script(manifest: Manifest) -> str:
    """The text of restore.sh. Bytes in it that are no UTF-8 are lone surrogates, as from os.fsdecode."""
    ids = sorted({thread for process in manifest.tree.processes for thread in (process.pid, *process.threads)})
    sizes = [_need_size(file) for file in manifest.regular_files() if file.size_bytes is not None]
    parts = [
        _HEAD.format(facts=_facts(manifest), criu=shlex.quote(manifest.criu.path)),
        _PIDS.format(ids=textwrap.fill(" ".join(map(str, ids)), 110).replace("\n", " \\\n    ")),
        _KEPT.format(puts="\n".join(map(_put_back, manifest.kept_files))) if manifest.kept_files else "",
        _SIZES.format(checks="\n".join(dict.fromkeys(sizes))) if sizes else "",
        _NEED_PYTHON if manifest.images.container else "",
        _WORK,
        _images(manifest.images.container),
        _TAIL.format(
            prepare="unpack\n" if manifest.images.container else "",
            ends=_explain_ends(manifest.ends),
            words=" \\\n".join(_words(manifest)),
        ),
    ]
    return "".join(parts)


def write(path: Path, manifest: Manifest) -> None:
    """Write restore.sh, durably. Raises files.FileTrouble and files.NoSpace."""
    files.write_atomically(path, os.fsencode(restore_script(manifest)))


def _facts(manifest: Manifest) -> str:
    root = manifest.tree.root
    lines = (
        f"snapshot  {manifest.id}, run {manifest.run}",
        f"taken     {manifest.created:%Y-%m-%d %H:%M:%S} UTC",
        f"host      {manifest.host.hostname}, kernel {manifest.host.kernel}",
        f"job       {shlex.join(root.cmdline) or root.comm}",
        f"folder    {root.cwd or 'unknown'}",
        f"criu      {manifest.criu.version}",
    )
    return "\n".join(f"# {_comment(line)}" for line in lines)


def _images(container: ContainerRecord | None) -> str:
    if container is None:
        return "\nimages=$here/images\n"
    from ckptctl.images import unpack

    program = Path(unpack.__file__).read_text(encoding="utf-8")
    size = format_size(container.contents_bytes)
    return _UNPACK.format(name=shlex.quote(container.name), size=size, program=program)


def _words(manifest: Manifest) -> Iterator[str]:
    yield '    --no-default-config --images-dir "$images" --work-dir "$work"'
    yield '    --log-file restore.log -v4 --libdir "$work/no-plugins"'
    yield '    --restore-detached --pidfile "$work/restore.pid"'
    for key, descriptor in _sides(manifest.ends).items():
        yield f"    --inherit-fd {shlex.quote(f'fd[{descriptor}]:{key}')}"
    for option in manifest.criu.options:
        if option.on_restore:
            yield f"    {shlex.join(option.words)}"


def _sides(ends: tuple[End, ...]) -> dict[str, int]:
    """For every pipe and terminal that led outside: which of the script's own descriptors takes the place of that."""
    return {
        end.key: 1 if end.direction is Direction.WRITE else 0 for end in ends if end.kind in {EndKind.PIPE, EndKind.TTY}
    }


def _explain_ends(ends: tuple[End, ...]) -> str:
    if not ends:
        return ""
    lines = [
        "# These led out of the tree. What was written to goes to the script's standard output now, what was read from",
        "# and terminals come from its standard input: redirect them as needed.",
        *(f"# - {_comment(f'{end.key}, fd {end.fd} of process {end.pid}: {end.description}')}" for end in ends),
    ]
    return "\n" + "\n".join(lines)


def _need_size(file: OpenFile) -> str:
    return f"need_size {file.size_bytes} {shlex.quote(file.path)}"


def _put_back(file: KeptFile) -> str:
    return f"put_back {shlex.quote(file.name)} {file.mode:o} {file.uid} {file.gid} {shlex.quote(file.path)}"


def _comment(text: str) -> str:
    """Text that stays on its line, whatever a command line or a path holds."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
