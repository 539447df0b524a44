"""What the demo tells: a timeline of states and steps, and its machine-readable summary."""

import time
from typing import Any

import msgspec
from rich.console import Console


class Timeline:
    """Prints each change of a host once, and keeps how long each state and step took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._last: tuple[str, str, str] = ("", "", "")
        self._state, self._state_at = "", self._began
        self._step, self._step_at = "", self._began
        self.seconds: dict[str, float] = {}
        self.steps: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Print one line with the time."""
        self._console.print(f"[dim]{self.elapsed_s:7.1f}s[/dim]  {text}", highlight=False)

    def spend(self, name: str, since: float) -> None:
        """Book the time since ``since`` (monotonic) under a name."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - since, 1)

    def see(self, host: dict[str, Any]) -> bool:
        """Take in an object; True when its provisioning state is another than before."""
        status = host.get("status") or {}
        state: str = (status.get("provisioning") or {}).get("state", "")
        progress = status.get("progress") or {}
        step, error = progress.get("step", ""), status.get("errorMessage", "")
        now = time.monotonic()
        if step != self._step:
            self._book(self.steps, self._step, now - self._step_at)
            self._step, self._step_at = step, now
        changed = state != self._state
        if changed:
            self._book(self.seconds, self._state, now - self._state_at)
            self._state, self._state_at = state, now
        line = (state, step, error)
        if line != self._last:
            self._last = line
            self._tell(state, progress, error)
        return changed

    def _tell(self, state: str, progress: dict[str, Any], error: str) -> None:
        text = f"[bold]{state or '(new)'}[/bold]"
        if progress.get("step"):
            text += f" · {progress['step']}: {progress.get('message', '')}"
        if error:
            text += f" [red]{error}[/red]"
        self.say(text)

    @staticmethod
    def _book(ledger: dict[str, float], name: str, seconds: float) -> None:
        if name:
            ledger[name] = round(ledger.get(name, 0.0) + seconds, 1)


class Result(msgspec.Struct):
    """``build/demo/result.json``. Times are seconds, sizes bytes."""

    state: str = ""
    userdata_token_seen: bool = False
    firmware: str = ""
    bmc: str = ""
    accel: str = ""
    seconds: dict[str, float] = {}
    steps: dict[str, float] = {}
    image_bytes: int = 0
    ramdisk_bytes: int = 0
    agent_first_call_s: list[float] = []
    server_rss_mib: dict[str, float] = {}
    versions: dict[str, str] = {}
    error: str = ""
