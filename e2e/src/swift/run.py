"""Runs one program of Swift (or memcached) from a folder of its own.

    run.py FOLDER NAME PROGRAM [ARGUMENT...]

Swift reads /etc/swift/swift.conf wherever its other configuration lies; this names FOLDER/etc/swift.conf instead.
What Swift would send to syslog goes to FOLDER/log/NAME.log. When standard input closes, the program ends: so nothing
outlives the process that started it, however that one died.
"""
import ctypes
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading

folder, name, program = sys.argv[1:4]
os.environ["PATH"] = f"{folder}/bin:{os.environ.get('PATH', '')}"  # what takes rsync's place
lifeline = os.dup(0)  # Swift replaces its standard input.
wait = os.read  # before eventlet replaces it


def on_close(action):
    def watch():
        while wait(lifeline, 4096):
            pass
        action()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class FileLog(logging.StreamHandler):
    """Takes the place of Swift's syslog handler."""

    def __init__(self, *_args, **_kwargs):
        super().__init__(open(f"{folder}/log/{name}.log", "a", encoding="utf-8", errors="backslashreplace"))


if program == "memcached":
    child = subprocess.Popen(
        sys.argv[3:],
        stdin=subprocess.DEVNULL,
        # 1 = PR_SET_PDEATHSIG: this process may be killed, too.
        preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),
    )

    def end():
        child.kill()
        # Whoever should have removed the folder is gone.
        if os.path.exists(f"{folder}/.temporary"):
            shutil.rmtree(folder, ignore_errors=True)

    on_close(end)
    sys.exit(child.wait())

on_close(lambda: None)

from swift.common import utils  # noqa: E402

utils.SWIFT_CONF_FILE = f"{folder}/etc/swift.conf"

from swift.common import constraints, storage_policy  # noqa: E402
from swift.common.utils import logs  # noqa: E402

storage_policy.reload_storage_policies()
constraints.reload_constraints()
logs.ThreadSafeSysLogHandler = FileLog
# Everything runs as whoever started it; there need not be a user named swift.
utils.drop_privileges = lambda _user: None

sys.argv = sys.argv[3:]
runpy.run_path(os.path.join(os.path.dirname(sys.executable), program), run_name="__main__")
