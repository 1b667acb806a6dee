from collections import Counter

from distill3d.train.order import BatchOrder, numbers_of_rank, seed_of


def draws(order, epoch):
    return [draw for number in range(order.per_epoch) for draw in order[epoch * order.per_epoch + number].draws]


def test_an_epoch_uses_every_sample_and_fills_its_last_batch_with_a_repeat():
    order = BatchOrder([(4, 4)] * 7, batch=3, seed=0)
    assert order.per_epoch == 3
    used = Counter(draw.index for draw in draws(order, 0))
    assert set(used) == set(range(7))
    assert sum(used.values()) == 9
    assert len(set(draws(order, 0))) == 9, "a repeat is told apart from the first use"


def test_the_order_depends_on_seed_and_epoch_alone():
    one, same = (BatchOrder([(4, 4)] * 20, batch=4, seed=3) for _ in range(2))
    other = BatchOrder([(4, 4)] * 20, batch=4, seed=4)
    assert draws(one, 2) == draws(same, 2)
    assert draws(one, 0) != draws(one, 1)
    assert draws(one, 0) != draws(other, 0)


def test_a_batch_holds_images_of_one_size():
    sizes = [(4, 4), (4, 8)] * 5
    order = BatchOrder(sizes, batch=3, seed=0)
    assert {draw.index for draw in draws(order, 0)} == set(range(10))
    for number in range(order.per_epoch):
        assert len({sizes[draw.index] for draw in order[number].draws}) == 1


def test_two_processes_see_in_each_step_what_one_sees_with_twice_the_accumulation():
    alone = numbers_of_rank(rank=0, world=1, accumulation=4, start=0, steps=5)
    pair = [numbers_of_rank(rank=rank, world=2, accumulation=2, start=0, steps=5) for rank in range(2)]
    for step in range(5):
        together = sorted(number for numbers in pair for number in numbers[2 * step : 2 * step + 2])
        assert together == alone[4 * step : 4 * step + 4]


def test_a_resumed_run_takes_the_rest_of_the_batches():
    whole = numbers_of_rank(rank=1, world=3, accumulation=2, start=0, steps=9)
    assert numbers_of_rank(rank=1, world=3, accumulation=2, start=4, steps=9) == whole[8:]


def test_seeds_are_the_same_on_every_machine_and_version():
    assert seed_of(0, "order", 1) == 2961819992523135983
