"""Files of the demo image's root: cloud-init for a config drive, network, quick start."""

import shutil
from pathlib import Path

from billet_lab.os_image_disk import Layout, Run, render_menu

PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "cloud-init",
    "openssh-server",
    "sudo",
    "iproute2",
    "iputils-ping",
    "e2fsprogs",
    "fdisk",
    "efibootmgr",
    "ca-certificates",
    "less",
    "nano",
    "procps",
)

INITRAMFS_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ahci",
    "ata_piix",
    "nvme",
    "ext4",
    "crc32c_generic",
)

CLOUD_CONFIG = """\
# Where user data comes from: a config drive (label config-2), a NoCloud drive, or nowhere.
# No network service is asked, so nothing is waited for.
datasource_list: [ConfigDrive, NoCloud, None]
disable_root: true
ssh_deletekeys: true
ssh_genkeytypes: [ed25519]
preserve_hostname: false
manage_etc_hosts: true
users: [default]
system_info:
  distro: debian
  default_user:
    name: debian
    lock_passwd: true
    gecos: Debian
    groups: [adm, sudo]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
  network:
    renderers: [networkd]
  paths:
    cloud_dir: /var/lib/cloud/
    templates_dir: /etc/cloud/templates/
  ssh_svcname: ssh
# Debian runs a stage of its own for the last three of these; they only write files, and a stage
# costs seconds of start-up, so they run in the one before and cloud-config.service is masked.
cloud_init_modules: [bootcmd, write_files, set_hostname, update_hostname, update_etc_hosts,
  ca_certs, users_groups, ssh, set_passwords, timezone, runcmd]
cloud_config_modules: []
cloud_final_modules: [package_update_upgrade_install, scripts_vendor, scripts_per_once,
  scripts_per_boot, scripts_per_instance, scripts_user, phone_home, final_message,
  power_state_change]
"""

NETWORK = """\
# Before cloud-init has said anything: DHCP on every physical Ethernet interface.
[Match]
Type=ether
Kind=!*

[Network]
DHCP=ipv4
IPv6AcceptRA=yes

[DHCPv4]
ClientIdentifier=mac
"""

WAIT_ONLINE = """\
[Service]
ExecStart=
ExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any --timeout=20
"""

SYSCTL = """\
# Asking whether another machine has our IPv6 address takes two seconds of each boot; the address is
# made from the MAC, and the lab gives each machine its own.
net.ipv6.conf.default.dad_transmits = 0
"""

BARRED_MODULES = (
    "kvm",
    "kvm_intel",
    "kvm_amd",
    "aesni_intel",
    "ghash_clmulni_intel",
    "sha512_ssse3",
    "sha256_ssse3",
    "sha1_ssse3",
    "powernow_k8",
    "acpi_cpufreq",
)
"""Drivers that udev loads for any processor; their self-tests take seconds where it is emulated."""

MASKED = (
    "cloud-config.service",
    "systemd-sysusers.service",
    "systemd-firstboot.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "cloud-init-hotplugd.socket",
    "systemd-pstore.service",
    "systemd-rfkill.service",
    "systemd-rfkill.socket",
    "systemd-binfmt.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-update-done.service",
    "modprobe@drm.service",
    "modprobe@fuse.service",
    "modprobe@configfs.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
)


def render_fstab(layout: Layout) -> str:
    """``/etc/fstab``: the root by its partition's identity, unchecked: it is new on each write."""
    return f"PARTUUID={layout.root_part} / ext4 rw,relatime,errors=remount-ro 0 0\n"


def files(layout: Layout) -> dict[str, str]:
    """Path below the root -> text of every file that the image adds to Debian's own."""
    return {
        "etc/fstab": render_fstab(layout),
        "etc/hostname": "debian\n",
        "etc/cloud/cloud.cfg": CLOUD_CONFIG,
        "etc/cloud/ds-identify.cfg": "policy: enabled\n",
        "etc/systemd/network/90-dhcp.network": NETWORK,
        "etc/systemd/system/systemd-networkd-wait-online.service.d/any.conf": WAIT_ONLINE,
        "etc/sysctl.d/50-billet.conf": SYSCTL,
        "etc/initramfs-tools/conf.d/billet": "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\n",
        "etc/initramfs-tools/modules": "".join(f"{name}\n" for name in INITRAMFS_MODULES),
        "etc/modprobe.d/billet.conf": "".join(f"blacklist {name}\n" for name in BARRED_MODULES),
        "etc/ssh/sshd_config.d/billet.conf": "PasswordAuthentication no\n",
    }


def complete_root(root: Path, layout: Layout, run: Run) -> str:
    """Add our files to the installed ``root``, make its initramfs; returns the kernel's release."""
    for name, text in files(layout).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # debconf's choice of data sources would win over ours
    (root / "etc/cloud/cloud.cfg.d/90_dpkg.cfg").unlink(missing_ok=True)
    for key in root.glob("etc/ssh/ssh_host_*"):
        key.unlink()
    release = next((root / "usr/lib/modules").iterdir()).name
    chroot = ["chroot", str(root), "env", "PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"]
    run([*chroot, "update-initramfs", "-c", "-k", release])
    run([*chroot, "systemctl", "enable", "systemd-networkd.service"])
    run([*chroot, "systemctl", "mask", *MASKED])
    run([*chroot, "passwd", "--lock", "root"])
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    _tidy(root)
    menu = root / "boot/grub/grub.cfg"
    menu.parent.mkdir(parents=True, exist_ok=True)
    menu.write_text(render_menu(layout, release))
    return release


def _tidy(root: Path) -> None:
    """Take out what only fills a demo image: caches, lists, drivers for sound and radio."""
    for pattern in (
        "var/cache/apt/*",
        "var/lib/apt/lists/*",
        "var/cache/debconf/*-old",
        "var/lib/dpkg/*-old",
        "var/log/*.log",
        "usr/share/i18n",
        "usr/lib/x86_64-linux-gnu/gconv",
        "tmp/*",
    ):
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
