"""Whom notifications go to: a webhook, a command, and whatever Apprise knows."""

from __future__ import annotations

import http.client
import importlib.util
import logging
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ckptctl import __version__
from ckptctl.command import CommandMissing, describe_status
from ckptctl.errors import CkptctlError, ExitStatus, UsageError
from ckptctl.supervise.limited import Ending, run_captured, split_words
from ckptctl.supervise.notify import Notification, NotifyFailed, NotifyTarget

TIMEOUT_S: Final = 10.0
_LONGEST_WISH_S: Final = 60.0
_FORMS: Final = "Known are https://..., command:WORDS, apprise:URL and @FILE, a file with one of them on each line."
_CHECK: Final = "Check --notify."
_TRY: Final = "Try the URL with apprise -vv."


class NotifyMissing(CkptctlError):
    """Notifications by Apprise are asked for, and Apprise is not installed."""

    code = "E_NOTIFY_MISSING"
    exit_status = ExitStatus.USAGE


def parse_notify_targets(text: str) -> tuple[NotifyTarget, ...]:
    """What one `--notify` names: one target, or those in the lines of a file for `@FILE`. Nobody is told anything yet.

    Raises UsageError and NotifyMissing; neither shows an address, which is often a secret.
    """
    if not text.startswith("@"):
        return (_target(text.strip()),)
    try:
        lines = Path(text[1:]).expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise UsageError(
            f"--notify: {text[1:]} cannot be read: {why}.", hint="Name a file that you may read."
        ) from None
    targets = tuple(_target(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not targets:
        raise UsageError(f"--notify: {text[1:]} names nobody.", hint=_FORMS)
    return targets


def _target(text: str) -> NotifyTarget:
    kind, _, rest = text.partition(":")
    if kind in ("http", "https"):
        return _webhook(text)
    if kind == "command":
        return CommandTarget(split_words("--notify command", rest))
    if kind == "apprise" and rest:
        return _apprise(rest)
    shown = kind if kind != text and re.fullmatch(r"\w{1,20}", kind) else "This"
    raise UsageError(f"--notify: {shown} is nobody that ckptctl can tell.", hint=_FORMS)


def _webhook(url: str) -> NotifyTarget:
    hint = "Write https://HOST/PATH; spaces and the like are written as %20."
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port or 1) > 0 and re.fullmatch(r"[!-~]+", url) is not None
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("--notify: the address of the webhook is no URL.", hint=hint)
    if parts.username is not None:
        hint = "Use command:curl ..., which knows them all."
        raise UsageError("--notify: a webhook with a user and password is not supported.", hint=hint)
    return Webhook(url)


def _apprise(url: str) -> NotifyTarget:
    if importlib.util.find_spec("apprise") is None:
        raise NotifyMissing(
            "--notify apprise:... needs Apprise, which is not installed.",
            hint="Install ckptctl with it: pip install 'ckptctl[notify]'",
        )
    return AppriseTarget(url)


class Webhook:
    """Gets each message as a JSON document by POST. Proxies of the environment are used; redirects are not followed."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        # The path is the password of most webhooks.
        self.label = f"{parts.scheme}://{parts.hostname}/..."
        self._url = url
        self._timeout_s = timeout_s

    def deliver(self, notification: Notification) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"ckptctl/{__version__}"}
        request = urllib.request.Request(self._url, notification.json(), headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self._timeout_s):
                return
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise NotifyFailed(f"It cannot be reached ({_reason(error)}).", hint=_CHECK, again=True) from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    # urllib would turn the POST into a GET, whose success would tell nobody anything.
    def redirect_request(self, *_arguments: object) -> None:
        return None


class CommandTarget:
    """A command that is run for each message, which it finds in its environment."""

    def __init__(self, words: tuple[str, ...], limit_s: float = 3 * TIMEOUT_S) -> None:
        self.label = f"the command {words[0]}"
        self._words = words
        self._limit_s = limit_s

    def deliver(self, notification: Notification) -> None:
        environment = {
            "CKPTCTL_EVENT": notification.event.value,
            "CKPTCTL_RUN": notification.run,
            "CKPTCTL_TEXT": notification.headline,
            "CKPTCTL_JSON": notification.json().decode(),
        }
        try:
            ended, _ = run_captured(self._words, environment=environment, limit_s=self._limit_s)
        except (CommandMissing, OSError, ValueError) as error:  # ValueError: a NUL, which no environment can hold
            raise NotifyFailed(f"It cannot be run: {error}", hint=_CHECK, again=False) from None
        if ended.ending is not Ending.BY_ITSELF:
            raise NotifyFailed(f"It did not end within {self._limit_s:g} s.", hint=_CHECK, again=True)
        if ended.status != 0:
            raise NotifyFailed(f"It failed with {describe_status(ended.status)}.", hint=_CHECK, again=True)


class AppriseTarget:
    """One of the services that Apprise knows, by its URL."""

    def __init__(self, url: str) -> None:
        # Of its URLs even the host may be a token.
        scheme = url.partition(":")[0]
        self.label = f"apprise:{scheme}://..." if re.fullmatch(r"\w{1,20}", scheme) else "apprise:..."
        self._url = url
        # It explains itself in its log, which Python would otherwise show on our standard error.
        logging.getLogger("apprise").addHandler(logging.NullHandler())

    def deliver(self, notification: Notification) -> None:
        import apprise  # a fifth of a second: only where something is told

        service = apprise.Apprise()
        if not service.add(self._url):
            raise NotifyFailed("Apprise does not know this kind of URL.", hint=_CHECK, again=False)
        title = f"ckptctl: {notification.run}: {notification.event.value}"
        try:
            told = service.notify(title=title, body=notification.headline)
        except Exception as error:  # a hundred plugins, and what they raise may quote the URL
            raise NotifyFailed(f"Apprise failed ({type(error).__name__}).", hint=_TRY, again=True) from None
        if not told:
            raise NotifyFailed("Apprise could not deliver it.", hint=_TRY, again=True)


def _refused(error: urllib.error.HTTPError) -> NotifyFailed:
    again = error.code >= 500 or error.code in (408, 429)
    wish = error.headers.get("Retry-After", "")
    after_s = min(float(wish), _LONGEST_WISH_S) if again and re.fullmatch(r"\d{1,9}", wish) else 0.0
    return NotifyFailed(f"It answered with status {error.code}.", hint=_CHECK, again=again, after_s=after_s)


def _reason(error: Exception) -> str:
    """The kind of trouble without the words of libraries, which may quote the address."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, socket.gaierror):
        return "its name cannot be resolved"
    return cause.strerror or type(cause).__name__ if isinstance(cause, OSError) else type(cause).__name__
