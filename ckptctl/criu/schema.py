"""The messages of CRIU's images that we read: names, numbers and types of the fields, no more than are used.

Source: images/*.proto of CRIU 4.2, which says for each message in which file it stands. A line holds
`name:type=number` with `!` for required, `*` for repeated and nothing for optional; the type of a nested message is
its name. Text that may be no valid UTF-8 (paths, command names) is read as bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.message import Message

_PACKAGE: Final = "ckptctl.criu"

_FIELDS: Final[Mapping[str, str]] = {
    # inventory.proto
    "inventory_entry": "img_version:u32=1! dump_criu_run_id:bytes=13",
    # pstree.proto
    "pstree_entry": "pid:u32=1! ppid:u32=2! pgid:u32=3! sid:u32=4! threads:u32=5*",
    # core.proto
    "task_core_entry": "task_state:u32=1! exit_code:u32=2! comm:bytes=6!",
    "task_kobj_ids_entry": "vm_id:u32=1! files_id:u32=2! fs_id:u32=3!",
    "core_entry": "tc:task_core_entry=3",
    # fs.proto
    "fs_entry": "cwd_id:u32=1! root_id:u32=2! umask:u32=3",
    # mm.proto, vma.proto
    "vma_entry": "shmid:u64=4! status:u32=7!",
    "mm_entry": "exe_file_id:u32=12! vmas:vma_entry=14*",
    # fdinfo.proto
    "fdinfo_entry": "id:u32=1! flags:u32=2! type:u32=3! fd:u32=4!",
    "file_entry": (
        "type:u32=1! id:u32=2! reg:reg_file_entry=3 isk:inet_sk_entry=4 usk:unix_sk_entry=16 fifo:fifo_entry=17 "
        "pipe:pipe_entry=18 tty:tty_file_entry=19"
    ),
    # regfile.proto
    "reg_file_entry": (
        "id:u32=1! flags:u32=2! pos:u64=3! name:bytes=6! mnt_id:s32=7 size:u64=8 ext:bool=9 mode:u32=10 "
        "build_id:u32=11*"
    ),
    # pipe.proto, fifo.proto
    "pipe_entry": "id:u32=1! pipe_id:u32=2! flags:u32=3!",
    "fifo_entry": "id:u32=1! pipe_id:u32=2! regf_id:u32=3",
    # sk-opts.proto, sk-unix.proto, sk-inet.proto
    "sk_opts_entry": "reuseaddr:bool=7",
    "unix_sk_entry": "id:u32=1! ino:u32=2! type:u32=3! state:u32=4! uflags:u32=6! peer:u32=8! name:bytes=11!",
    "inet_sk_entry": (
        "id:u32=1! ino:u32=2! family:u32=3! type:u32=4! proto:u32=5! state:u32=6! src_port:u32=7! dst_port:u32=8! "
        "src_addr:u32=11* dst_addr:u32=12* opts:sk_opts_entry=14!"
    ),
    # tty.proto
    "tty_file_entry": "id:u32=1! tty_info_id:u32=2! flags:u32=3!",
    "tty_pty_entry": "index:u32=1!",
    "tty_info_entry": "id:u32=1! type:u32=2! sid:u32=6! pgrp:u32=7! rdev:u32=8! pty:tty_pty_entry=12",
    # remap-file-path.proto, ghost-file.proto
    "remap_file_path_entry": "orig_id:u32=1! remap_id:u32=2! remap_type:u32=3",
    "ghost_file_entry": "mode:u32=3! dev:u32=4 ino:u64=5 size:u64=10",
    # stats.proto; the times are microseconds
    "dump_stats_entry": (
        "freezing_time:u32=1! frozen_time:u32=2! memdump_time:u32=3! memwrite_time:u32=4! pages_scanned:u64=5! "
        "pages_skipped_parent:u64=6! pages_written:u64=7! irmap_resolve:u32=8 pages_lazy:u64=9! page_pipes:u64=10 "
        "page_pipe_bufs:u64=11 shpages_scanned:u64=12 shpages_skipped_parent:u64=13 shpages_written:u64=14"
    ),
    "restore_stats_entry": (
        "pages_compared:u64=1! pages_skipped_cow:u64=2! forking_time:u32=3! restore_time:u32=4! pages_restored:u64=5"
    ),
    "stats_entry": "dump:dump_stats_entry=1 restore:restore_stats_entry=2",
}


@functools.cache
def message_class(name: str) -> type[Message]:
    """The class that decodes the message `name`."""
    from google.protobuf import message_factory

    descriptor = _pool().FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)


@functools.cache
def _pool() -> Any:
    # Imported where images are read: the library costs a noticeable part of the start of every command.
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="ckptctl/criu.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            _add_field(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, text: str) -> None:
    name, _, rest = text.partition(":")
    kind, _, number = rest.partition("=")
    field = message.field.add(name=name, number=int(number.rstrip("!*")))
    field.label = {"!": field.LABEL_REQUIRED, "*": field.LABEL_REPEATED}.get(number[-1], field.LABEL_OPTIONAL)
    scalars = {
        "u32": field.TYPE_UINT32,
        "u64": field.TYPE_UINT64,
        "s32": field.TYPE_SINT32,
        "bool": field.TYPE_BOOL,
        "bytes": field.TYPE_BYTES,
    }
    if kind in scalars:
        field.type = scalars[kind]
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
