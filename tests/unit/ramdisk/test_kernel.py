"""Which modules the ramdisk takes: patterns, what is taken out again, what others need."""

import pytest
from billet_ramdisk.kernel import parse_dependencies, parse_patterns, select_modules
from billet_ramdisk.steps import BuildError

DEPENDENCIES = parse_dependencies(
    "kernel/drivers/net/a.ko: kernel/lib/x.ko\n"
    "kernel/drivers/net/b.ko: kernel/drivers/net/odd/c.ko\n"
    "kernel/drivers/net/odd/c.ko:\n"
    "kernel/drivers/net/odd/d.ko:\n"
    "kernel/lib/x.ko: kernel/lib/y.ko\n"
    "kernel/lib/y.ko:\n"
    "kernel/sound/z.ko:\n"
)


def names(text):
    chosen = select_modules(DEPENDENCIES, *parse_patterns(text))
    return sorted(path.rpartition("/")[2] for path in chosen)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("drivers/net/a.ko", ["a.ko", "x.ko", "y.ko"]),
        ("drivers/net/* # all\n\n!drivers/net/odd/*", ["a.ko", "b.ko", "c.ko", "x.ko", "y.ko"]),
        ("drivers/net/*\n!drivers/net/[ab].ko", ["c.ko", "d.ko"]),
        ("# nothing\n", []),
    ],
)
def test_selection(patterns, expected):
    assert names(patterns) == expected


def test_every_idle_pattern_is_named():
    with pytest.raises(BuildError, match=r"drivers/gone\.ko lib/q\*"):
        names("drivers/gone.ko\nlib/x.ko\nlib/q*")
