import random

import pytest

from distill3d.data.rows import natural_key


@pytest.mark.parametrize(
    "names",
    [
        ["frame_2", "frame_10"],
        ["1.jpg", "2.jpg", "10.jpg", "100.jpg"],
        ["IMG_9.JPG", "img_10.jpg", "IMG_11.jpg"],
        ["47_999.9.png", "47_1000.1.png"],
        ["a.jpg", "a1.jpg", "a2.jpg", "ab.jpg"],
        ["a/2.jpg", "a/10.jpg", "a-2/1.jpg", "b/1.jpg"],
        ["000002.png", "10.png", "0000000000000000000000000000000000000000011.png"],
        ["scene", "scene/1", "scene1"],
        ["", "1", "x"],
    ],
)
def test_names_sort_as_people_count(names):
    shuffled = list(names)
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == names


def test_names_that_count_alike_keep_a_fixed_order():
    assert sorted(["a01", "a1", "A1"], key=natural_key) == sorted(["A1", "a1", "a01"], key=natural_key)
