"""Processes that end as by kill -9, at a chosen system call or at a chosen time.

A forked process makes itself a thread pool when torch is first asked; torch lets threads race for it ("Invalid thread
pool"), so each of these asks before it has any.
"""

import os
import signal
import time
from collections.abc import Callable

import torch

STEPS = ("write", "fsync", "replace", "ftruncate", "unlink", "open", "truncate")
"""Calls of `os` that change the disk, or lead to it."""


def die_at_step(step: int) -> None:
    """Make this process end at its n-th system call that changes the disk; a write is done by half."""
    count = 0

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os._exit(9)
            return real(*args, **kwargs)

        setattr(os, name, call)

    for name in STEPS:
        wrap(name)


def run_until_step(step: int, work: Callable[[], None]) -> bool:
    """Do the work in a forked process that dies at that step; whether it did."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        die_at_step(step)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def run_and_kill(seconds: float, work: Callable[[], None]) -> bool:
    """Do the work in a forked process, and kill it after so long; whether it still lived."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] != 0
