"""Fetching from a web server on loopback that misbehaves in every way the issue lists."""

import itertools
import random
from collections.abc import Iterator

import pytest

from agent_rig import QUICK, Page, Recorder, WebServer, digest, file_machine, web_server
from billet_agent.image.fetch import Fetch, TextSink, check_redirect, check_url, show_url
from billet_agent.jobs.deploy import resolve_checksum
from billet_agent.problems import JobCancelled, JobFailed
from billet_wire import ImageSource, JobProblem

BODY = random.Random(7).randbytes(3_000_000)
TAG = {"ETag": '"v1"'}


class Bytes:
    """A sink that keeps everything and counts its beginnings."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.totals: list[int | None] = []

    def begin(self, total_bytes: int | None) -> None:
        self.data.clear()
        self.totals.append(total_bytes)

    def write(self, data: memoryview) -> None:
        self.data += data


@pytest.fixture(name="web")
def _web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def fetch(web: WebServer, path: str = "/image") -> Bytes:
    sink = Bytes()
    assert Fetch(web.url(path), sink, Recorder().context(), QUICK).run() == len(sink.data)
    return sink


def refused(web: WebServer, path: str = "/image") -> JobProblem:
    with pytest.raises(JobFailed) as caught:
        fetch(web, path)
    problem = caught.value.problem
    assert web.url("") in problem.message
    assert problem.advice
    return problem


@pytest.mark.parametrize("chunked", [False, True])
def test_all_bytes_arrive(web: WebServer, chunked: bool) -> None:
    web.pages["/image"] = Page(BODY, chunked=chunked)
    sink = fetch(web)
    assert sink.data == BODY
    assert sink.totals == [None if chunked else len(BODY)]


def test_it_goes_on_where_the_connection_broke(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, cut_after=[1_000_000, 1, 1, 500_000])
    sink = fetch(web)
    assert sink.data == BODY
    assert len(sink.totals) == 1
    ranges = [headers.get("Range") for _, headers in web.requests]
    assert ranges[:2] == [None, "bytes=1000000-"]
    assert len(ranges) == 5


def test_without_ranges_or_a_tag_it_starts_over(web: WebServer) -> None:
    for page in (
        Page(BODY, headers=TAG, ranges=False, cut_after=[1_000_000]),
        Page(BODY, cut_after=[1_000_000]),
    ):
        web.pages["/image"] = page
        sink = fetch(web)
        assert sink.data == BODY
        assert len(sink.totals) == 2


def test_a_file_that_changed_meanwhile_is_not_mixed(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, cut_after=[1_000_000])
    sink, context = Bytes(), Recorder().context()

    def change(line: str) -> None:
        web.pages["/image"] = Page(BODY[::-1], headers={"ETag": '"v2"'}, ranges=False)

    Fetch(web.url("/image"), sink, context, QUICK, change).run()
    assert sink.data == BODY[::-1]


def test_404_says_url_and_answer_and_is_not_repeated(web: WebServer) -> None:
    web.pages["/image"] = Page(b"<h1>nothing here</h1>", status=404)
    problem = refused(web)
    assert problem.problem == "image-fetch"
    assert "/image answered 404" in problem.message
    assert "nothing here" in problem.evidence
    assert len(web.requests) == 1


def test_5xx_is_tried_again(web: WebServer) -> None:
    web.pages["/image"] = Page(b"", status=503)
    assert "503" in refused(web).message
    assert len(web.requests) == QUICK.tries


def test_connection_reset(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, announce=len(BODY) * 2, reset=True, ranges=False)
    problem = refused(web)
    assert problem.problem in {"image-fetch", "image-short"}
    assert f"{QUICK.tries} t" in problem.message


def test_nobody_listens(web: WebServer) -> None:
    web.close()
    problem = refused(web)
    assert problem.problem == "image-fetch"
    assert "refused" in problem.message.lower()


def test_a_server_that_never_answers(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, hang=True)
    sink = Bytes()
    patience = QUICK._replace(stall_s=0.05, tries=2)
    with pytest.raises(JobFailed, match="did not answer"):
        Fetch(web.url("/image"), sink, Recorder().context(), patience).run()


def test_redirect_loop(web: WebServer) -> None:
    web.pages["/image"] = Page(status=302, location="/other")
    web.pages["/other"] = Page(status=301, location="/image")
    problem = refused(web)
    assert "redirects more than 5 times" in problem.message
    assert problem.evidence.count("/other") == 3
    assert len(web.requests) == 6


def test_a_redirect_is_followed(web: WebServer) -> None:
    web.pages["/image"] = Page(status=307, location="real?x=1")
    web.pages["/real"] = Page(BODY)
    assert fetch(web).data == BODY


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/x", "gopher://h"])
def test_redirects_to_other_schemes(web: WebServer, location: str) -> None:
    web.pages["/image"] = Page(status=302, location=location)
    with pytest.raises(JobFailed, match="not an http"):
        fetch(web)


def test_shorter_than_announced(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, announce=len(BODY) + 10)
    problem = refused(web)
    assert problem.problem == "image-short"
    assert str(len(BODY)) in problem.message
    assert str(len(BODY) + 10) in problem.message


def test_a_hidden_encoding_is_refused(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers={"Content-Encoding": "gzip"})
    assert "Content-Encoding gzip" in refused(web).message


def test_a_password_is_sent_but_never_shown(web: WebServer) -> None:
    url = web.url("/image").replace("http://", "http://me:s3cret%21@")
    with pytest.raises(JobFailed) as caught:
        Fetch(url, Bytes(), Recorder().context(), QUICK).run()
    assert "s3cret" not in caught.value.problem.message
    assert "***@127.0.0.1" in caught.value.problem.message
    assert web.requests[0][1]["Authorization"] == "Basic bWU6czNjcmV0IQ=="


def test_cancel_ends_it(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY)
    context = Recorder().context()
    context.cancel()
    with pytest.raises(JobCancelled):
        Fetch(web.url("/image"), Bytes(), context, QUICK).run()


def test_progress_ends_at_the_total(web: WebServer) -> None:
    from billet_agent.jobs.context import JobContext

    seen, ticks = [], itertools.count()
    context = JobContext(seen.append, clock=lambda: float(next(ticks)))
    web.pages["/image"] = Page(BODY)
    with context.step("fetch"):
        Fetch(web.url("/image"), Bytes(), context, QUICK).run()
    assert seen[-1].percent == 100
    assert seen[-1].done_bytes == seen[-1].total_bytes == len(BODY)
    counts = [progress.done_bytes or 0 for progress in seen]
    assert counts == sorted(counts)
    assert any(progress.rate_bytes_s and progress.eta_s for progress in seen)


@pytest.mark.parametrize(
    "url",
    ["", "image.qcow2", "file:///etc/passwd", "http://", "http://h/a b", "http://h\n/x", "//h/x"],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(JobFailed) as caught:
        check_url(url)
    assert caught.value.problem.problem == "image-unsupported"


def test_redirects_that_lead_inwards_or_down() -> None:
    first = "http://images.example/i"
    check_redirect(first, "https://cdn.example/i", first)
    check_redirect("http://127.0.0.1/a", "http://127.0.0.1/b", "http://127.0.0.1/a")
    for origin, target in (
        (first, "http://127.0.0.1:6385/v1/nodes"),
        (first, "http://localhost/"),
        (first, "http://169.254.169.254/latest/meta-data"),
        (first, "http://[::1]/"),
        ("https://images.example/i", "http://images.example/i"),
    ):
        with pytest.raises(JobFailed):
            check_redirect(origin, target, first)


def test_show_url() -> None:
    assert show_url("http://h/x?y") == "http://h/x?y"
    assert show_url("http://u@h:1/x") == "http://***@h:1/x"


def test_sum_files(web: WebServer) -> None:
    machine, context = file_machine(), Recorder().context()
    image = ImageSource(web.url("/a/os.qcow2"), web.url("/sums"))
    web.pages["/sums"] = Page(f"{digest(BODY)}  os.qcow2\n".encode())
    assert str(resolve_checksum(image, machine, context)) == f"sha256:{digest(BODY)}"
    for page, words in (
        (Page(status=404), "answered 404"),
        (Page(f"{digest(BODY)}  other\n".encode()), "does not list os.qcow2"),
        (Page(b"x" * 2_000_000), "bigger than"),
        (Page(b"<html>hello</html>"), "web page"),
    ):
        web.pages["/sums"] = page
        with pytest.raises(JobFailed, match=words) as caught:
            resolve_checksum(image, machine, context)
        assert caught.value.problem.problem == "checksum-file"


def test_text_sink_starts_over() -> None:
    sink = TextSink(10)
    sink.begin(None)
    sink.write(memoryview(b"abc"))
    sink.begin(3)
    sink.write(memoryview(b"xyz"))
    assert sink.text == "xyz"
