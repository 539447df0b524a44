"""From a kubeconfig, or a pod's service account, to an HTTP client that may talk to the API.

lightkube reads the file and knows the ways to authenticate. Its typed client is left out:
it makes a dataclass tree of every object (10,000 hosts), follows a watch past failures on its
own, and splits watch lines at every Unicode line end that a string may hold.
"""

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import NameValue, User, UserExec
from lightkube.core.exceptions import ConfigError as LightkubeConfigError

from billet_server import errors
from billet_server.kube.merging import merge_configs

CONNECT_S: Final = 10.0
ANSWER_S: Final = 30.0
_EXEC_API: Final = "client.authentication.k8s.io"
_CONNECTIONS: Final = 62
"""For calls; watches have theirs beside these."""
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 35_000),
)
"""A watch may be silent for minutes; the kernel finds a dead peer in about 35 s."""


def read_config(
    kubeconfig: Path | Sequence[Path] | None, context: str | None = None
) -> SingleConfig:
    """Read a kubeconfig file, several as one, or (None) the service account of our pod.

    Raises ConfigError.
    """
    files = [kubeconfig] if isinstance(kubeconfig, Path) else list(kubeconfig or ())
    names = ", ".join(map(str, files))
    source = f"kubeconfig {names}" if files else f"service account {SERVICE_ACCOUNT}"
    try:
        if not files:
            found = KubeConfig.from_service_account()
        elif len(files) == 1:
            found = KubeConfig.from_file(files[0])
        else:
            found = KubeConfig.from_dict(merge_configs(files))
        config = found.get(context)
    except KeyError as exc:
        raise errors.ConfigError([f"{source}: {exc} is missing"]) from exc
    except (LightkubeConfigError, OSError, ValueError, TypeError) as exc:
        raise errors.ConfigError([f"{source}: {exc}"]) from exc
    except (yaml.YAMLError, msgspec.ValidationError, AttributeError) as exc:
        raise errors.ConfigError([f"{source} is not a kubeconfig: {exc}"]) from exc
    assert config is not None  # get() raises unless it is given a default
    return config._replace(user=_usable(config.user or User()))


def build_client(config: SingleConfig, *, watches: int = 2) -> httpx2.AsyncClient:
    """Return a client for the cluster of ``config`` with room for so many watches.

    Raises ConfigError for bad key files.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs each request at INFO
    try:
        settings = ConnectionParams().httpx_params(config)
    except (LightkubeConfigError, OSError, ValueError) as exc:
        fault = f"context {config.context_name}: certificate or key cannot be used: {exc}"
        raise errors.ConfigError([fault]) from exc
    limits = httpx2.Limits(max_connections=_CONNECTIONS + watches, max_keepalive_connections=32)
    transport = httpx2.AsyncHTTPTransport(
        verify=settings["verify"], limits=limits, socket_options=_KEEPALIVE
    )
    return httpx2.AsyncClient(
        base_url=config.cluster.server,
        auth=settings["auth"],
        transport=transport,
        timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
        headers={"User-Agent": "billet", "Accept": "application/json"},
    )


def _usable(user: User) -> User:
    """Return the user with its credential program's ``v1`` protocol made known to lightkube.

    The protocol is that of ``v1beta1`` plus a required KUBERNETES_EXEC_INFO variable.
    """
    program = user.exec
    if program is None or program.apiVersion != f"{_EXEC_API}/v1":
        return user
    info = {
        "apiVersion": program.apiVersion,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    variable = NameValue("KUBERNETES_EXEC_INFO", msgspec.json.encode(info).decode())
    return msgspec.structs.replace(
        user,
        exec=UserExec(
            apiVersion=f"{_EXEC_API}/v1beta1",
            command=os.fspath(program.command),
            env=[*(program.env or ()), variable],
            args=program.args,
        ),
    )
