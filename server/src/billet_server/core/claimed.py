"""What a Machine's status says of the host that it has."""

from billet_server.core.claimable import HostView
from billet_server.core.machineobject import CLAIMED, PROVISIONED, Condition, Report
from billet_server.core.providerspec import ProviderSpec
from billet_server.core.states import State

_RUNS = (State.PROVISIONED, State.EXTERNALLY_PROVISIONED)


def report_host(host: HostView, provider: ProviderSpec | None) -> Report:
    """Return the report of a Machine whose host this is."""
    claimed = Condition(
        CLAIMED, "True", "Claimed", f"host {host.key}{_other_image(host, provider)}"
    )
    runs = host.state in _RUNS and not host.deleting
    phase = "Provisioned" if runs else "Provisioning"
    return Report(phase, (claimed, _provisioned(host)), host)


def _provisioned(host: HostView) -> Condition:
    state = host.state.value or "new"
    text = f"host {host.key} is {state}"
    if host.deleting:
        return Condition(PROVISIONED, "False", "HostDeleted", f"{text} and being deleted")
    if not host.image_url and host.state is not State.EXTERNALLY_PROVISIONED:
        text = f"{text}, and its spec.image was removed: set it again, or delete the Machine"
        return Condition(PROVISIONED, "False", "ImageRemoved", text)
    if host.state in _RUNS:
        return Condition(PROVISIONED, "True", camel(state), text)
    if host.resting:
        text = f"{text}; it is {host.resting} by an annotation, so nothing is done to it"
        return Condition(PROVISIONED, "False", host.resting.capitalize(), text)
    if host.trouble:
        return Condition(PROVISIONED, "False", "HostFailing", f"{text}: {host.trouble}")
    return Condition(PROVISIONED, "False", camel(state), text)


def _other_image(host: HostView, provider: ProviderSpec | None) -> str:
    if provider is None or not host.image_url or host.image_url == provider.url:
        return ""
    text = f"has image {host.image_url[:200]}, which is not this Machine's: a host is given its"
    return f"; it {text} image when it is claimed; delete the Machine and create it anew"


def camel(words: str) -> str:
    """Return words as a condition's reason."""
    return "".join(word.capitalize() for word in words.split())
