import os
import subprocess
import sys

import pytest

from distill3d.memory import keep_freed_memory

FAULTS = """
import resource, numpy
from distill3d.memory import keep_freed_memory
{call}
def work():
    # Of 40 MiB each: from 32 on, glibc hands every array back by itself.
    arrays = [numpy.ones(40 << 18, dtype=numpy.float32) for _ in range(6)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(call: str) -> int:
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], env=usual, capture_output=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again_without_asking_the_system():
    kept = page_faults("assert keep_freed_memory()") if sys.platform.startswith("linux") else None
    if kept is None:
        assert not keep_freed_memory()
        pytest.skip("only glibc is asked to keep memory")
    assert kept < page_faults("") / 2
