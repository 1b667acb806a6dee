from tests.cli.calls import call, succeed


def test_the_report_of_a_run_shows_curves_scores_maps_and_cloud(chain, tmp_path):
    out = tmp_path / "report.html"
    said = succeed(
        "report", chain.run, "--evaluation", chain.evaluation, "--manifest", chain.manifest,
        "--photos", chain.scene, "--max-photos", 3, "--out", out,
    )  # fmt: skip
    page = out.read_text()
    assert said["bytes"] == out.stat().st_size
    for heading in ("Point cloud", "Held-out views", "Views", "Curves", "Facts"):
        assert heading in page, heading
    assert "constant depth" in page


def test_a_report_needs_a_run_folder(chain, tmp_path):
    called = call("report", chain.cache, "--out", tmp_path / "r.html")
    assert called.code == 2
    assert "not a run folder" in called.err
    assert not (tmp_path / "r.html").exists()
