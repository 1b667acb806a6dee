import shutil

import pytest
import torch

from distill3d.errors import DataError
from distill3d.eval import benchmark as registry
from distill3d.eval.benchmarks.dtu_official import read_scan
from distill3d.eval.run import Method
from distill3d.eval.suite import Plan, run_benchmark
from tests.eval.perfect import say_the_truth
from tests.fixtures.layouts import write_layout


def test_a_frame_and_scale_of_its_own_do_not_matter_and_noise_is_measured(tmp_path):
    root = write_layout("dtu", tmp_path / "dtu").root

    def said(views, noise=0.0):
        truth = say_the_truth(views)
        turned = truth.pointmap_world.flip(-1) * torch.tensor([1.0, 1, -1]) * 0.2 + 3
        wrong = noise * torch.randn(turned.shape, generator=torch.Generator().manual_seed(0))
        return type(truth)(pointmap_world=turned + wrong)

    methods = {
        "exact": Method(predict=said, sees_truth=True),
        "noisy": Method(predict=lambda views: said(views, 0.0005), sees_truth=True),  # 2.5 mm
    }
    plan = Plan(benchmark=registry.get("dtu-official"), root=root, folder=tmp_path / "out")
    result = run_benchmark(plan, methods)
    assert result is not None
    exact, noisy = (result.methods[name].values for name in methods)
    assert exact["overall"] < 5e-3
    # The length of three normal numbers is 1.6 on average; the nearest point is never farther than the true one.
    assert 2.5 < noisy["accuracy"] < 1.6 * 2.5
    assert noisy["overall"] == pytest.approx((noisy["accuracy"] + noisy["completeness"]) / 2)


def test_the_reference_may_lie_in_the_official_folder_and_must_be_whole(tmp_path):
    root = write_layout("dtu", tmp_path).root
    whole = read_scan(root, 1)
    official = root / "SampleSet/MVS Data"
    official.mkdir(parents=True)
    for name in ("ObsMask", "Points"):
        shutil.move(root / name, official / name)
    assert (read_scan(root, 1).points == whole.points).all()
    with pytest.raises(DataError, match=r"no scanned points at .*stl004_total.ply"):
        read_scan(root, 4)
    cut = (official / "Points/stl/stl001_total.ply").read_bytes()[:60]
    (official / "Points/stl/stl004_total.ply").write_bytes(cut)
    with pytest.raises(DataError, match="does not begin with vertices"):
        read_scan(root, 4)
    (official / "ObsMask/Plane1.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    with pytest.raises(DataError, match=r"plane of the table.* cannot be read"):
        read_scan(root, 1)
    shutil.copy(official / "ObsMask/ObsMask1_10.mat", official / "ObsMask/Plane1.mat")
    with pytest.raises(DataError, match="other things than expected"):
        read_scan(root, 1)
    shutil.rmtree(official)
    with pytest.raises(DataError, match="no folder ObsMask"):
        read_scan(root, 1)
