"""Pages of tokens: rows hold lists of pages, not tokens (vLLM, arXiv:2309.06180).

Rows with a common past, as the beams of a search have, share its pages; who writes to a shared page copies it first.
Reordering rows therefore changes a small table and moves nothing.

R rows, T length, K tokens remembered, P pages of a row, n tokens of a page.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.layout import MemoryLayout
from dragoman.model.caches.storage import Parts


class PagePool:
    """Pages, and how many users each has. Several states may draw from one, if they remember the like."""

    def __init__(self, tokens: int):
        self.tokens = tokens
        self.parts: Parts = ()  # each (pages x n, G, numbers)
        self.users = torch.zeros(0, dtype=torch.int64)

    @property
    def used(self) -> int:
        """Pages that someone uses."""
        return int((self.users > 0).sum())

    @property
    def nbytes(self) -> int:
        return self.users.nbytes + sum(part.nbytes for part in self.parts)

    @property
    def page_nbytes(self) -> int:
        return self.nbytes // max(len(self.users), 1)

    def take(self, count: int, like: Parts) -> Int[Tensor, " P"]:
        """Pages nobody uses, for one user each; ``like`` says what is to be written there, (T, R, G, numbers)."""
        free = (self.users == 0).nonzero().squeeze(1)
        if len(free) < count:
            self.grow(max(len(self.users), count - len(free)), like)
            return self.take(count, like)
        self.users[free[:count]] = 1
        return free[:count]

    def grow(self, pages: int, like: Parts) -> None:
        old = self.parts or tuple(part.new_empty(0, *part.shape[2:]) for part in like)
        fits = [(a.shape[1:], a.dtype) == (b.shape[2:], b.dtype) for a, b in zip(old, like, strict=True)]
        assert all(fits), "states that share pages must remember the same: equal heads, channels and precision"
        self.users = torch.cat([self.users.to(like[0].device), self.users.new_zeros(pages, device=like[0].device)])
        self.parts = tuple(torch.cat([part, part.new_empty(pages * self.tokens, *part.shape[1:])]) for part in old)

    def change(self, more: Int[Tensor, "..."], less: Int[Tensor, "..."]) -> None:
        """Each mention in ``more`` is one more user of a page, each in ``less`` one less."""
        more, less = (torch.bincount(pages.flatten(), minlength=len(self.users)) for pages in (more, less))
        self.users = self.users + more - less

    def copy(self, pages: Int[Tensor, " P"], to: Int[Tensor, " P"]) -> None:
        for part in self.parts:
            whole = part.view(-1, self.tokens, *part.shape[1:])
            whole[to] = whole[pages]

    def clear(self, pages: Int[Tensor, " P"]) -> None:
        for part in self.parts:
            part.view(-1, self.tokens, *part.shape[1:])[pages] = 0

    def write(self, slots: Int[Tensor, "T R"], new: Parts) -> None:
        for part, fresh in zip(self.parts, new, strict=True):
            part.index_copy_(0, slots.flatten(), fresh.detach().flatten(0, 1))

    def read(self, slots: Int[Tensor, "K R"]) -> Parts:
        return tuple(part.index_select(0, slots.flatten()).unflatten(0, tuple(slots.shape)) for part in self.parts)


class PagedLayout(MemoryLayout):
    """The page table of some rows. What it uses goes back to the pool when the state is dropped.

    It holds numbers, not their gradients.
    """

    def __init__(self, pool: PagePool, *, private: bool):
        self.pool, self.private = pool, private
        self.table: Tensor | None = None  # (R, P)
        self.columns = torch.zeros(0, dtype=torch.int64)  # (K,): the place in its row's pages of each token remembered
        self.end = 0  # place of the next one

    def extend(self, new: Parts, retained: Tensor | None) -> Parts:
        n, device, (T, R, *_) = self.pool.tokens, new[0].device, new[0].shape
        table = (
            self.own_last_page(new) if self.table is not None else torch.zeros(R, 0, dtype=torch.int64, device=device)
        )
        missing = -(-(self.end + T) // n) - table.shape[1]
        self.table = torch.cat([table, self.pool.take(R * missing, new).view(R, missing)], dim=1)
        fresh = torch.arange(self.end, self.end + T, device=device)
        self.pool.write(self.slots(fresh, self.table), new)
        self.columns = torch.cat([self.columns.to(device), fresh])
        self.end += T
        seen = self.pool.read(self.slots(self.columns, self.table))
        if retained is not None:
            self.forget(retained)
        return seen

    def slots(self, columns: Int[Tensor, " K"], table: Int[Tensor, "R P"]) -> Int[Tensor, "K R"]:
        n = self.pool.tokens
        return (table[:, columns // n] * n + columns % n).T

    def own_last_page(self, like: Parts) -> Int[Tensor, "R P"]:
        """The table, in which whoever will write to a page is its only user."""
        table = self.table
        assert table is not None
        if self.end % self.pool.tokens == 0:
            return table
        last, users = table[:, -1], self.pool.users
        order = last.argsort(stable=True)
        here = torch.bincount(last, minlength=len(users))
        first = torch.ones_like(last, dtype=torch.bool)
        first[order[1:]] = last[order[1:]] != last[order[:-1]]
        copying = (~(first & (users[last] == here[last]))).nonzero().squeeze(1)  # one of its rows may keep the page
        if len(copying):
            pages = last[copying]
            fresh = self.pool.take(len(copying), like)
            self.pool.copy(pages, fresh)
            self.pool.change(fresh[:0], pages)
            table[copying, -1] = fresh
        return table

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """All columns but these, and the pages that hold none of them."""
        self.columns = self.columns[retained]
        self.keep_pages(torch.cat([self.columns // self.pool.tokens, self.columns.new_tensor(self.partial())]))

    def partial(self) -> list[int]:
        """The page that has room left, if one has."""
        return [self.end // self.pool.tokens] if self.end % self.pool.tokens else []

    def keep_pages(self, chosen: Int[Tensor, " P"]) -> None:
        if self.table is None:
            return
        n, chosen = self.pool.tokens, chosen.unique()  # in ascending order
        table = self.table[:, chosen]
        self.pool.change(table, self.table)
        moved = torch.zeros(self.table.shape[1] + 1, dtype=torch.int64, device=chosen.device)
        moved[chosen] = torch.arange(len(chosen), device=chosen.device)
        self.columns = moved[self.columns // n] * n + self.columns % n
        self.end = (len(chosen) - 1) * n + self.end % n if self.end % n else len(chosen) * n
        self.table = table

    def reorder(self, rows: Tensor) -> None:
        if self.table is not None:
            table = self.table.index_select(0, rows)
            self.pool.change(table, self.table)
            self.table = table

    def join(self, other: MemoryLayout) -> None:
        """A page of zeros stands for all of those that ``other`` does not have, and its columns move to where these
        stand."""
        assert isinstance(other, PagedLayout)
        assert self.table is not None and other.table is not None
        new = other.pool.read(other.slots(other.columns, other.table))
        self.pad(len(other.columns) - len(self.columns), new)
        last, n = self.columns[len(self.columns) - len(other.columns) :], self.pool.tokens
        (R, before), P = (len(other.table), int(last[0]) // n), self.table.shape[1]
        fresh = self.pool.take(R * (P - before), new)
        self.pool.clear(fresh)
        table = torch.cat([self.blanks(R, before, new), fresh.view(R, P - before)], dim=1)
        self.pool.write(self.slots(last, table), new)
        self.table = torch.cat([self.table, table])

    def pad(self, columns: int, like: Parts) -> None:
        """So many columns of zeros in front."""
        if columns > 0 and self.table is not None:
            n = self.pool.tokens
            pages = -(-columns // n)
            self.table = torch.cat([self.blanks(len(self.table), pages, like), self.table], dim=1)
            front = torch.arange(pages * n - columns, pages * n, device=self.columns.device)
            self.columns, self.end = torch.cat([front, self.columns + pages * n]), self.end + pages * n

    def blanks(self, rows: int, pages: int, like: Parts) -> Int[Tensor, "R P"]:
        """A page of zeros, for all of these."""
        if not pages:
            return torch.zeros(rows, 0, dtype=torch.int64, device=like[0].device)
        page = self.pool.take(1, like)
        self.pool.clear(page)
        table = page.expand(rows, pages)
        self.pool.change(table, page)
        return table

    def rewind(self, tokens: int) -> None:
        kept = len(self.columns) - tokens
        self.columns, self.end = self.columns[:kept], self.end - tokens
        pages = -(-self.end // self.pool.tokens)
        self.keep_pages(torch.arange(pages, device=self.columns.device))

    def __del__(self) -> None:
        if self.table is not None and not self.private:
            self.pool.change(self.table[:0], self.table)

    @property
    def nbytes(self) -> int:
        if self.table is None:
            return self.pool.nbytes if self.private else 0
        own = self.pool.nbytes if self.private else len(self.table.unique()) * self.pool.page_nbytes
        return own + self.table.nbytes + self.columns.nbytes
