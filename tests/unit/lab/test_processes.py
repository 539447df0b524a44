import os
import signal
import subprocess
import sys

from billet_lab import processes


def sleeper(script="import time; time.sleep(60)"):
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)


def test_processes_are_ended_and_what_is_gone_is_no_one():
    child = sleeper()
    known = processes.identity(child.pid)
    processes.end_now([known])
    assert processes.identity(child.pid) is None
    assert child.wait() == -signal.SIGTERM


def test_deaf_processes_are_killed():
    child = sleeper(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(60)"
    )
    assert child.stdout.readline() == b"deaf\n"
    processes.end_now([processes.identity(child.pid)], grace_s=0.1)
    assert child.wait() == -signal.SIGKILL


def test_a_recycled_pid_is_left_alone():
    child = sleeper()
    pid, started = processes.identity(child.pid)
    processes.end_now([(pid, started - 1)])
    assert child.poll() is None
    child.kill()
    child.wait()


def test_children_die_with_their_parent():
    parent = sleeper(
        "import subprocess, time\n"
        "from billet_lab.processes import die_with_parent\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=die_with_parent())\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    grandchild = processes.identity(int(parent.stdout.readline()))
    assert grandchild is not None
    parent.kill()
    parent.wait()
    assert processes._wait_gone([grandchild], 10) == []


def test_our_own_identity_is_stable():
    assert processes.identity(os.getpid()) == processes.identity(os.getpid())
