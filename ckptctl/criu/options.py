"""The options that one process tree needs of criu, each with the reason why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One command-line option of criu (`--ghost-limit 200M`) and why it is given; kept in the manifest.

    CRIU wants most options of a dump again at the restore ("Need to set the --tcp-close options.").
    """

    flag: str
    value: str | None
    reason: str
    on_dump: bool = True
    on_restore: bool = True

    @property
    def words(self) -> tuple[str, ...]:
        """The option as words of a command line."""
        return (self.flag,) if self.value is None else (self.flag, self.value)


@dataclass(frozen=True, slots=True)
class Options:
    """All options chosen for one tree, in the order in which they are given."""

    chosen: tuple[Option, ...] = ()

    def dump_words(self) -> list[str]:
        """The words for `criu dump`."""
        return [word for option in self.chosen if option.on_dump for word in option.words]

    def restore_words(self) -> list[str]:
        """The words for `criu restore`."""
        return [word for option in self.chosen if option.on_restore for word in option.words]
