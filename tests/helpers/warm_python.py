"""`python -m espnet2_m2m...` without ESPnet's import of some seconds for each command.

A server imports ESPnet once; the client, a file that stands in for `python`, has it run `-m MODULE ...`
in a forked process with the client's folder, environment and standard files. Any other command line goes to the
true python. When the client ends, its process is killed: a job that is killed takes it along.
"""

import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

WARM = ("espnet2_m2m.run", "espnet2_m2m.bin.enh_train", "espnet2_m2m.bin.enh_inference")
# A shebang cannot hold a path with spaces: sh takes the second line, python sees a string in it.
CLIENT = """#!/bin/sh
'''exec' "{python}" -S "$0" "$@"
' '''
import json, os, socket, sys
if sys.argv[1:2] != ["-m"] or sys.argv[2] not in {warm}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [b"x"], [0, 1, 2])
    with connection.makefile("rw") as stream:
        json.dump([sys.argv[2:], os.getcwd(), dict(os.environ)], stream)
        stream.write("\\n")
        stream.flush()
        status = stream.readline()
sys.exit(int(status or 1))
"""


@contextmanager
def warm_python(folder):
    """Start the server; yields the path of the client."""
    address = str(Path(folder, "socket"))
    client = Path(folder, "python")
    client.write_text(CLIENT.format(python=sys.executable, warm=WARM, address=address))
    client.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
    try:
        assert b"ready\n" in iter(server.stdout.readline, b""), "the server did not start"
        yield str(client)
    finally:
        server.terminate()
        server.wait()


def serve(address):
    from espnet2.bin import enh_inference, pack  # noqa: F401

    import espnet2_m2m.tasks.enh_m2m  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                with connection:
                    answer(connection)
                os._exit(0)
            connection.close()


def answer(connection):
    """In a forked process: fork again, so that the command's own children are waited for as usual."""
    import json

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, fds, _, _ = socket.recv_fds(connection, 1, 3)
    argv, folder, environment = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        run(argv, folder, environment)

    def follow():
        with suppress(ProcessLookupError):  # it has ended
            if connection.recv(1) == b"":
                os.killpg(child, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def run(argv, folder, environment):
    status = 0
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = argv
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
