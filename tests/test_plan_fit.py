"""Settings that fit into memory: what is proposed fits, and the next larger one does not."""

import pytest

from dragoman.plan.fit import SMALLEST, FitSetting, fit, linear_memory

WANTED = FitSetting(batch_tokens=8192, accumulate=2)
FIXED = 1_000_000


def memory(setting: FitSetting) -> int:
    """Weights, and activations by token: an eighth of them with checkpointing, half in bfloat16."""
    each = 1000 // (8 if setting.recompute else 1) // (2 if setting.precision == "bfloat16" else 1)
    return FIXED + each * setting.batch_tokens


@pytest.mark.parametrize("available", [1_010_000, 1_100_000, 1_300_000, 2_000_000, 5_000_000, 9_000_000, 30_000_000])
def test_what_is_proposed_fits_and_learns_the_same_and_the_next_larger_does_not_fit(available):
    found = fit(memory, WANTED, available)
    assert found.nearest is not None
    near = found.nearest
    assert memory(near) == found.memory <= available
    assert near.batch_tokens * near.accumulate == WANTED.batch_tokens * WANTED.accumulate
    if not found.fits:
        larger = FitSetting(2 * near.batch_tokens, near.accumulate // 2, near.recompute)
        assert memory(larger) > available


def test_pieces_come_before_checkpointing_as_long_as_they_are_large():
    found = fit(memory, WANTED, memory(FitSetting(SMALLEST)))
    assert found.nearest == FitSetting(SMALLEST, WANTED.batch_tokens * 2 // SMALLEST)
    found = fit(memory, WANTED, memory(FitSetting(SMALLEST)) - 1)
    assert found.nearest is not None and found.nearest.recompute and found.nearest.batch_tokens > SMALLEST


def test_another_precision_is_tried_last_and_only_where_it_is_allowed():
    limit = FIXED + 200
    assert fit(memory, WANTED, limit).nearest == FitSetting(1, 16_384, recompute=True)
    assert fit(memory, WANTED, FIXED + 70).nearest is None
    found = fit(memory, WANTED, FIXED + 70, precisions=["bfloat16"])
    assert found.nearest is not None and found.nearest.precision == "bfloat16"


def test_where_nothing_fits_the_least_that_was_found_is_reported():
    found = fit(memory, WANTED, FIXED)
    assert found.nearest is None and found.largest is None and not found.fits
    assert FIXED < found.memory < FIXED + 1000 and found.needed == memory(WANTED)


def test_the_largest_batch_that_fits_is_found_where_the_wanted_one_does():
    found = fit(memory, WANTED, memory(FitSetting(65_536)))
    assert found.fits and found.nearest == WANTED
    assert found.largest is not None and found.largest.batch_tokens == 65_536


def test_settings_are_written_as_the_command_line_takes_them():
    near = FitSetting(1024, 16, recompute=True)
    assert near.settings(WANTED) == "train.batch_tokens=1024 train.accumulate=16 train.recompute=true"
    assert WANTED.settings(WANTED) == ""


def test_memory_that_grows_by_rows_is_known_from_two_counts():
    asked = []

    def counted(setting: FitSetting) -> int:
        asked.append(setting)
        return memory(setting)

    found = linear_memory(counted, 512, 1024)
    assert all(found(FitSetting(n)) == memory(FitSetting(n)) for n in (1, 512, 4096, 100_000))
    assert len(asked) == 2
    assert found(FitSetting(64, recompute=True)) == memory(FitSetting(64, recompute=True))
    assert len(asked) == 4
