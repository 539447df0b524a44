"""What the boot loader of a written disk would start: its settings, read as data.

`choose_start` is the only door. Nothing is executed: of GRUB's language only what the tools of the
distributions write is understood, and what is not understood is a reason to start the machine
through its firmware instead.
"""

from billet_agent.plan.loaders.choice import NoStart, Start, Tree, choose_start

__all__ = ["NoStart", "Start", "Tree", "choose_start"]
