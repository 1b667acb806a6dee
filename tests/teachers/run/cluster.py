"""A teacher pass on a real Ray cluster of this machine, in a process of its own.

    python -m tests.teachers.run.cluster MANIFEST OUT

Of two nodes one is killed while it has work, and another joins. OUT/c is the cache, OUT/told.json what was said.
"""

import json
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"}

from ray.cluster_utils import Cluster

from distill3d.data.sampling import random_groups
from distill3d.data.table import load_manifest
from distill3d.teachers.run import run_teacher
from distill3d.teachers.run.ray import RayEngine
from tests.teachers.run.fake import FIT, Fake

NUM_GROUPS = 36
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


class SlowFake(Fake):
    """Takes its time until a file says that the drama is over."""

    def __init__(self, over: Path) -> None:
        super().__init__()
        self.over = over

    def predict(self, views):
        for _ in range(20):
            if not self.over.exists():
                time.sleep(0.1)
        return super().predict(views)


def main(manifest_path: str, out: str) -> None:
    folder, manifest, said = Path(out), load_manifest(manifest_path), []
    groups = random_groups(manifest, 2, count=NUM_GROUPS)
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("distill3d").addHandler(handler)
    logging.getLogger("distill3d").setLevel(logging.INFO)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": QUICK})
    victim, _ = (cluster.add_node(wait=False, **NODE) for _ in range(2))
    cluster.wait_for_nodes()
    over = folder / "over"

    def watched(maker, batches):
        dead = False
        for made in RayEngine(build=partial(SlowFake, over), address=cluster.address)(maker, batches):
            yield made
            if not dead and said.count("2 workers") == 1:
                cluster.remove_node(victim, allow_graceful=False)
                cluster.add_node(wait=False, **NODE)
                dead = True
            if said.count("2 workers") == 2:
                over.touch()

    run_teacher(SlowFake(over), manifest, groups, folder / "c", fit=FIT, engine=watched)
    (folder / "told.json").write_text(json.dumps(said))
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
