"""Two small scenes with everything known."""

import pytest

from tests.teachers.views import write_scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scene(root, "wall-a")
    return root, write_scene(root, "wall-b", views=6)


@pytest.fixture
def manifest(scenes):
    return scenes[1]
