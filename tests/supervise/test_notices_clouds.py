"""Notices of clouds, asked from real servers that keep to their rules."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptctl.supervise.notices.aws import AwsNotices
from ckptctl.supervise.notices.azure import AzureNotices
from ckptctl.supervise.notices.gcp import GcpNotices
from ckptctl.supervise.notices.notice import NoticeKind, NoticeSource, NoticeUnavailable
from support import wait_for
from support.clouds import Azure, ComputeEngine, Ec2, azure_event
from support.web import Answering, Reply, Serve, Web

NOON_S = 1795262400.0  # 2026-11-21 12:00:00 UTC


def at_noon() -> float:
    return NOON_S


# ---- every cloud ----

SOURCES: dict[str, Callable[[str], NoticeSource]] = {
    "aws": lambda base: AwsNotices(base, now_s=at_noon),
    "gcp": lambda base: GcpNotices(base, now_s=at_noon),
    "azure": lambda base: AzureNotices(base, now_s=at_noon),
}
QUIET: dict[str, Callable[[], Answering]] = {"aws": Ec2, "gcp": ComputeEngine, "azure": Azure}


@pytest.mark.parametrize("cloud", SOURCES)
class TestEveryCloud:
    def test_a_quiet_machine_has_no_notice(self, cloud: str, serve: Serve) -> None:
        web = serve(QUIET[cloud]())
        assert SOURCES[cloud](web.address).poll() is None
        assert web.asked

    def test_nobody_there_is_an_error_that_names_the_address(self, cloud: str) -> None:
        with socket.socket() as taken:  # bound and not listening: refused
            taken.bind(("127.0.0.1", 0))
            base = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(NoticeUnavailable, match=base) as caught:
                SOURCES[cloud](base).poll()
        assert caught.value.hint

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(500, "internal error"),
            Reply(503),
            Reply(302, headers={"Location": "http://127.0.0.1:1/"}),
            Reply(200, "<html>sign in</html>"),
            Reply(200, "[" * 100_000),
            Reply(200, "\x00\xff"),
            Reply(200, ""),
            Reply(200, "x" * 1_000_000),
            Reply(raw=b"garbage\r\n\r\n"),
            Reply(raw=b""),
            Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        ],
        ids=["500", "503", "redirect", "html", "deep", "bytes", "empty", "long", "no-http", "hung-up", "cut-short"],
    )
    def test_garbage_is_an_error_and_no_notice(self, cloud: str, reply: Reply, serve: Serve) -> None:
        web = serve(lambda asked: reply)
        with pytest.raises(NoticeUnavailable):
            SOURCES[cloud](web.address).poll()

    def test_proxies_of_the_environment_are_not_used(
        self, cloud: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert SOURCES[cloud](serve(QUIET[cloud]()).address).poll() is None

    def test_a_base_may_have_a_path(self, cloud: str, serve: Serve) -> None:
        web = serve(lambda asked: Reply(404))
        with pytest.raises(NoticeUnavailable):
            SOURCES[cloud](f"{web.address}/simulator/").poll()
        assert all(path.startswith(("/simulator/latest", "/simulator/comp", "/simulator/meta")) for path in web.paths())


# ---- Amazon ----


def test_aws_spot_interruption(serve: Serve) -> None:
    web = serve(Ec2(spot_action={"action": "terminate", "time": "2026-11-21T12:02:00Z"}))
    notice = AwsNotices(web.address, now_s=at_noon).poll()
    assert notice is not None
    assert notice.kind is NoticeKind.PREEMPTION
    assert notice.deadline_s == NOON_S + 120
    assert notice.seconds_left(NOON_S + 30) == 90
    assert notice.seconds_left(NOON_S + 300) == 0
    assert notice.words == "EC2 will terminate this spot instance at 2026-11-21T12:02:00Z"


@pytest.mark.parametrize(
    "action", [{"action": "hibernate"}, {"action": "stop", "time": "soon"}, {"instance-action": "stop"}]
)
def test_aws_interruption_without_a_usable_time_has_no_deadline(action: dict[str, str], serve: Serve) -> None:
    notice = AwsNotices(serve(Ec2(spot_action=action)).address, now_s=at_noon).poll()
    assert notice is not None
    assert notice.kind is NoticeKind.PREEMPTION
    assert notice.deadline_s is None
    assert notice.seconds_left(NOON_S) is None


def test_aws_token_is_asked_once_and_again_when_it_has_expired(serve: Serve) -> None:
    cloud = Ec2()
    source = AwsNotices(serve(cloud).address, now_s=at_noon)
    assert source.poll() is None
    assert source.poll() is None
    assert cloud.tokens_given == 1
    cloud.expire_tokens()
    cloud.spot_action = {"action": "stop", "time": "2026-11-21T12:02:00Z"}
    notice = source.poll()
    assert notice is not None and "stop" in notice.words
    assert cloud.tokens_given == 2


def test_aws_that_refuses_every_token_is_an_error_after_one_more_try(serve: Serve) -> None:
    web = serve(lambda asked: Reply(text="token") if asked.method == "PUT" else Reply(401))
    with pytest.raises(NoticeUnavailable, match="401"):
        AwsNotices(web.address, now_s=at_noon).poll()
    assert web.paths().count("/latest/api/token") == 2


def test_aws_without_an_answer_names_the_hop_limit_of_containers() -> None:
    with socket.socket() as listening:  # accepts and never answers, as where the answer's hops are used up
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        began_s = time.monotonic()
        with pytest.raises(NoticeUnavailable, match="does not answer in time") as caught:
            AwsNotices(f"http://127.0.0.1:{listening.getsockname()[1]}", now_s=at_noon).poll()
    assert "hop-limit" in (caught.value.hint or "")
    assert time.monotonic() - began_s < 30


def test_a_server_that_drips_is_not_waited_for(serve: Serve) -> None:
    web = serve(lambda asked: Reply(text="x" * 1000, drip_s=0.3))
    began_s = time.monotonic()
    with pytest.raises(NoticeUnavailable, match="in time"):
        AwsNotices(web.address, now_s=at_noon).poll()
    assert time.monotonic() - began_s < 60  # all of it would take 300 s


def test_an_answer_without_end_is_not_kept(serve: Serve) -> None:
    cloud = Azure(events=[azure_event("Preempt", Description="x" * 1_000_000)])
    with pytest.raises(NoticeUnavailable, match="does not speak HTTP as it should"):
        AzureNotices(serve(cloud).address, now_s=at_noon).poll()


def maintenance_event(**changed: str) -> dict[str, str]:
    event = {
        "NotBefore": "21 Nov 2026 12:10:00 GMT",
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": "21 Nov 2026 14:00:00 GMT",
        "State": "active",
    }
    return {**event, **changed}


@pytest.mark.parametrize(
    "said",
    [
        [
            maintenance_event(NotBefore="8 Dec 2026 12:00:00 GMT"),
            maintenance_event(NotBefore="21 Nov 2026 12:11:00 GMT"),
            maintenance_event(),
        ],
        maintenance_event(),
    ],
    ids=["list", "one"],
)
def test_aws_maintenance_in_its_last_hour(said: object, serve: Serve) -> None:
    cloud = Ec2(maintenance=said)
    notice = AwsNotices(serve(cloud).address, now_s=at_noon).poll()
    assert notice is not None
    assert notice.kind is NoticeKind.MAINTENANCE
    assert notice.deadline_s == NOON_S + 600
    assert "system-reboot" in notice.words


@pytest.mark.parametrize(
    "event",
    [
        maintenance_event(NotBefore="21 Nov 2026 13:00:01 GMT"),
        maintenance_event(State="completed"),
        maintenance_event(State="canceled"),
        maintenance_event(NotBefore="some day"),
    ],
    ids=["later", "completed", "canceled", "unreadable"],
)
def test_aws_maintenance_that_does_not_matter_yet(event: dict[str, str], serve: Serve) -> None:
    assert AwsNotices(serve(Ec2(maintenance=[event])).address, now_s=at_noon).poll() is None


def test_aws_rebalance_is_advice_and_yields_to_an_interruption(serve: Serve) -> None:
    cloud = Ec2(rebalance={"noticeTime": "2026-11-21T11:59:00Z"})
    source = AwsNotices(serve(cloud).address, now_s=at_noon)
    advice = source.poll()
    assert advice is not None
    assert advice.kind is NoticeKind.ADVICE
    assert not advice.kind.ends_the_job
    cloud.spot_action = {"action": "terminate", "time": "2026-11-21T12:02:00Z"}
    notice = source.poll()
    assert notice is not None and notice.kind is NoticeKind.PREEMPTION


# ---- Google ----


def held_questions(web: Web) -> list[str]:
    return [asked.query["last_etag"] for asked in list(web.asked) if asked.query.get("wait_for_change") == "true"]


def test_gcp_news_end_a_question_that_is_held(serve: Serve) -> None:
    cloud = ComputeEngine()
    web = serve(cloud)
    source = GcpNotices(web.address, now_s=at_noon)
    assert source.poll() is None
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(source.poll)
        wait_for(lambda: len(held_questions(web)) == 2)
        assert not polling.done()
        cloud.set("preempted", "TRUE")
        notice = polling.result(timeout=60)
    assert notice is not None
    assert notice.kind is NoticeKind.PREEMPTION
    assert notice.deadline_s == NOON_S + 30
    assert held_questions(web)[0] == "0" != held_questions(web)[1]
    assert {asked.query["timeout_sec"] for asked in web.asked if "timeout_sec" in asked.query} == {"10"}


def test_gcp_news_between_two_questions_are_not_missed(serve: Serve) -> None:
    cloud = ComputeEngine()
    source = GcpNotices(serve(cloud).address, now_s=at_noon)
    assert source.poll() is None
    cloud.set("preempted", "TRUE")
    assert source.poll() is not None


def test_gcp_deadline_counts_from_the_first_sight_and_as_long_as_told(serve: Serve) -> None:
    cloud = ComputeEngine()
    cloud.set("preempted", "TRUE")
    clock = iter([NOON_S, NOON_S + 10, NOON_S + 60])
    source = GcpNotices(serve(cloud).address, now_s=lambda: next(clock), notice_s=120)
    deadlines = [notice.deadline_s for notice in (source.poll(), source.poll()) if notice]
    assert deadlines == [NOON_S + 120, NOON_S + 120]
    cloud.set("preempted", "FALSE")
    assert source.poll() is None
    cloud.set("preempted", "TRUE")
    again = source.poll()
    assert again is not None and again.deadline_s == NOON_S + 180


def test_gcp_maintenance_that_ends_the_machine(serve: Serve) -> None:
    cloud = ComputeEngine()
    source = GcpNotices(serve(cloud).address, now_s=at_noon)
    cloud.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    assert source.poll() is None
    cloud.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    notice = source.poll()
    assert notice is not None
    assert notice.kind is NoticeKind.MAINTENANCE
    assert notice.deadline_s == NOON_S + 60
    cloud.set("preempted", "TRUE")
    urgent = source.poll()
    assert urgent is not None and urgent.kind is NoticeKind.PREEMPTION


def test_gcp_another_server_in_its_place_is_not_believed(serve: Serve) -> None:
    web = serve(lambda asked: Reply(text="TRUE"))
    with pytest.raises(NoticeUnavailable, match="not Google's"):
        GcpNotices(web.address, now_s=at_noon).poll()


# ---- Microsoft ----


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Preempt", NoticeKind.PREEMPTION),
        ("Terminate", NoticeKind.PREEMPTION),
        ("Reboot", NoticeKind.MAINTENANCE),
        ("Redeploy", NoticeKind.MAINTENANCE),
        ("Freeze", None),
        ("SomethingNew", None),
    ],
)
def test_azure_kinds_of_events(kind: str, expected: NoticeKind | None, serve: Serve) -> None:
    notice = AzureNotices(serve(Azure(events=[azure_event(kind)])).address, now_s=at_noon).poll()
    assert (notice.kind if notice else None) is expected
    if notice is not None:
        assert notice.deadline_s == NOON_S + 30


def test_azure_events_of_other_machines_are_not_ours(serve: Serve) -> None:
    web = serve(Azure(events=[azure_event("Preempt", ("gpt_0", "gpt_2"))]))
    source = AzureNotices(web.address, now_s=at_noon)
    assert source.poll() is None
    assert source.poll() is None
    assert web.paths().count("/metadata/instance/compute/name") == 1


def test_azure_an_event_that_has_begun_is_due_now(serve: Serve) -> None:
    cloud = Azure(events=[azure_event("Preempt", EventStatus="Started", NotBefore="")])
    notice = AzureNotices(serve(cloud).address, now_s=at_noon).poll()
    assert notice is not None and notice.deadline_s == NOON_S


def test_azure_the_most_urgent_of_several(serve: Serve) -> None:
    later = azure_event("Reboot", NotBefore="Sat, 21 Nov 2026 12:10:00 GMT", Description="Host update")
    cloud = Azure(events=[later, azure_event("Preempt")])
    source = AzureNotices(serve(cloud).address, now_s=at_noon)
    notice = source.poll()
    assert notice is not None and notice.kind is NoticeKind.PREEMPTION
    cloud.events.pop()
    notice = source.poll()
    assert notice is not None and notice.words == "Azure has scheduled Reboot of this machine: Host update"
    cloud.events.clear()
    assert source.poll() is None


def test_azure_the_first_answer_may_take_its_time(serve: Serve) -> None:
    cloud = Azure(first_wait_s=3.0, events=[azure_event("Preempt")])  # longer than the usual limit
    assert AzureNotices(serve(cloud).address, now_s=at_noon).poll() is not None


def test_azure_is_never_answered(serve: Serve) -> None:
    web = serve(Azure(events=[azure_event("Preempt")]))
    AzureNotices(web.address, now_s=at_noon).poll()
    assert {asked.method for asked in web.asked} == {"GET"}
