import json
from pathlib import Path

import pytest

from distill3d import viewer

BUNDLE = Path(viewer.__file__).parent / "static" / "pointcloud.js"
TOOLS = Path(__file__).resolve().parents[2] / "tools" / "viewer"


def test_the_bundle_carries_the_licence_of_three_js_and_stays_small():
    text = BUNDLE.read_text(encoding="utf-8")
    assert len(text) < 800_000
    assert "three.js: The MIT License" in text[:2000]
    assert "Permission is hereby granted, free of charge" in text[:2000]


def test_the_bundle_can_stand_inside_a_script_element():
    assert "</script" not in BUNDLE.read_text(encoding="utf-8").lower()


@pytest.mark.skipif(not TOOLS.is_dir(), reason="only in a checkout")
def test_the_lock_file_names_versions_and_hashes_but_no_registry():
    text = (TOOLS / "package-lock.json").read_text(encoding="utf-8")
    assert "http" not in text
    wanted = json.loads((TOOLS / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    packages = json.loads(text)["packages"]
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
        assert packages[f"node_modules/{name}"]["integrity"].startswith("sha512-")
    assert f"three.js {wanted['three']}" in BUNDLE.read_text(encoding="utf-8")[:300]
