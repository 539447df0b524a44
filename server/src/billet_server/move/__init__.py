"""Moving hosts between two Kubernetes APIs, or to and from a file, without touching machines.

The steps for one host, each of which may be the last before a crash; a run that follows goes on
from there, since every step is on record in one of the two objects:

1. the source object is paused and marked (`billet.dev/move`, with the pause it had before);
2. the target object is made, paused and marked, with Secrets, HardwareData and status, and all
   of it is read back and compared;
3. the source's mark says "handed-over": from here on there is no way back, only on;
4. the source's Secrets, HardwareData and, without its finalizer, the object itself are deleted;
5. the target's marks go, and with the last one its pause.

The target is let go only when the source object does not exist any more, and the source was
paused before the target existed: at no moment does anybody act on both.
"""
