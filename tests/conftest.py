"""What every test may rely on: few threads, no network, and the real photos where they are at hand."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

# A loaded machine is slow without being wrong; and a check of a change must not depend on luck.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos with ground truth; tests that need it are skipped where it is absent.

    It is looked for at `DISTILL3D_SHARED_DATA`, then beside the project. Nothing in it belongs to the project.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DISTILL3D_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder}; set DISTILL3D_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Recorded outputs that travel with the project."""
    return Path(__file__).parent / "fixtures"
