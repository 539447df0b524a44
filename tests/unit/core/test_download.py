"""Mirrors and the limit of the bandwidth: what people write, and what the agent is told."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.download import MOST_MIRRORS, Download, download_of, parse_mirrors
from billet_server.core.download import parse_rate as rate
from billet_server.core.problems import Fault
from billet_server.core.seen import Rules
from billet_server.core.states import State
from billet_server.core.validation.annotations import annotation_faults
from billet_server.errors import ConfigError
from billet_server.settings import Inputs, check
from core_world import IMAGE, World, spec

MIRRORS = "billet.dev/image-mirrors"
LIMIT = "billet.dev/image-rate-limit"
A, B = "http://a.example/os.qcow2", "https://b.example:8443/os.qcow2"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", None),
        ("0M", None),
        ("0.0", None),
        ("65536", 65536),
        ("64K", 65536),
        ("64k", 65536),
        ("20M", 20 << 20),
        ("1.5G", 3 << 29),
        (" 10m ", 10 << 20),
    ],
)
def test_rates(text: str, wanted: int | None) -> None:
    assert rate(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "not a number") for text in ("", "fast", "-1", "10 M", "10MB", "10T", "1e9")),
        *((text, "not a number") for text in ("٣M", "nan", "inf", "9" * 40)),
        *((text, "less than 64K") for text in ("1", "63K", "0.001", "65535")),
    ],
)
def test_rates_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rate(text)
    with pytest.raises(ConfigError, match="--image-rate-limit"):
        check(Inputs(image_rate_limit=text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("", ()), (A, (A,)), (f" {A}\n\t{B}\n{A}", (A, B)), (f"{A}?a,b", (f"{A}?a,b",))],
)
def test_mirrors(text: str, wanted: tuple[str, ...]) -> None:
    assert parse_mirrors(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file:///etc/shadow", "only http"),
        (f"{A} ftp://h/x", "ftp://h/x: only http"),
        (f"{A},{B}", ""),
        ("http://", "no host"),
        ("os.qcow2", "only http"),
        (" ".join(f"{A}?{number}" for number in range(MOST_MIRRORS + 1)), "17 mirrors"),
    ],
)
def test_mirrors_that_are_none(text: str, words: str) -> None:
    if not words:
        assert parse_mirrors(text) == (text,), "a comma may be part of a URL"
        return
    with pytest.raises(ValueError, match=words):
        parse_mirrors(text)


def test_a_hosts_annotation_replaces_the_servers_limit() -> None:
    assert download_of({}, None) == Download()
    assert download_of({}, 1 << 20) == Download((), 1 << 20)
    assert download_of({LIMIT: "2M", MIRRORS: A}, 1 << 20) == Download((A,), 2 << 20)
    assert download_of({LIMIT: "0"}, 1 << 20) == Download()
    assert download_of({LIMIT: " ", MIRRORS: "\n"}, 1 << 20) == Download((), 1 << 20)


@pytest.mark.parametrize(("key", "value"), [(LIMIT, "fast"), (MIRRORS, "ftp://h/x")])
def test_what_makes_no_sense_is_refused_by_name(key: str, value: str) -> None:
    fault = download_of({key: value}, None)
    assert isinstance(fault, Fault)
    assert key in fault.message
    assert value in fault.message
    (refused,) = annotation_faults({"metadata": {"annotations": {key: value}}})
    assert refused.path == f"metadata.annotations[{key}]"
    assert not list(annotation_faults({"metadata": {"annotations": {key: ""}}}))


def test_the_setting_reaches_the_rules() -> None:
    assert check(Inputs()).rules.image_rate_bytes_s is None
    assert check(Inputs(image_rate_limit="20M")).rules.image_rate_bytes_s == 20 << 20


def deploys(world: World) -> list[ask.StartDeploy]:
    return [effect for effect in world.performed if isinstance(effect, ask.StartDeploy)]


def test_the_agent_is_told() -> None:
    world = World(spec=spec(online=True, image=IMAGE))
    world.annotations |= {MIRRORS: f"{A} {B}", LIMIT: "20M"}
    world.run(lambda: world.state is State.PROVISIONED)
    assert {effect.download for effect in deploys(world)} == {Download((A, B), 20 << 20)}


def test_a_fault_stands_until_the_annotation_is_corrected() -> None:
    world = World(spec=spec(online=True, image=IMAGE))
    world.annotations[LIMIT] = "fast"
    world.run(lambda: world.status.problem is not None)
    problem = world.status.problem
    assert problem is not None
    assert problem.id == "image-unsupported"
    assert LIMIT in problem.message
    assert not deploys(world)
    del world.annotations[LIMIT]
    world.run(lambda: world.state is State.PROVISIONED)
    assert {effect.download for effect in deploys(world)} == {Download()}


def test_a_server_limits_every_host() -> None:
    world = World(spec=spec(online=True, image=IMAGE))
    world.rules = Rules(image_rate_bytes_s=1 << 20)
    world.run(lambda: world.state is State.PROVISIONED)
    assert {effect.download for effect in deploys(world)} == {Download((), 1 << 20)}
