import pytest

from distill3d.errors import ConfigError
from distill3d.train.budget import fit_budget, parse_budget
from tests.train.test_refine import config

SIZE = (56, 56)


def test_amounts_of_memory_are_read():
    assert parse_budget("24GB") == parse_budget("24 g") == 24 * 10**9
    assert parse_budget("1500MB") == 1_500_000_000
    assert parse_budget("24GiB") == 24 * 1024**3
    for text in ("", "much", "0GB", "-3GB"):
        with pytest.raises(ConfigError, match="no amount of memory"):
            parse_budget(text)


def test_a_budget_chooses_batch_accumulation_and_recomputing():
    wanted = config(base="vggt", batch=8, accumulation=2)
    plenty = fit_budget(wanted, 10**10, SIZE)
    assert (plenty.batch, plenty.accumulation, plenty.gradient_checkpointing) == (8, 2, False)
    with pytest.raises(ConfigError, match=r"1 MB is too small: vggt at 56x56 needs about \d+ MB"):
        fit_budget(wanted, 10**6, SIZE)
    tight = fit_budget(wanted, 45 * 10**6, SIZE)
    assert tight.batch < 8
    assert tight.batch * tight.accumulation >= 16
