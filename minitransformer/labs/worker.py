"""Runs the cells of each submission in a process of its own. `sandbox` starts this file by its path; nobody imports it.

It imports what the labs need, once, and forks for each submission, which saves that the seconds. The fork reads a job, shuts itself in
as far as the platform allows, runs cell after cell in one namespace, and writes a line of JSON before and after each. It ends at the
first cell that ran out of time or memory, as what such a cell leaves behind is not to be trusted with the next; `sandbox` then has
the rest run anew without that cell.
"""

import ctypes
import importlib
import json
import linecache
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import types

NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x08000000  # CLONE_NEWUSER, NEWNET, NEWPID, NEWIPC
PDEATHSIG = 1
LONGEST = 400  # characters of a message


class OutOfTime(BaseException):
    """Not an Exception, as `except Exception` is common in what students write."""


def shut_in():
    """Whether this process now has no network and takes its children with it when it ends (Linux, where namespaces may be made)."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NAMESPACES) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        os._exit(70)  # half shut in, files cannot be made: `sandbox` tries again without
    for _ in range(2):  # the first child is the init of the namespace: when it ends, everything in it does
        if child := os.fork():
            os.waitpid(child, 0)
            os._exit(0)
        libc.prctl(PDEATHSIG, signal.SIGKILL)
    return True


def taken():
    """Bytes of address space that the kit's libraries take already."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def limit(job):
    for name, amount in (("AS", taken() + job["memory"]), ("FSIZE", job["file"]), ("CORE", 0), ("CPU", int(job["seconds"]) + 5)):
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (amount, amount))
        except (ValueError, OSError):  # macOS has no limit on memory that works
            pass


def compiled(code, name):
    """The cell as a code object; where it is no Python, once more without the lines that only Jupyter understands."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        return compile(code, name, "exec")
    except SyntaxError:
        return compile(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", code), name, "exec")


def out_of_time(signum, frame):
    raise OutOfTime


def attempt(code, name, space, seconds, patience):
    """ok, error, time or memory, and what was said."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, patience * seconds)
    try:
        exec(compiled(code, name), space)
        return "ok", ""
    except OutOfTime:
        return "time", f"stopped after {seconds:g} seconds"
    except MemoryError:
        return "memory", "it asked for more memory than is allowed"
    except AssertionError as error:
        return "error", str(error) or "a check failed"
    except BaseException as error:
        return "error", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def work(source, target):
    """One submission: a job from the file descriptor `source`, its results to `target`."""
    with open(source, "rb") as file:
        job = json.loads(file.read())
    channel = open(target, "w", encoding="utf-8")
    alone = job["alone"] and shut_in()

    def say(**what):
        channel.write(json.dumps({"word": job["word"], **what}) + "\n")
        channel.flush()

    say(alone=alone)
    limit(job)
    os.chdir(job["home"])
    os.environ.update(job["environment"])
    tempfile.tempdir = None
    signal.signal(signal.SIGPROF, out_of_time)
    signal.signal(signal.SIGALRM, out_of_time)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["display"] = lambda *things, **options: None
    for cell in job["cells"]:
        say(begin=cell["id"])
        how, message = attempt(cell["code"], f"<{cell['id']}>", main.__dict__, job["cell_seconds"], job["patience"])
        message = message.encode("utf-8", "replace").decode()[:LONGEST]
        say(end=cell["id"], how=how, message=message)
        if how in ("time", "memory"):
            break
    else:
        say(done=True)


def serve(orders):
    """Forks for each order that comes through a socket, with two file descriptors; answers with the process's number."""
    while True:
        data, fds, _, _ = socket.recv_fds(orders, 2**16, 2)
        if not data:
            return
        for name in json.loads(data):
            try:
                importlib.import_module(name)
            except Exception:  # the cell that wants it will say so
                pass
        if child := os.fork():
            for fd in fds:
                os.close(fd)
            orders.sendall(b"%d\n" % child)
            continue
        orders.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            work(*fds)
        finally:
            os._exit(0)  # threads and exit handlers that the student's code left are not waited for


def main():
    orders = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks need no burial
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:0] = sys.argv[1:]
    serve(orders)


main()
