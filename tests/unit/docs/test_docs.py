"""The words against the code: nothing is named that does not exist, nothing is left out."""

import re
import shlex
from pathlib import Path

import click
import msgspec
import pytest
import yaml

from billet_lab.faults import Faults
from billet_server.cli.root import installed_plugins, root_with
from billet_server.core import problems, turn
from billet_server.core.figures import FIGURES
from billet_server.core.host import (
    Boot,
    Failures,
    ProblemStatus,
    Progress,
    RebootStatus,
    Spec,
    Waiting,
    parse_host,
)
from billet_server.core.states import TRANSITIONS, State
from billet_server.core.validate import validate_host

TOP = Path(__file__).resolve().parents[3]
PAGES = sorted([*(TOP / "docs").glob("*.md"), *TOP.glob("*.md")])
CORE = "\n".join(path.read_text() for path in (TOP / "server/src/billet_server/core").glob("*.py"))
ENGINE = "\n".join(p.read_text() for p in (TOP / "server/src/billet_server/engine").glob("*.py"))
CRD = yaml.safe_load((TOP / "crds/baremetalhosts.yaml").read_text())
ROOT = root_with(installed_plugins())

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")


def page(name: str) -> str:
    return (TOP / name).read_text()


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def headings(text: str, level: int | None = None) -> list[str]:
    found = _HEADING.findall(prose(text))
    return [title for marks, title in found if level is None or len(marks) == level]


def anchor(heading: str) -> str:
    """As GitHub makes them: lower case, words joined by hyphens, no other signs."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def section(text: str, title: str) -> str:
    """The text under a heading, up to the next one of any level."""
    return text.split(f"# {title}\n", 1)[1].split("\n#", 1)[0]


def table(text: str) -> list[list[str]]:
    """The cells of the first table in a text, without its head."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def names(cell: str) -> list[str]:
    return _CODE.findall(cell)


# links


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in _LINK.findall(prose(path.read_text())):
        assert "://" not in target, f"{target}: a page outside is not ours to keep"
        file, _, fragment = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.is_file(), target
        if fragment:
            assert fragment in [anchor(title) for title in headings(there.read_text())], target


def test_every_page_is_reached_from_the_index():
    linked = {(TOP / "docs" / target).resolve() for target in _LINK.findall(page("docs/index.md"))}
    assert {path for path in PAGES if path.name != "index.md"} <= {
        Path(str(target).partition("#")[0]) for target in linked
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_have_lines_that_fit_and_no_place_of_one_machine(path):
    text = path.read_text()
    assert not re.search(r"/work/|/tmp/brief|/home/", text)
    long = [line for line in prose(text).splitlines() if len(line) > 120 and line[:1] != "|"]
    assert not long


# problems


def test_every_problem_has_a_section_and_every_section_a_problem():
    sections = set(headings(page("docs/troubleshooting.md"), 2))
    assert sections - {"It is stuck and does not say why"} == set(problems.CATALOGUE)


# commands


def context_of(command: click.Command) -> click.Context:
    # Commands remember the help option of their first context: it must be the real one.
    return click.Context(command, **ROOT.context_settings)


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    command: click.Command = ROOT
    rest = list(words)
    while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.get_command(context_of(command), rest[0])
        assert found is not None, f"there is no command billet {' '.join(words)}"
        command, rest = found, rest[1:]
    return command, rest


def spellings(command: click.Command) -> set[str]:
    params = command.get_params(context_of(command))
    options = [param for param in params if isinstance(param, click.Option)]
    return {word for option in options for word in (*option.opts, *option.secondary_opts)}


def commands_in(text: str) -> list[list[str]]:
    blocks = [body for kind, body in _FENCE.findall(text) if kind == "sh"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    candidates = [*lines, *_CODE.findall(prose(text))]
    found = []
    for line in candidates:
        for part in re.split(r" -- (?=billet )", line):
            match = re.match(r"(?:build/venv/bin/)?billet (.+)", part)
            if match:
                found.append(shlex.split(match[1], comments=True))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_and_options_exist(path):
    for words in commands_in(path.read_text()):
        command, rest = find(words)
        assert not isinstance(command, click.Group) or not rest or rest[0].startswith("-"), words
        if "--" in rest:
            rest = rest[: rest.index("--")]
        for word in rest:
            if word.startswith("-"):
                assert word.partition("=")[0] in spellings(command), words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_options_named_alone_exist_somewhere(path):
    known = {"--force", "--element"}  # ramdisk/build
    for name in (
        "lab up",
        "lab console",
        "lab list",
        *set(ROOT.list_commands(context_of(ROOT))) - {"lab"},
    ):
        known |= spellings(find(name.split())[0])
    for code in _CODE.findall(prose(path.read_text())):
        if re.match(r"--[a-z]", code):
            assert code.split()[0] in known | {"--help"}, code


def leaves(command: click.Command, path: str) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {path: command}
    found: dict[str, click.Command] = {}
    context = context_of(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        found |= leaves(child, f"{path} {name}")
    return found


def test_the_reference_lists_every_command():
    rows = table(section(page("docs/reference.md"), "Commands"))
    listed = {names(row[0])[0].replace(" HOST...", "").replace(" HOST", "") for row in rows}
    assert listed == set(leaves(ROOT, "billet"))


def test_every_option_has_help_and_every_command_a_short_one():
    for path, command in leaves(ROOT, "billet").items():
        assert command.get_short_help_str(), path
        if path.split()[1] != "lab":
            for param in command.params:
                assert not isinstance(param, click.Option) or param.help, (path, param.name)


def test_the_settings_table_is_that_of_click():
    rows = table(section(page("docs/reference.md"), "Settings of `billet up`"))
    told = {names(row[0])[0]: row[1] for row in rows}
    real = {}
    for param in find(["up"])[0].params:
        assert isinstance(param, click.Option)
        option = max(param.opts, key=len)
        default = param.to_info_dict()["default"]
        real[option] = default if default not in (None, False, (), []) else None
    assert list(told) == list(real)
    for option, default in real.items():
        if default is not None:
            assert told[option] == f"`{default}`", option
        else:
            words = "none", "off", "`/var/lib/billet`", "the ", "upper ", "`dhcp` with "
            assert told[option].startswith(words), option


# fields, events, states, faults


def test_fields_are_either_acted_on_or_not():
    acted = [names(row[0])[0] for row in table(
        section(page("docs/reference.md"), "Fields of a host that are acted on"))]  # fmt: skip
    idle = [names(row[0])[0] for row in table(
        section(page("docs/reference.md"), "Accepted but not acted on yet"))]  # fmt: skip
    schema = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(acted) == {field.encode_name for field in msgspec.structs.fields(Spec)}
    assert sorted([*acted, *idle]) == sorted(schema["properties"])


def test_status_additions_are_listed_field_by_field():
    parts = {"progress": Progress, "waiting": Waiting, "boot": Boot, "problem": ProblemStatus,
             "failures": Failures, "reboot": RebootStatus}  # fmt: skip
    for row in table(section(page("docs/reference.md"), "Additions to `status`")):
        field = names(row[0])[0]
        content = row[1].partition(";")[0].partition("(")[0]
        fields = msgspec.structs.fields(parts.pop(field))
        assert names(content) == [each.encode_name for each in fields], field
    assert not parts


def test_events_are_those_of_the_code():
    rows = table(section(page("docs/reference.md"), "Events"))
    noted = set(re.findall(r'(?:note|remark)\(\s*"([A-Za-z]+)"', CORE))
    noted |= set(re.findall(r'EventNote\(\s*"\w+",\s*"([A-Za-z]+)"', ENGINE))
    kinds = (turn.REGISTRATION, turn.INSPECTION, turn.PREPARATION, turn.PROVISIONING, turn.POWER)
    errors = {"".join(word.capitalize() for word in kind.split()) for kind in kinds}
    assert {names(row[0])[0] for row in rows} == noted | errors | set(turn.REASONS.values())


def test_metrics_are_those_of_the_code():
    told = [
        (names(row[0])[0], row[1], tuple(names(row[2])))
        for row in table(section(page("docs/reference.md"), "Metrics"))
    ]
    assert told == [(figure.name, figure.kind, figure.labels) for figure in FIGURES.values()]


def test_every_metric_is_written_somewhere():
    source = TOP / "server/src/billet_server"
    used = "\n".join(
        path.read_text()
        for path in source.rglob("*.py")
        if path.name != "figures.py" and "memory" not in path.parts
    )
    assert set(FIGURES) <= set(re.findall(r'"((?:metal3|billet)_[a-z0-9_]+)"', used))


def test_wait_causes_are_those_of_the_code():
    rows = table(section(page("docs/concepts.md"), "Waits").split("| cause |", 1)[1].join(
        ["| cause |", ""]))  # fmt: skip
    told = {names(row[0])[0] for row in rows}
    written = set(re.findall(r'\.wait\(\s*"([a-z-]+)"', CORE))
    steps = set(re.findall(r'^\s+step(?:, text)? = "([a-z-]+)"', CORE, re.MULTILINE))
    assert told == written | steps | {"hand-over"}


def test_the_state_table_is_that_of_the_code():
    rows = table(section(page("ARCHITECTURE.md"), "States"))
    told = {row[0]: {word.strip() for word in row[1].split(",")} for row in rows}
    real = {
        old.value or "(new)": {new.value for new in targets} or {"the object is gone"}
        for old, targets in TRANSITIONS.items()
    }
    assert told == real
    concepts = table(section(page("docs/concepts.md"), "States"))
    assert [row[0] for row in concepts] == [state.value for state in State if state.value]


def test_the_faults_table_is_that_of_the_lab():
    rows = table(section(page("docs/lab.md"), "Faults"))
    assert [names(row[0])[0] for row in rows] == [f.name for f in msgspec.structs.fields(Faults)]


# README


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    for path in PAGES:
        text = path.read_text()
        shell = "\n".join(body for kind, body in _FENCE.findall(text) if kind == "sh")
        lines = re.findall(r"^make\b(.*)$", shell, re.MULTILINE)
        lines += re.findall(r"`make\b([^`]*)`", prose(text))
        for line in lines:
            words = [word for word in line.split() if "=" not in word]
            assert set(words) <= targets, (path.name, line)


def test_make_variables_in_the_readme_exist():
    makefile = page("Makefile")
    for name in re.findall(r"^make .*?\b([A-Z]+)=", page("README.md"), re.MULTILINE):
        assert f"{name} ?=" in makefile


def test_the_readmes_manifests_are_good():
    (manifest,) = [body for kind, body in _FENCE.findall(page("README.md")) if kind == "yaml"]
    namespace, secret, host = yaml.safe_load_all(manifest)
    assert namespace["metadata"]["name"] == host["metadata"]["namespace"]
    assert set(secret["data"]) == {"username", "password"}
    assert validate_host(host, None) == []
    parsed = parse_host(host)
    assert not parsed.spec_fault
    assert parsed.spec.bmc.credentials_name == secret["metadata"]["name"]
    assert not parsed.spec.online


def test_the_readmes_patch_is_good():
    match = re.search(r"-p '(.+?)'\n", page("README.md"), re.DOTALL)
    assert match
    patch = yaml.safe_load(match[1])
    (manifest,) = [body for kind, body in _FENCE.findall(page("README.md")) if kind == "yaml"]
    host = list(yaml.safe_load_all(manifest))[2]
    host["spec"] |= patch["spec"]
    assert validate_host(host, None) == []
    image = parse_host(host).spec.wanted_image
    assert image is not None
    assert image.checksum


def test_the_quick_start_is_one_page():
    assert len(page("README.md").splitlines()) <= 140
