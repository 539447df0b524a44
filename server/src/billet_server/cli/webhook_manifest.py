"""`billet webhook-manifest`: what makes a cluster ask Billet's webhook."""

from pathlib import Path

import click
import yaml

from billet_server.errors import ConfigError


@click.command(short_help="print what makes a cluster ask the webhook")
@click.option(
    "--service",
    default="billet-system/billet-webhook",
    show_default=True,
    metavar="NAMESPACE/NAME",
    help="The Service in front of the webhook.",
)
@click.option("--port", default=443, show_default=True, help="The Service's port.")
@click.option("--url", metavar="URL", help="Ask https://HOST:PORT outside the cluster instead.")
@click.option(
    "--state-dir",
    default="/var/lib/billet",
    show_default=True,
    metavar="DIR",
    help="Where the server's own CA is.",
)
@click.option("--ca", "ca_file", metavar="FILE", help="CA of --webhook-cert, PEM. [the own CA]")
@click.option("--no-ca", is_flag=True, help="Leave the CA out: cert-manager puts it in.")
def webhook_manifest(
    *, service: str, port: int, url: str | None, state_dir: str, ca_file: str | None, no_ca: bool
) -> None:
    """Print a ValidatingWebhookConfiguration for `billet up --webhook-port`.

    \b
    Examples:
      billet webhook-manifest | kubectl apply -f -
      billet webhook-manifest --url https://172.22.0.1:9443 | kubectl apply -f -
      billet webhook-manifest --ca ca.crt --service metal/billet
    """
    from billet_server.admission.manifest import render_configuration

    namespace, slash, name = service.partition("/")
    faults = []
    if not (slash and namespace and name) or "/" in name:
        faults.append(f"--service {service!r} is not NAMESPACE/NAME")
    if url is not None and not url.startswith("https://"):
        faults.append(f"--url {url!r} does not begin with https://: API servers ask by TLS only")
    if not 0 < port < 65536:
        faults.append(f"--port {port} is not a port")
    pem = b""
    if not no_ca:
        path = Path(ca_file) if ca_file else Path(state_dir) / "pki" / "ca.crt"
        try:
            pem = path.read_bytes()
        except OSError as error:
            advice = "start billet up once, or name the CA with --ca, or leave it out with --no-ca"
            faults.append(f"no CA certificate in {path} ({error.strerror}): {advice}")
        if pem and b"-----BEGIN CERTIFICATE-----" not in pem:
            faults.append(f"{path} holds no certificate in PEM")
    if faults:
        raise ConfigError(faults)
    rendered = render_configuration(
        ca_pem=pem, service=None if url else (namespace, name), url=url or "", port=port
    )
    click.echo(yaml.safe_dump(rendered, sort_keys=False), nl=False)
