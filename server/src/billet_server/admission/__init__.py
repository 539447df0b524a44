"""The validating webhook of a cluster: the checks that the embedded API makes itself.

``review`` turns one AdmissionReview into its answer, ``server`` listens for them, ``manifest``
renders the object that makes a cluster ask.
"""

from billet_server.admission.certificate import CertificateFiles
from billet_server.admission.server import WebhookServer

__all__ = ["CertificateFiles", "WebhookServer"]
