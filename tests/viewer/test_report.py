import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from distill3d.viewer import ReportData, scene_from_reconstruction, write_report
from distill3d.viewer.maps import relative_error
from distill3d.viewer.records import Curve, CurvePanel, FactGroup, KeyFigure, ScoreTable, ViewRow, metric_for
from distill3d.viewer.report import render_report
from tests.export.synthetic import room_reconstruction

EVIL = "<img src=https://evil.example/x.png onerror=alert(1)></script><script>"


class Page(HTMLParser):
    """What a browser would make of the page: its elements, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "td":
            self.cells.append((dict(attrs).get("class") or "", ""))

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._open):
            self.words.append(data)
        if "td" in self._open:
            self.cells[-1] = (self.cells[-1][0], self.cells[-1][1] + data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.elements if tag == "section"]


@pytest.fixture(scope="module")
def full() -> ReportData:
    room = room_reconstruction(2, 16, 20)
    depth = room.prediction.depth[0, 0].numpy()
    student = depth * np.float32(1.1)
    views = [
        ViewRow(
            name="held_out.jpg",
            photo=(room.views.images[0, 0].permute(1, 2, 0).numpy() * 255).astype(np.uint8),
            depth={"truth": depth, "student": student},
            error={"student": relative_error(student, depth)},
            confidence={"student": room.prediction.confidence_world[0, 0].numpy()},
        )
    ]
    return ReportData(
        title="A report",
        summary="One.\n\nTwo.",
        key_figures=[KeyFigure(label="Rel", value="0.065")],
        cloud=scene_from_reconstruction(room),
        tables=[ScoreTable(title="Held out", rows={"student": {"depth_rel": 0.065}, "mean": {"depth_rel": 0.3}})],
        views=views,
        panels=[CurvePanel(title="Training loss", curves=[Curve(name="total", steps=[0, 1], values=[2.0, 1.0])])],
        facts=[
            FactGroup(title="Licences", facts={"student": "Apache-2.0", "text": "https://www.apache.org/licenses/"})
        ],
    )


@pytest.fixture(scope="module")
def text(full, tmp_path_factory) -> str:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", full).read_text(encoding="utf-8")


def test_nothing_on_the_page_points_outside_but_plain_links(text):
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            value = attributes.get(name)
            if value is None:
                continue
            if tag == "a":
                assert value.startswith("#") or attributes["rel"] == "noreferrer"
            else:
                assert value.startswith("data:"), (tag, name, value[:80])
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert not re.search(r"url\(|@import", "".join(styles))
    assert not re.search(r"fetch\(\s*[\"'`]https?:|import\(\s*[\"'`]", text)


def test_the_browser_is_told_to_refuse_the_network(text):
    (policy,) = [
        attributes["content"]
        for tag, attributes in Page(text).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_every_section_is_there_once(text):
    page = Page(text)
    assert page.sections == ["summary", "cloud", "scores", "views", "curves", "facts"]
    for words in ("A report", "One.", "Two.", "0.065", "held_out.jpg", "Training loss", "Apache-2.0"):
        assert words in page.text
    targets = [a["href"][1:] for tag, a in page.elements if tag == "a" and (a.get("href") or "").startswith("#")]
    assert targets == page.sections[1:]


def test_sections_without_data_are_left_out():
    text = render_report(ReportData(title="Only a title"))
    page = Page(text)
    assert page.sections == []
    assert "<script" not in text
    assert "three.js" not in page.text


def test_empty_parts_count_as_no_data():
    empty = np.zeros((4, 5), np.float32)
    page = Page(
        render_report(
            ReportData(
                title="x",
                tables=[ScoreTable(title="none", rows={})],
                panels=[CurvePanel(title="nan", curves=[Curve(name="a", steps=[0], values=[float("nan")])])],
                facts=[FactGroup(title="none", facts={})],
                views=[ViewRow(name="blank", depth={"student": empty}, error={"student": empty * np.nan})],
            )
        )
    )
    assert page.sections == ["views"]
    assert "Depth" not in page.text


def test_texts_of_others_are_escaped(text):
    row = ViewRow(name=EVIL, note=EVIL, depth={EVIL: np.ones((2, 3), np.float32)})
    evil = render_report(
        ReportData(
            title=EVIL,
            subtitle=EVIL,
            summary=EVIL,
            key_figures=[KeyFigure(label=EVIL, value=EVIL, note=EVIL)],
            cloud=scene_from_reconstruction(room_reconstruction(1, 6, 8)),
            tables=[ScoreTable(title=EVIL, rows={EVIL: {EVIL: 1.0}}, note=EVIL)],
            views=[row],
            panels=[CurvePanel(title=EVIL, curves=[Curve(name=EVIL, steps=[0, 1], values=[1, 2])], x_label=EVIL)],
            facts=[FactGroup(title=EVIL, facts={EVIL: EVIL, "link": f'https://x"{EVIL}'})],
        )
    )
    page, plain = Page(evil), Page(text)
    count = {tag: sum(name == tag for name, _ in page.elements) for tag in ("script", "img")}
    assert count["script"] == sum(name == "script" for name, _ in plain.elements)
    assert not any(attributes.get("onerror") for _, attributes in page.elements)
    assert all((attributes.get("src") or "data:").startswith("data:") for _, attributes in page.elements)
    assert EVIL in page.text


def test_a_hostile_view_name_cannot_end_the_data_of_the_cloud(full):
    cloud = dataclasses.replace(full.cloud, names=(EVIL, "b"))
    page = Page(render_report(ReportData(title="x", cloud=cloud)))
    assert sum(tag == "script" for tag, _ in page.elements) == 2


def test_the_best_score_is_marked_in_its_own_direction():
    table = ScoreTable(
        title="",
        rows={
            "teacher": {"depth_rel": 0.01, "delta1": 0.99},
            "student": {"depth_rel": 0.06, "delta1": 0.95, "mystery": 4.0},
            "mean": {"depth_rel": 0.30, "delta1": None},
        },
        unranked=["teacher"],
    )
    cells = Page(render_report(ReportData(title="x", tables=[table]))).cells
    assert cells == [
        ("", "0.010"), ("", "0.990"), ("", "–"),
        ("best", "0.060"), ("", "0.950"), ("", "4.000"),
        ("", "0.300"), ("", "–"), ("", "–"),
    ]  # fmt: skip


def test_known_metrics_are_headed_and_unknown_ones_keep_their_name():
    assert metric_for("rotation_deg_median").better == "lower"
    assert metric_for("delta1").better == "higher"
    assert metric_for("frobnication_index").label == "frobnication index"


def test_the_same_data_gives_the_same_page(full, text):
    assert render_report(full) == text
