"""Tables mapped into memory: the pages of one Arrow file serve every process, and only those that are looked at."""

import logging
from pathlib import Path

import pyarrow as pa

from distill3d.errors import OutputError
from distill3d.files import atomic_writer

logger = logging.getLogger(__name__)

_DIGEST_KEY = b"distill3d.digest"
_BATCH_ROWS = 1 << 20


def write_mapped(table: pa.Table, path: Path, digest: str) -> bool:
    """Write a table where `map_table` finds it; False where the place takes no files, which costs memory only."""
    marked = table.replace_schema_metadata({_DIGEST_KEY: digest.encode()}).unify_dictionaries()
    try:
        with atomic_writer(path, needed=table.nbytes) as file, pa.ipc.new_file(file, marked.schema) as writer:
            writer.write_table(marked, max_chunksize=_BATCH_ROWS)
    except OutputError as error:
        logger.warning("every process will hold the manifest in memory: %s", error)
        return False
    return True


def map_table(path: Path, digest: str) -> pa.Table | None:
    """Map a table; `None` if there is none of that digest."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException):
        return None
    return table if (table.schema.metadata or {}).get(_DIGEST_KEY) == digest.encode() else None
