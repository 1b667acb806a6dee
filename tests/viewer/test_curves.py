import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.viewer.curves import HEIGHT, WIDTH, curve_from_records, draw_panel, log_ticks, thin, ticks
from distill3d.viewer.records import Curve, CurvePanel


def parsed(*curves: Curve, **settings) -> ElementTree.Element:
    return ElementTree.fromstring(str(draw_panel(CurvePanel(title="loss", curves=curves, **settings))))


def points_of(figure: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()] for line in figure.iter("polyline")
    ]


def test_a_falling_curve_goes_down_and_stays_inside_the_axes():
    (line,) = points_of(parsed(Curve(name="total", steps=[0, 1, 2], values=[3.0, 2.0, 1.0])))
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # SVG's y points down
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in line)


def test_a_single_point_is_a_dot():
    figure = parsed(Curve(name="Rel", steps=[100], values=[0.2]))
    assert len(list(figure.iter("circle"))) == 1
    assert not points_of(figure)


def test_nan_and_infinity_part_a_line():
    curve = Curve(name="total", steps=range(7), values=[1, 2, math.nan, 3, 4, math.inf, 5])
    figure = parsed(curve)
    assert [len(line) for line in points_of(figure)] == [2, 2]
    assert len(list(figure.iter("circle"))) == 1
    assert json.loads(figure.get("data-series"))[0]["values"] == [1, 2, None, 3, 4, None, 5]


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan]])
def test_nothing_to_draw_is_nothing(values):
    assert draw_panel(CurvePanel(title="x", curves=[Curve(name="a", steps=range(len(values)), values=values)])) is None
    assert draw_panel(CurvePanel(title="x", curves=[])) is None


@pytest.mark.parametrize("value", [0.0, -3.0, 7.0, 1e-12])
def test_a_constant_curve_has_axes(value):
    ((first, second),) = points_of(parsed(Curve(name="a", steps=[5, 6], values=[value, value]), log_y=True))
    assert first[1] == second[1]


def test_a_log_axis_spreads_ratios_evenly():
    (line,) = points_of(parsed(Curve(name="a", steps=[0, 1, 2], values=[1, 10, 100]), log_y=True))
    assert line[1][1] - line[0][1] == pytest.approx(line[2][1] - line[1][1], abs=0.2)


def test_a_log_axis_is_given_up_where_a_value_is_not_positive():
    (line,) = points_of(parsed(Curve(name="a", steps=[0, 1, 2], values=[0, 5, 10]), log_y=True))
    assert line[1][1] - line[0][1] == pytest.approx(line[2][1] - line[1][1], abs=0.2)


def test_names_are_escaped():
    figure = parsed(Curve(name="<script>alert(1)</script>", steps=[0, 1], values=[1, 2]))
    assert not list(figure.iter("script"))
    assert "<script>alert(1)</script>" in "".join(figure.itertext())


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-6, 1e6),
)
def test_ticks_are_within_and_few(low, span):
    found = ticks(low, low + span)
    if low + span > low and span > 1e-9 * abs(low):
        assert 1 <= len(found) <= 12
        assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)


@given(low=st.floats(1e-8, 1e3), ratio=st.floats(1.0001, 1e9))
def test_log_ticks_are_within_and_few(low, ratio):
    found = log_ticks(low, low * ratio)
    assert 1 <= len(found) <= 12
    assert all(low * 0.99 <= tick <= low * ratio * 1.01 for tick in found)


def test_a_long_curve_is_thinned_to_means():
    steps, values = thin(np.arange(10_000.0), np.ones(10_000), limit=100)
    assert len(steps) == len(values) == 100
    assert (values == 1).all()
    assert (np.diff(steps) > 0).all()


def test_curves_come_from_the_records_of_one_kind():
    records = [
        {"step": 1, "kind": "train", "loss": 2.0},
        {"step": 1, "kind": "validation", "loss": 9.0},
        {"step": 2, "kind": "train", "loss": None},
        {"step": 3, "kind": "train", "rate": 1.0},
    ]
    curve = curve_from_records(records, "loss", kind="train", name="total")
    assert (curve.name, list(curve.steps)) == ("total", [1, 2])
    assert curve.values[0] == 2
    assert math.isnan(curve.values[1])
