"""Every metric of the server: Metal3's names where the meaning is the same, `billet_` elsewhere.

The catalogue is data, so that engine, Prometheus and tests agree on names and labels. Metal3 puts
``namespace`` and ``host`` on much; with 10,000 hosts that is 10,000 series for each metric, so
``host`` is empty unless a setting asks for it (to PromQL an empty label is an absent one).
"""

from typing import Final, Literal, NamedTuple

PER_HOST: Final = ("namespace", "host")
METAL3_BUCKETS_S: Final = (30.0, 90.0, 180.0, 360.0, 720.0, 1440.0)
CALL_BUCKETS_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
PASS_BUCKETS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Figure(NamedTuple):
    """One metric. ``labels`` in their order; ``buckets`` (seconds) of histograms only."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Figure:
    return Figure(name, "counter", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Figure:
    return Figure(name, "gauge", text, labels)


def _duration(operation: str) -> Figure:
    name = f"metal3_operation_{operation}_duration_seconds"
    return Figure(name, "histogram", f"Length of {operation} per host", PER_HOST, METAL3_BUCKETS_S)


_CATALOGUE: Final = (
    _counter("metal3_reconcile_total", "Passes over a host", *PER_HOST),
    _counter("metal3_reconcile_error_total", "Passes that the API or a defect broke", *PER_HOST),
    _counter("metal3_host_error_total", "Problems that were put on a host", "error_type"),
    _counter("metal3_operation_power_change_total", "Power switched", *PER_HOST, "on_off"),
    _duration("register"),
    _duration("inspect"),
    _duration("provision"),
    _duration("deprovision"),
    _counter(
        "metal3_provisioning_state_change_total", "Changes of state", "prev_state", "new_state"
    ),
    _counter("metal3_delayed__provisioning_total", "No place to inspect or provision", *PER_HOST),
    _counter("metal3_delayed__deprovisioning_total", "No place to clean", *PER_HOST),
    _counter("metal3_credentials_missing_total", "No Secret for the BMC", *PER_HOST),
    _counter("metal3_credentials_invalid_total", "A Secret without what it needs", *PER_HOST),
    _counter("metal3_credentials_updated_total", "Another Secret version works", *PER_HOST),
    _counter("metal3_credentials_no_management_access_total", "The BMC refused", *PER_HOST),
    _counter("metal3_host_config_data_error_total", "No Secret for the config drive", *PER_HOST),
    _counter("metal3_host_registration_required_total", "Registrations begun", *PER_HOST),
    _counter("metal3_host_unmanaged_total", "Hosts found without a BMC address", *PER_HOST),
    _counter(
        "metal3_delete_without_deprovisioning_total", "Deleted although not cleaned", *PER_HOST
    ),
    _counter("metal3_delete_without_powering_off_total", "Deleted, maybe still running", *PER_HOST),
    _counter("metal3_delete_delayed_for_detached_total", "Not deleted while detached", *PER_HOST),
    _gauge("billet_hosts", "Hosts in a state", "state"),
    _gauge("billet_hosts_waiting", "Hosts with a wait", "cause"),
    _gauge("billet_hosts_with_problem", "Hosts with a problem", "problem"),
    _gauge("billet_places", "Hosts that may be at an operation at once; 0: any", "operation"),
    _gauge("billet_places_in_use", "Hosts at an operation", "operation"),
    _gauge("billet_places_wanted", "Hosts in the queue for an operation", "operation"),
    Figure(
        "billet_reconcile_duration_seconds",
        "histogram",
        "Length of a pass, with its status write",
        (),
        PASS_BUCKETS_S,
    ),
    _gauge("billet_queue_ready", "Hosts that wait for a worker"),
    _gauge("billet_queue_busy", "Hosts with a worker or an effect under way"),
    _gauge("billet_queue_delayed", "Hosts with a moment set for their next pass"),
    Figure(
        "billet_bmc_call_duration_seconds",
        "histogram",
        "Length of a call to a BMC, with its turn in the BMC's lane and all confirmation",
        ("driver", "call"),
        CALL_BUCKETS_S,
    ),
    _counter("billet_bmc_call_errors_total", "Calls to a BMC that failed", "driver", "problem"),
    _counter("billet_events_total", "Events written, also those counted up", "type"),
    _counter("billet_events_dropped_total", "Events that were not written", "cause"),
    _gauge("billet_events_queued", "Events that wait to be written"),
)

FIGURES: Final = {figure.name: figure for figure in _CATALOGUE}
