"""Adapter over the Kubernetes client library: `ports.KubeApi` on a real or the embedded API."""

from billet_server.kube.client import LightKube, open_kube

__all__ = ["LightKube", "open_kube"]
