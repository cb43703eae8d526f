
import numpy as np
import pytest

from benchmarks.stall_witness import StallWitness, missed_periods

PERIOD = 1_000_000
NONE = np.empty((0, 2), dtype=np.int64)


def stamps(*periods: float) -> np.ndarray:
    return np.array([round((100 + period) * PERIOD) for period in periods], dtype=np.int64)


@pytest.mark.parametrize(
    ("periods", "missed"),
    [
        ((0, 1, 2, 3), 0),
        ((0, 1, 3, 4), 1),
        ((0, 1, 5, 6, 7), 3),
        ((0, 1, 2.8, 3, 4), 0),  # late, not missed
        ((0.02, 0.98, 2.01, 3, 3.97, 5), 0),
        ((0, 1, 2.6, 4, 5, 6), 1),  # one late, the next missed
    ],
)
def test_missed_periods_of_a_grid(periods, missed) -> None:
    assert missed_periods(stamps(*periods), PERIOD, NONE) == (missed, 0)


def test_a_gap_that_overlaps_a_stall_is_disturbed() -> None:
    seen = stamps(0, 1, 3, 4, 5, 7, 8)
    assert missed_periods(seen, PERIOD, stamps(1.5, 1.9).reshape(1, 2)) == (1, 1)
    assert missed_periods(seen, PERIOD, stamps(3.2, 4.8).reshape(1, 2)) == (2, 0)
    assert missed_periods(seen, PERIOD, stamps(0, 9).reshape(1, 2)) == (0, 2)


def test_witnesses_start_stop_and_report() -> None:
    with StallWitness() as witness:
        assert len(witness._processes) >= 1
    assert witness.stalls.shape[1] == 2
    assert set(witness.summary()) == {"stalls", "longest_ms", "scheduling"}
    assert witness.scheduling in ("fifo", "normal", "fifo/normal")
