"""The file that makes kubectl talk to this API."""

import base64

import yaml

from billet_server.core.terms import Secret

NAME = "billet"


def render_kubeconfig(url: str, ca_pem: bytes, token: Secret, namespace: str = "default") -> str:
    """Return a kubeconfig (v1 Config, YAML) with one cluster, user and context, all "billet"."""
    cluster = {
        "server": url,
        "certificate-authority-data": base64.b64encode(ca_pem).decode("ascii"),
    }
    context = {"cluster": NAME, "user": NAME, "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token.reveal()}}],
        "contexts": [{"name": NAME, "context": context}],
        "current-context": NAME,
    }
    return yaml.safe_dump(config, sort_keys=False)
