"""Builds of Debian roots from the build machine's own apt configuration, and of the ramdisk.

Standard library only, so that it runs before (and without) the virtual environment, except
for diskimage-builder, hatchling and pip, which the ramdisk build takes from it.
"""
