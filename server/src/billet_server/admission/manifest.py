"""The ValidatingWebhookConfiguration that makes a cluster ask this webhook."""

import base64
from typing import Any

from billet_server.admission.server import PATH

NAME = "billet.metal3.io"


def render_configuration(
    *, ca_pem: bytes, service: tuple[str, str] | None = None, url: str = "", port: int = 443
) -> dict[str, Any]:
    """Return the object; the webhook is at a Service (namespace, name) or at ``url``.

    An empty ``ca_pem`` leaves the CA out, for whoever puts it in later.
    """
    if service is not None:
        namespace, name = service
        where: dict[str, Any] = {
            "service": {"namespace": namespace, "name": name, "path": PATH, "port": port}
        }
    else:
        where = {"url": url.rstrip("/") + PATH}
    if ca_pem:
        where["caBundle"] = base64.b64encode(ca_pem).decode()
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": f"baremetalhosts.{NAME}",
                "admissionReviewVersions": ["v1"],
                "clientConfig": where,
                "failurePolicy": "Fail",
                "matchPolicy": "Equivalent",
                "rules": [
                    {
                        "apiGroups": ["metal3.io"],
                        "apiVersions": ["v1alpha1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["baremetalhosts"],
                        "scope": "Namespaced",
                    }
                ],
                "sideEffects": "None",
                "timeoutSeconds": 10,
            }
        ],
    }
