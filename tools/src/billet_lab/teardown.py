"""A lab's state file, and taking a lab down by it: after use, after failure, after a crash."""

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from billet_lab import net, processes
from billet_lab.specs import LabState

STATE_NAME = "state.json"


class StateError(Exception):
    """There is no lab in a directory, or its state file is torn."""


def state_path(directory: Path) -> Path:
    """Where the lab of a directory keeps its state."""
    return directory / STATE_NAME


def write_state(state: LabState) -> None:
    """Replace the state file at once: a reader sees the old one or the new one."""
    path = state_path(Path(state.directory))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1))
    new.replace(path)


def read_state(directory: Path) -> LabState:
    """The state of the directory's lab; `StateError` when there is none."""
    path = state_path(directory)
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabState)
    except FileNotFoundError:
        raise StateError(
            f"there is no lab in {directory} ({path} is missing); "
            "start one with `billet lab up`, or name its directory with --dir"
        ) from None
    except (msgspec.DecodeError, OSError) as error:
        raise StateError(f"{path} cannot be read: {error}") from error


async def take_down(state: LabState, *, grace_s: float = 10.0) -> list[str]:
    """End the lab's processes, remove its network and files; what could not be, in words.

    Consoles and logs stay: they are what one wants after a failure. May be repeated.
    """
    troubles: list[str] = []
    own = os.getpid()
    known = [process for process in state.processes if process[0] != own]
    machine_pids = {machine.pid for machine in state.machines}
    try:
        # What runs in the lab first: it may say good-bye to the machines.
        await processes.end((p for p in known if p[0] not in machine_pids), grace_s=grace_s)
        await processes.end((p for p in known if p[0] in machine_pids), grace_s=grace_s)
        await processes.end(await _strays(state.namespace, own), grace_s=2.0)
        await net.remove(state.namespace)
    except net.NetError as error:
        troubles.append(str(error))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(state.run_dir)
    for name in state.files:
        try:
            Path(name).unlink(missing_ok=True)
        except NotADirectoryError:
            continue  # never made
        except OSError as error:
            troubles.append(str(error))
    if not troubles:
        state_path(Path(state.directory)).unlink(missing_ok=True)
    return troubles


async def _strays(namespace: str, own: int) -> list[tuple[int, int]]:
    """Whoever else is in the namespace: it is the lab's own, so what runs there is the lab's."""
    found = [processes.identity(pid) for pid in await net.pids(namespace) if pid != own]
    return [process for process in found if process is not None]
