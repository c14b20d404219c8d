"""Commands of this environment as forks of a server that has imported their libraries once, which takes longer than most runs.

A fork ends as the command itself would: its own arguments, folder, environment, standard streams, exit status or signal; what it
runs is the installed script, module or text, to the end of the interpreter. Two things are the server's: what libraries read of the
environment as they are imported, and the seed of hashes. A test about either starts a process with `subprocess`.
"""

import contextlib
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TRAINING = ("progrpo.jobs.train", "progrpo.jobs.generate", "progrpo.rewards.pickscore", "progrpo.grpo.sharding")
SNAKEMAKE = ("snakemake.cli", "snakemake.api", "snakemake.report", "snakemake.profiles", "snakemake.storage")
PLUGINS = ("snakemake_executor_plugin_slurm", "snakemake_logger_plugin_progrpo", "progrpo.workflow.plan")
WORKFLOW = (*SNAKEMAKE, *PLUGINS, "smart_open", "jinja2")
NUMBER = struct.Struct("i")


class Process:
    """What `subprocess.Popen` with text=True offers of a process, for a command that begins with `python` or a script beside it."""

    def __init__(self, command, *, cwd=None, env=None, stdout=None, stderr=None):
        """Fork it from the server of its libraries."""
        self.args = [str(word) for word in command]
        self.returncode: int | None = None
        environment = dict(os.environ if env is None else env)
        if not (program := program_of(self.args, environment)):
            raise ValueError(f"{self.args[0]}: not run by {sys.executable}")
        request = {"arguments": program, "cwd": str(cwd or os.getcwd()), "environment": environment}
        self._socket, theirs = socket.socketpair()
        with contextlib.ExitStack() as opened:
            opened.enter_context(theirs)
            self.stdout, output = _stream(stdout, 1, opened)
            self.stderr, errors = (None, output) if stderr == subprocess.STDOUT else _stream(stderr, 2, opened)
            _server(WORKFLOW if Path(self.args[0]).name == "snakemake" else TRAINING).fork(theirs, output, errors)
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        self.pid = self._receive()

    def _receive(self) -> int:
        data = self._socket.recv(NUMBER.size)
        if len(data) < NUMBER.size:
            raise RuntimeError(f"the server of forks has ended: {self.args}")
        return NUMBER.unpack(data)[0]

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, or minus the signal that ended it."""
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = self._receive()
            self._socket.close()
        return self.returncode

    def poll(self) -> int | None:
        """The same without waiting; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """(standard output, standard error), as far as they are pipes, when it has ended; after `timeout` it is killed."""
        with ThreadPoolExecutor(2) as pool:
            read = [stream and pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        output, errors = (each and each.result() for each in read)
        return output, errors


def run(command, *, timeout: float | None = None, **options) -> subprocess.CompletedProcess:
    """`subprocess.run` with text=True, forked; options are those of `Process`."""
    process = Process(command, **options)
    output, errors = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), output, errors)


def program_of(command: list[str], environment: dict[str, str]) -> list[str] | None:
    """A command's words after `python`; None for one that this environment's Python does not run."""
    found = Path(shutil.which(command[0], path=environment.get("PATH", "")) or "nowhere")
    here = Path(sys.executable).parent
    if found.parent != here:
        return None
    if found.name.startswith("python"):
        return command[1:]
    return [str(found), *command[1:]] if found.read_bytes().startswith(f"#!{here}/python".encode()) else None


def _stream(wanted, own: int, opened: contextlib.ExitStack):
    """(what is read here or None, descriptor of the fork) for an argument `stdout` or `stderr` as `subprocess` takes it."""
    if wanted == subprocess.PIPE:
        ours, theirs = os.pipe()
        opened.callback(os.close, theirs)
        return open(ours), theirs
    if wanted == subprocess.DEVNULL:
        return None, opened.enter_context(open(os.devnull, "w")).fileno()
    return None, own if wanted is None else wanted.fileno()


@functools.cache
def _server(modules: tuple[str, ...]) -> "Server":
    return Server(modules)


class Server:
    """The process that forks; it ends with this one, whose end closes the channel."""

    def __init__(self, modules: tuple[str, ...]):
        self._channel, theirs = socket.socketpair()
        with theirs:
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # a fork has one thread
            )

    def fork(self, request: socket.socket, output: int, errors: int) -> None:
        """Hand the ends of a new process over."""
        socket.send_fds(self._channel, [b"f"], [request.fileno(), 0, output, errors])


def serve(channel: socket.socket, modules: list[str]) -> None:
    """Fork for each request; returns in a fork, ready to run, or does not return.

    A process between the two waits for the fork and tells its status.
    """
    sys.path.pop(0)  # this folder
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # forks share what is loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        _, descriptors, *_ = socket.recv_fds(channel, 1, 4)
        if not descriptors:
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            channel.close()
            break
        for each in descriptors:
            os.close(each)
    request = socket.socket(fileno=descriptors[0])
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, each in enumerate(descriptors[1:]):
            os.dup2(each, number)
        become(**json.loads(request.makefile().readline()))
        request.close()
    for each in descriptors[1:]:
        os.close(each)
    if pid:
        request.sendall(NUMBER.pack(pid))
        request.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        os._exit(0)


def become(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Take over what a new interpreter would get from its caller; PYTHONPATH may name more folders than the server's."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    more = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder not in {"", *sys.path}]
    kind, rest = arguments[0], arguments[1:]
    place = {"-c": "", "-m": cwd}.get(kind, str(Path(kind).resolve().parent))
    sys.path[:0] = [place, *more]
    sys.orig_argv = [sys.executable, *arguments]
    sys.argv = [kind, *rest[1:]] if kind in ("-c", "-m") else arguments
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        open_stream(number, name, bool(environment.get("PYTHONUNBUFFERED")))
    importlib.invalidate_caches()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def open_stream(number: int, name: str, at_once: bool) -> None:
    """A standard stream of `sys` on what its descriptor is now."""
    old, raw = getattr(sys, name), io.FileIO(number, "r" if number == 0 else "w", closefd=False)
    binary = io.BufferedReader(raw) if number == 0 else raw if at_once else io.BufferedWriter(raw)
    new = io.TextIOWrapper(binary, old.encoding, old.errors, write_through=at_once)
    new.reconfigure(line_buffering=number == 2 or raw.isatty())
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


def run_program() -> None:
    """Run what `sys.orig_argv` says, in a module `__main__` of its own."""
    kind, *rest = sys.orig_argv[1:]
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    run_program()
