"""An Ironic-compatible REST view of the hosts, for the ``openstack baremetal`` client.

It keeps nothing: nodes are rendered from the informer's cache, and verbs become the edits of
``spec`` and annotations that kubectl would make. `docs/ironic.md` has both tables.
"""
