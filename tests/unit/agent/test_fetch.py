"""Fetching from a web server on loopback that misbehaves in every way the issue lists."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_rig import QUICK, Page, Recorder, WebServer, digest, file_machine, web_server
from agent_server import Pki
from billet_agent.image.fetch import Fetch, TextSink
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.deploy import resolve_checksum
from billet_agent.plan.urls import check_redirect, check_url, show_url
from billet_agent.problems import JobCancelled, JobFailed, failure
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


def mirrored(
    web: WebServer, *paths: str, prove: Callable[[], JobFailed | None] = lambda: None
) -> tuple[Bytes, list[str]]:
    sink, recorder = Bytes(), Recorder()
    first, *others = map(web.url, paths)
    fetch = Fetch(
        first, sink, recorder.context(), QUICK, recorder.lines.append, mirrors=tuple(others)
    )
    assert fetch.run(prove) == len(sink.data)
    return sink, recorder.lines


def asked(web: WebServer) -> list[tuple[str, str | None]]:
    return [(path, headers.get("Range")) for path, headers in web.requests]


def test_ten_cuts_cost_no_byte_twice(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, cut_after=[250_000] * 10)
    assert fetch(web).data == BODY
    assert len(web.requests) == 11
    assert web.sent_bytes == len(BODY)


def test_it_goes_on_by_date_where_there_is_no_tag(web: WebServer) -> None:
    stamp = "Tue, 01 Sep 2026 10:00:00 GMT"
    web.pages["/image"] = Page(BODY, headers={"Last-Modified": stamp}, cut_after=[1_000_000])
    assert len(fetch(web).totals) == 1
    assert web.requests[1][1]["If-Range"] == stamp


def test_a_weak_tag_proves_nothing(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers={"ETag": 'W/"v1"'}, cut_after=[1_000_000])
    assert len(fetch(web).totals) == 2
    assert asked(web)[1] == ("/image", None)


def test_a_server_that_ignores_if_range_is_found_out(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, cut_after=[1_000_000])
    sink, recorder = Bytes(), Recorder()

    def change(line: str) -> None:
        recorder.lines.append(line)
        web.pages["/image"] = Page(BODY[::-1], headers={"ETag": '"v2"'})

    Fetch(web.url("/image"), sink, recorder.context(), QUICK, change).run()
    assert sink.data == BODY[::-1]
    assert any("has changed meanwhile: starts over" in line for line in recorder.lines)


@pytest.mark.parametrize(
    "span", ["bytes 0-2999999/3000000", "bytes 1000000-2999999/9", "", "bytes */3000000", "x"]
)
def test_a_part_that_is_another_one_starts_over(web: WebServer, span: str) -> None:
    page = Page(BODY, headers=TAG, cut_after=[1_000_000], content_range=span or "none")
    web.pages["/image"] = page
    sink = fetch(web)
    assert sink.data == BODY
    assert asked(web) == [("/image", None), ("/image", "bytes=1000000-"), ("/image", None)]


def test_416_starts_over(web: WebServer) -> None:
    web.pages["/image"] = page = Page(BODY, headers=TAG, cut_after=[1_000_000])

    def refuse(line: str) -> None:
        page.refusals = [416] if "broke" in line or "early" in line else []

    sink = Bytes()
    Fetch(web.url("/image"), sink, Recorder().context(), QUICK, refuse).run()
    assert sink.data == BODY
    assert [span for _, span in asked(web)] == [None, "bytes=1000000-", None]


def test_5xx_in_the_middle_loses_nothing(web: WebServer) -> None:
    page = Page(BODY, headers=TAG, cut_after=[1_000_000])
    web.pages["/image"] = page

    def refuse(line: str) -> None:
        if "early" in line:
            page.refusals = [503]

    sink = Bytes()
    Fetch(web.url("/image"), sink, Recorder().context(), QUICK, refuse).run()
    assert sink.data == BODY
    assert web.sent_bytes == len(BODY)


def test_retry_after_is_waited_for(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, refusals=[429], headers={"Retry-After": "3"})
    recorder = Recorder()
    context, pauses = recorder.context(), []
    context.pause = pauses.append  # type: ignore[method-assign]
    sink = Bytes()
    Fetch(web.url("/image"), sink, context, QUICK, recorder.lines.append).run()
    assert sink.data == BODY
    assert sum(pauses) == 3.0
    assert "answered 429" in recorder.lines[0]


def test_a_stalled_connection_is_cut_and_goes_on(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, stall_after=[1_000_000])
    sink, recorder = Bytes(), Recorder()
    patience = QUICK._replace(stall_s=1.5)
    Fetch(web.url("/image"), sink, recorder.context(), patience, recorder.lines.append).run()
    assert sink.data == BODY
    assert "no byte for 1.5 s" in recorder.lines[0]
    assert asked(web)[1] == ("/image", "bytes=1000000-")


def test_a_trickle_is_a_stall(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, headers=TAG, trickle_s=0.05)
    patience = QUICK._replace(stall_s=1.5, tries=1)
    with pytest.raises(JobFailed, match=r"only \d+ bytes in"):
        Fetch(web.url("/image"), Bytes(), Recorder().context(), patience).run()


def test_a_cancel_is_noticed_while_nothing_comes(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, stall_after=[1_000_000])
    context = Recorder().context()
    sink = Bytes()
    timer = threading.Timer(0.3, context.cancel)
    timer.start()
    try:
        with pytest.raises(JobCancelled):
            patience = QUICK._replace(stall_s=3600.0)
            Fetch(web.url("/image"), sink, context, patience).run()
    finally:
        timer.cancel()
        timer.join()


def test_a_mirror_goes_on_where_the_first_server_broke_off(web: WebServer) -> None:
    web.pages["/one"] = page = Page(BODY, headers=TAG, cut_after=[1_000_000], refusals=[])
    web.pages["/two"] = Page(BODY, headers={"ETag": '"of its own"'})

    def die(line: str) -> None:
        page.refusals = [503] * 9

    sink = Bytes()
    fetch = Fetch(
        web.url("/one"), sink, Recorder().context(), QUICK, die, mirrors=(web.url("/two"),)
    )
    fetch.run()
    assert sink.data == BODY
    assert len(sink.totals) == 1
    assert web.sent_bytes == len(BODY)
    assert asked(web)[-1] == ("/two", "bytes=1000000-")
    assert "If-Range" not in web.requests[-1][1], "a tag is its own server's"
    assert fetch.used == f"{web.url('/one')} and {web.url('/two')}"


def test_a_mirror_of_another_length_is_no_mirror_of_the_rest(web: WebServer) -> None:
    web.pages["/one"] = page = Page(BODY, headers=TAG, stall_after=[1_000_000])
    web.pages["/two"] = Page(BODY + b"more", headers=TAG)

    def fetch_both(log: Callable[[str], None]) -> bytearray:
        sink = Bytes()
        patience = QUICK._replace(stall_s=0.1)
        mirrors = (web.url("/two"),)
        context = Recorder().context()
        Fetch(web.url("/one"), sink, context, patience, log, mirrors=mirrors).run()
        return sink.data

    lines: list[str] = []
    assert fetch_both(lines.append) == BODY
    assert any("of a file of 3000004 bytes, not 3000000" in line for line in lines)
    assert web.sent_bytes <= len(BODY) * 2 + 4, "the first server's bytes were kept"

    def die(line: str) -> None:
        page.refusals = [404]

    page.stall_after = [1_000_000]
    assert fetch_both(die) == BODY + b"more", "nobody else is left"


def test_mirrors_are_tried_in_turn(web: WebServer) -> None:
    web.pages["/two"] = Page(b"", status=503)
    web.pages["/three"] = Page(status=302, location="file:///etc/shadow")
    web.pages["/four"] = Page(BODY)
    sink, lines = mirrored(web, "/one", "/two", "/three", "/four")
    assert sink.data == BODY
    assert [path for path, _ in asked(web)] == ["/one", "/two", "/three", "/four"]
    assert "/one answered 404" in lines[0]
    assert "now from" in lines[0]


def test_when_every_mirror_fails_each_is_named(web: WebServer) -> None:
    web.pages["/two"] = Page(status=403)
    with pytest.raises(JobFailed, match="none of 3 servers") as caught:
        mirrored(web, "/one", "/two", "/three")
    evidence = caught.value.problem.evidence
    assert all(words in evidence for words in ("/one answered 404", "/two answered 403", "/three"))
    web.pages = {path: Page(status=500) for path in ("/one", "/two")}
    with pytest.raises(JobFailed, match="/one and 1 mirror could not be fetched in 6 tries"):
        mirrored(web, "/one", "/two")


def test_a_mirror_must_be_http(web: WebServer) -> None:
    web.pages["/one"] = Page(BODY)
    sink = Bytes()
    with pytest.raises(JobFailed, match="not an http"):
        Fetch(web.url("/one"), sink, Recorder().context(), QUICK, mirrors=("ftp://h/x",)).run()
    assert not web.requests


def prover(sink: Bytes, wanted: bytes) -> Callable[[], JobFailed | None]:
    def prove() -> JobFailed | None:
        if sink.data == wanted:
            return None
        return failure("image-checksum", "it has another digest")

    return prove


def test_a_corrupt_mirror_is_left_for_another(web: WebServer) -> None:
    web.pages["/one"] = Page(BODY[:-1] + b"!", headers=TAG)
    web.pages["/two"] = Page(BODY)
    sink, recorder = Bytes(), Recorder()
    fetch = Fetch(
        web.url("/one"),
        sink,
        recorder.context(),
        QUICK,
        recorder.lines.append,
        mirrors=(web.url("/two"),),
    )
    fetch.run(prover(sink, BODY))
    assert sink.data == BODY
    assert fetch.used == web.url("/two")
    assert "it has another digest; starts over from" in recorder.lines[0]
    with pytest.raises(JobFailed, match="another digest"):
        fetch.run(prover(sink, b"nobody has this"))


def test_a_mix_that_is_wrong_is_fetched_again_from_one_alone(web: WebServer) -> None:
    web.pages["/one"] = Page(BODY, headers=TAG, stall_after=[1_000_000])
    web.pages["/two"] = Page(BODY[::-1], headers=TAG, refusals=[])
    sink, recorder = Bytes(), Recorder()
    fetch = Fetch(
        web.url("/one"),
        sink,
        recorder.context(),
        QUICK._replace(stall_s=0.1),
        recorder.lines.append,
        mirrors=(web.url("/two"),),
    )
    fetch.run(prover(sink, BODY))
    assert sink.data == BODY
    assert any("from one alone" in line for line in recorder.lines)
    assert fetch.used == web.url("/one")


def test_a_limit_is_kept(web: WebServer) -> None:
    body = BODY[:400_000]
    web.pages["/image"] = Page(body)
    recorder = Recorder()
    context, slept, now = recorder.context(), [], [0.0]

    def pause(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    context.pause = pause  # type: ignore[method-assign]
    sink = Bytes()
    Fetch(web.url("/image"), sink, context, QUICK, rate_bytes_s=100_000, clock=lambda: now[0]).run()
    assert sink.data == body
    assert now[0] == pytest.approx(3.75)
    assert max(slept) < 0.3, "an even flow"


@pytest.fixture(name="safe")
def _safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    pki = Pki(tmp_path)
    (tmp_path / "ca.pem").write_text(pki.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with web_server(pki.server_context()) as server:
        yield server


def test_cuts_and_stalls_by_tls(safe: WebServer) -> None:
    safe.pages["/image"] = Page(
        BODY, headers=TAG, cut_after=[1_000_000, 7], stall_after=[len(BODY), 8, 1_000_000]
    )
    sink, recorder = Bytes(), Recorder()
    patience = QUICK._replace(stall_s=0.3, tries=5)
    Fetch(safe.url("/image"), sink, recorder.context(), patience, recorder.lines.append).run()
    assert sink.data == BODY
    assert len(sink.totals) == 1
    assert safe.sent_bytes == len(BODY)
    assert any("no byte for 0.3 s" in line for line in recorder.lines)


def test_a_cancel_is_noticed_while_nothing_comes_by_tls(safe: WebServer) -> None:
    safe.pages["/image"] = Page(BODY, stall_after=[1_000_000])
    context, sink = Recorder().context(), Bytes()
    patience = QUICK._replace(stall_s=3600.0)
    timer = threading.Timer(0.3, context.cancel)
    timer.start()
    try:
        with pytest.raises(JobCancelled):
            Fetch(safe.url("/image"), sink, context, patience).run()
    finally:
        timer.join()


def test_a_certificate_of_a_stranger(
    safe: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(Pki(tmp_path / "other").ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger))
    safe.pages["/image"] = Page(BODY)
    assert "certificate is not trusted" in refused(safe).message
    assert not safe.requests


def test_a_long_wait_is_no_silence(web: WebServer) -> None:
    web.pages["/image"] = Page(BODY, refusals=[503], headers={"Retry-After": "5"})
    recorder, now = Recorder(), [0.0]
    context = JobContext(recorder.progress.append, clock=lambda: now[0])

    def pause(seconds: float) -> None:
        now[0] += seconds

    context.pause = pause  # type: ignore[method-assign]
    sink = Bytes()
    with context.step("fetch"):
        Fetch(web.url("/image"), sink, context, QUICK).run()
    assert sink.data == BODY
    waiting = [progress for progress in recorder.progress if progress.done_bytes == 0]
    assert len(waiting) >= 5
    assert waiting[-1].rate_bytes_s == 0


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
