"""States that sum up the past: read in pieces, reordered, joined and taken back, they stay what they should be."""

import torch
from torch import Tensor

from dragoman.model.caches.summary import JoinedState, Summary, SummaryState


def running_sum(summary: Summary | None, x: Tensor) -> tuple[Tensor, Summary]:
    """The sum of all values so far, after each."""
    assert summary is not None
    sums = summary[0][:, None] + x.cumsum(dim=1)
    return sums, (sums[:, -1],)


def read(state: SummaryState, x: Tensor) -> Tensor:
    return state.read(running_sum, x, empty=(torch.zeros(len(x), x.shape[2]),))


def test_pieces_give_what_the_whole_gives():
    x, state = torch.randn(3, 7, 2), SummaryState(remembers=True)
    pieces = torch.cat([read(state, piece) for piece in x.split([3, 1, 3], dim=1)], dim=1)
    torch.testing.assert_close(pieces, x.cumsum(dim=1))


def test_a_state_that_does_not_remember_stays_empty():
    state = SummaryState(remembers=False)
    read(state, torch.randn(2, 3, 2))
    assert state.value is None and state.nbytes == 0


def test_tokens_taken_back_were_never_read():
    x, state = torch.randn(2, 8, 2), JoinedState(summary := SummaryState(remembers=True))
    read(summary, x[:, :3])
    state.allow_rewind(4)
    read(summary, x[:, 3:5])
    read(summary, torch.randn(2, 3, 2))
    state.rewind(3)
    state.rewind(0)
    torch.testing.assert_close(read(summary, x[:, 5:]), x.cumsum(dim=1)[:, 5:])
    state.rewind(4)
    torch.testing.assert_close(read(summary, x[:, 4:]), x.cumsum(dim=1)[:, 4:])


def test_rows_are_chosen_and_joined_with_their_past():
    x, y = torch.randn(3, 4, 2), torch.randn(2, 6, 2)
    mine, theirs = SummaryState(remembers=True), SummaryState(remembers=True)
    read(mine, x), read(theirs, y)
    mine.reorder(torch.tensor([2, 2, 0]))
    mine.join(theirs)
    expected = torch.cat([x[[2, 2, 0]].sum(dim=1), y.sum(dim=1)])
    torch.testing.assert_close(mine.value, (expected,))
    assert mine.nbytes == 5 * 2 * 4
