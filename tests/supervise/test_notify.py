"""Notifications, told to real servers and programs: those that answer, that fail, that hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ckptctl.errors import UsageError
from ckptctl.supervise.notify import (
    DEFAULT_EVENTS,
    Notification,
    Notifier,
    NotifyEvent,
    NotifyFailed,
    NotifyTarget,
    parse_events,
)
from ckptctl.supervise.notify_targets import AppriseTarget, CommandTarget, Webhook, parse_notify_targets
from support import wait_for
from support.pids import wait_gone
from support.recorder import Recorder
from support.web import Asked, Reply, Serve, Web

SECRET = "T00000000/B00000000/XXXXXXXX"
MESSAGE = Notification(
    event=NotifyEvent.FAILURE,
    run="gpt",
    host="node7",
    text="The snapshot failed: the disk is full.",
    at_s=1795262400.5,
    facts=(("code", "E_NO_SPACE"), ("step", 12000)),
)
SOON = (0.01, 0.01, 0.01)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


def webhook(web: Web, timeout_s: float = 10.0) -> Webhook:
    return Webhook(f"{web.address}/services/{SECRET}", timeout_s)


def told(target: NotifyTarget, recorder: Recorder, *messages: Notification) -> None:
    """Tell a target all of it, and wait until that has come to an end."""
    notifier = Notifier([target], recorder, events=frozenset(NotifyEvent), pauses_s=SOON)
    for message in messages:
        notifier.send(message)
    notifier.close(60)


# ---- what is told ----


def test_a_webhook_gets_text_for_people_and_facts_for_programs(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply(text="ok"))
    told(webhook(web), recorder, MESSAGE)
    (asked,) = web.asked
    assert (asked.method, asked.path) == ("POST", f"/services/{SECRET}")
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("ckptctl/")
    assert json.loads(asked.body) == {
        "text": "gpt on node7: The snapshot failed: the disk is full.",
        "version": 1,
        "event": "failure",
        "run": "gpt",
        "host": "node7",
        "time": "2026-11-21T12:00:00Z",
        "message": "The snapshot failed: the disk is full.",
        "facts": {"code": "E_NO_SPACE", "step": 12000},
    }
    assert recorder.events == []


def test_a_command_gets_it_in_its_environment(tmp_path: Path, recorder: Recorder) -> None:
    out = tmp_path / "out"
    script = 'printf "%s\\n" "$CKPTCTL_EVENT" "$CKPTCTL_RUN" "$CKPTCTL_TEXT" "$CKPTCTL_JSON" >"$1"'
    told(CommandTarget(("sh", "-c", script, "sh", str(out))), recorder, MESSAGE)
    event, run, text, document = out.read_text().splitlines()
    assert (event, run, text) == ("failure", "gpt", MESSAGE.headline)
    assert json.loads(document) == MESSAGE.document()
    assert recorder.events == []


def test_apprise_delivers_to_its_services(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply(text="ok"))
    told(AppriseTarget(web.address.replace("http:", "json:") + "/hook"), recorder, MESSAGE)
    (asked,) = web.asked
    document = json.loads(asked.body)
    assert document["title"] == "ckptctl: gpt: failure"
    assert document["message"] == MESSAGE.headline
    assert recorder.events == []


def test_messages_keep_their_order(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply())
    messages = [Notification(NotifyEvent.RESUMED, "gpt", "node7", f"message {number}", 0.0) for number in range(20)]
    told(webhook(web), recorder, *messages)
    assert [json.loads(asked.body)["message"] for asked in web.asked] == [message.text for message in messages]


def test_only_the_events_that_were_asked_for(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply())
    notifier = Notifier([webhook(web)], recorder, events=frozenset({NotifyEvent.ENDED}))
    for event in NotifyEvent:
        notifier.send(Notification(event, "gpt", "node7", "text", 0.0))
    notifier.close(60)
    assert [json.loads(asked.body)["event"] for asked in web.asked] == ["ended"]


# ---- what goes wrong ----


class Flaky:
    """Answers with each of the statuses in turn, and with 200 from then on."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)

    def __call__(self, asked: Asked) -> Reply:
        return self._replies.pop(0) if self._replies else Reply()


def test_a_flaky_webhook_is_tried_again(serve: Serve, recorder: Recorder) -> None:
    web = serve(Flaky(Reply(503), Reply(raw=b""), Reply(429, headers={"Retry-After": "0"})))
    told(webhook(web), recorder, MESSAGE)
    assert len(web.asked) == 4
    assert recorder.events == []


def test_a_webhook_that_asks_for_time_gets_it(serve: Serve, recorder: Recorder) -> None:
    web = serve(Flaky(Reply(429, headers={"Retry-After": "1"})))
    began_s = time.monotonic()
    told(webhook(web), recorder, MESSAGE)
    assert time.monotonic() - began_s >= 1
    assert len(web.asked) == 2


def test_tries_are_bounded_and_the_loss_is_said_without_the_secret(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply(500, f"no: {asked.path}"))
    told(webhook(web), recorder, MESSAGE, MESSAGE)
    assert len(web.asked) == 2 * (1 + len(SOON))
    first, second = recorder.cautions()
    assert first == second
    assert "status 500" in first and "'failure'" in first and "http://127.0.0.1/..." in first
    assert SECRET not in first and "XXXX" not in first


@pytest.mark.parametrize("status", [400, 403, 404, 410, 301, 302, 307])
def test_what_will_not_get_better_is_not_tried_again(status: int, serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply(status, headers={"Location": f"/elsewhere/{SECRET}"}))
    told(webhook(web), recorder, MESSAGE)
    assert len(web.asked) == 1
    (caution,) = recorder.cautions()
    assert f"status {status}" in caution and "XXXX" not in caution


def test_a_message_that_no_environment_can_hold_is_lost_and_said(recorder: Recorder) -> None:
    told(CommandTarget(("true",)), recorder, Notification(NotifyEvent.ENDED, "gpt", "node7", "a\0b", 0.0), MESSAGE)
    assert len(recorder.cautions()) == 1


def test_a_webhook_that_nobody_answers(recorder: Recorder) -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        told(Webhook(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}"), recorder, MESSAGE)
    (caution,) = recorder.cautions()
    assert "refused" in caution and "XXXX" not in caution


def test_a_webhook_that_is_slow_delays_nobody(serve: Serve, recorder: Recorder) -> None:
    slow = serve(lambda asked: Reply(wait_s=600))
    quick = serve(lambda asked: Reply())
    notifier = Notifier([webhook(slow, timeout_s=500), webhook(quick)], recorder)
    began_s = time.monotonic()
    notifier.send(MESSAGE)
    wait_for(lambda: quick.asked)
    notifier.close(0.2)
    assert time.monotonic() - began_s < 60
    (caution,) = recorder.cautions()
    assert "Not every message" in caution and "XXXX" not in caution


def test_a_webhook_that_is_slow_is_given_up(serve: Serve, recorder: Recorder) -> None:
    web = serve(Flaky(Reply(wait_s=600)))
    told(webhook(web, timeout_s=0.3), recorder, MESSAGE)
    assert len(web.asked) == 2
    assert recorder.events == []


def test_closing_does_not_wait_for_the_next_try(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply(500))
    notifier = Notifier([webhook(web)], recorder, pauses_s=(600.0,))
    notifier.send(MESSAGE)
    wait_for(lambda: web.asked)
    began_s = time.monotonic()
    notifier.close(0.2)
    assert time.monotonic() - began_s < 60
    assert len(recorder.cautions()) == 1
    wait_for(lambda: not any(thread.name == "notify" for thread in threading.enumerate()))


def test_too_many_messages_are_dropped_and_said(serve: Serve, recorder: Recorder) -> None:
    web = serve(lambda asked: Reply(wait_s=600))
    notifier = Notifier([webhook(web, timeout_s=500)], recorder)
    for _ in range(110):
        notifier.send(MESSAGE)
    assert 9 <= len(recorder.cautions()) <= 10  # one may be on its way already
    assert "Too many" in recorder.cautions()[0]
    notifier.close(0)


def test_closing_what_was_never_used_says_nothing(serve: Serve, recorder: Recorder) -> None:
    Notifier([webhook(serve(lambda asked: Reply()))], recorder).close(60)
    assert recorder.events == []


def test_a_command_that_fails_is_tried_again(tmp_path: Path, recorder: Recorder) -> None:
    out = tmp_path / "out"
    script = 'echo x >>"$1"; test "$(wc -l <"$1")" -ge 3'
    told(CommandTarget(("sh", "-c", script, "sh", str(out))), recorder, MESSAGE)
    assert out.read_text() == "x\n" * 3
    assert recorder.events == []


def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    target = CommandTarget(("sh", "-c", 'trap "" TERM; sleep 1000 & echo $$ $! >"$1"; wait', "sh", str(pids)), 2)
    with pytest.raises(NotifyFailed, match="did not end"):
        target.deliver(MESSAGE)
    wait_gone(pids)


def test_a_command_that_is_missing_is_not_tried_again(recorder: Recorder) -> None:
    told(CommandTarget(("/nonexistent/program", "--token=XXXX")), recorder, MESSAGE)
    (caution,) = recorder.cautions()
    assert "/nonexistent/program" in caution and "XXXX" not in caution


def test_apprise_that_cannot_deliver(serve: Serve, recorder: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    web = serve(lambda asked: Reply(500))
    told(AppriseTarget(web.address.replace("http:", "json:") + f"/{SECRET}"), recorder, MESSAGE)
    (caution,) = recorder.cautions()
    assert "apprise:json://..." in caution and "XXXX" not in caution
    told(AppriseTarget(f"nosuchservice://{SECRET}"), recorder, MESSAGE)
    assert "does not know" in recorder.cautions()[1]
    captured = capfd.readouterr()
    assert "XXXX" not in captured.out + captured.err
    assert captured.err == ""


# ---- what --notify and --notify-on take ----


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (f"https://hooks.slack.com/services/{SECRET}", "https://hooks.slack.com/..."),
        (f"http://127.0.0.1:8080/{SECRET}", "http://127.0.0.1/..."),
        ("command:mail -s 'ckptctl says' me@example.org", "the command mail"),
        (f"apprise:slack://{SECRET}", "apprise:slack://..."),
    ],
)
def test_targets_and_how_they_are_shown(text: str, label: str) -> None:
    (target,) = parse_notify_targets(text)
    assert target.label == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me@example.org",
        "ftp://example.org/XXXX",
        "https://",
        "https:///XXXX",
        "https://example.org:port/XXXX",
        "https://example.org/XX XX",
        "https://example.org/\u00dcXXXX",
        "https://me:XXXX@example.org/",
        "command:",
        "command:'XXXX",
        "apprise:",
        "XXXX:XXXX",
        "@/nonexistent/file",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_notify_targets(text)
    assert caught.value.hint
    if text.startswith(("https", "ftp")):
        assert "XX" not in f"{caught.value.message} {caught.value.hint} {caught.value.details}"


def test_targets_of_a_file_stay_out_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_text("# who is told\n\nhttps://example.org/a\n  command:mail me\n")
    assert [target.label for target in parse_notify_targets(f"@{path}")] == [
        "https://example.org/...",
        "the command mail",
    ]
    path.write_text("# nobody\n")
    with pytest.raises(UsageError, match="nobody"):
        parse_notify_targets(f"@{path}")


def test_events_by_name() -> None:
    assert parse_events("failure, ended") == {NotifyEvent.FAILURE, NotifyEvent.ENDED}
    assert parse_events("all") == frozenset(NotifyEvent)
    assert NotifyEvent.FAILURE in DEFAULT_EVENTS and NotifyEvent.RESUMED not in DEFAULT_EVENTS


@pytest.mark.parametrize("text", ["", ",", "failures", "failure,all"])
def test_what_is_no_event(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_events(text)
    assert "crash-loop" in (caught.value.hint or "")


def test_apprise_that_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.path[:] = [path for path in sys.path if 'site-packages' not in path]\n"
        "from ckptctl.errors import CkptctlError\n"
        "from ckptctl.supervise.notify_targets import parse_notify_targets\n"
        "try:\n"
        "    parse_notify_targets('apprise:slack://XXXX')\n"
        "except CkptctlError as error:\n"
        "    print(error.code, error.hint)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "E_NOTIFY_MISSING Install ckptctl with it: pip install 'ckptctl[notify]'\n"
