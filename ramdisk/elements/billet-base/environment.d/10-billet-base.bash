# What elements from elsewhere ask about the system that they are added to.
export DISTRO_NAME=${DISTRO_NAME:-debian}
DIB_RELEASE=${DIB_RELEASE:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
export DIB_RELEASE
