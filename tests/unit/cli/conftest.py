import pytest

from cli_world import cli_world


@pytest.fixture
async def world(tmp_path, capsys):
    async with cli_world(tmp_path / "api", capsys) as made:
        yield made
