"""Paged layout: rows hold lists of pages instead of tokens (vLLM, arXiv:2309.06180).

Rows with a common prefix, such as the beams of a search, share its pages; a shared page is copied before it is written
to. Reordering rows therefore changes a small table and moves no data.

R rows, T length, K cached tokens, P pages of a row, n tokens of a page.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.layout import MemoryLayout
from dragoman.model.caches.storage import Parts


class PagePool:
    """Pages with reference counts. Several states may share a pool if their heads, channels and precision are
    equal."""

    def __init__(self, tokens: int):
        self.tokens = tokens
        self.parts: Parts = ()  # each (pages x n, G, numbers)
        self.reference_counts = torch.zeros(0, dtype=torch.int64)

    @property
    def used(self) -> int:
        """Number of pages in use."""
        return int((self.reference_counts > 0).sum())

    @property
    def nbytes(self) -> int:
        return self.reference_counts.nbytes + sum(part.nbytes for part in self.parts)

    @property
    def page_nbytes(self) -> int:
        return self.nbytes // max(len(self.reference_counts), 1)

    def allocate(self, count: int, like: Parts) -> Int[Tensor, " P"]:
        """Allocate ``count`` pages with reference count 1; ``like`` gives their shape and type, (T, R, G, numbers)."""
        free = (self.reference_counts == 0).nonzero().squeeze(1)
        if len(free) < count:
            self.grow(max(len(self.reference_counts), count - len(free)), like)
            return self.allocate(count, like)
        self.reference_counts[free[:count]] = 1
        return free[:count]

    def grow(self, pages: int, like: Parts) -> None:
        old = self.parts or tuple(part.new_empty(0, *part.shape[2:]) for part in like)
        fits = [(a.shape[1:], a.dtype) == (b.shape[2:], b.dtype) for a, b in zip(old, like, strict=True)]
        assert all(fits), "states that share pages must remember the same: equal heads, channels and precision"
        self.reference_counts = torch.cat(
            [self.reference_counts.to(like[0].device), self.reference_counts.new_zeros(pages, device=like[0].device)]
        )
        self.parts = tuple(torch.cat([part, part.new_empty(pages * self.tokens, *part.shape[1:])]) for part in old)

    def update_counts(self, more: Int[Tensor, "..."], less: Int[Tensor, "..."]) -> None:
        """Increment the reference count of a page for each mention in ``more``, decrement it for each in ``less``."""
        more, less = (torch.bincount(pages.flatten(), minlength=len(self.reference_counts)) for pages in (more, less))
        self.reference_counts = self.reference_counts + more - less

    def copy(self, pages: Int[Tensor, " P"], to: Int[Tensor, " P"]) -> None:
        for part in self.parts:
            pages_of_part = part.view(-1, self.tokens, *part.shape[1:])
            pages_of_part[to] = pages_of_part[pages]

    def clear(self, pages: Int[Tensor, " P"]) -> None:
        for part in self.parts:
            part.view(-1, self.tokens, *part.shape[1:])[pages] = 0

    def write(self, slots: Int[Tensor, "T R"], new: Parts) -> None:
        for part, fresh in zip(self.parts, new, strict=True):
            part.index_copy_(0, slots.flatten(), fresh.detach().flatten(0, 1))

    def read(self, slots: Int[Tensor, "K R"]) -> Parts:
        return tuple(part.index_select(0, slots.flatten()).unflatten(0, tuple(slots.shape)) for part in self.parts)


class PagedLayout(MemoryLayout):
    """Page table of a batch's rows. Its pages return to the pool when the state is deleted.

    It does not carry gradients.
    """

    def __init__(self, pool: PagePool, *, private: bool):
        self.pool, self.private = pool, private
        self.table: Tensor | None = None  # (R, P)
        self.columns = torch.zeros(0, dtype=torch.int64)  # (K,): index of each cached token in its row's pages
        self.end = 0  # index of the next token

    def extend(self, new: Parts, retained: Tensor | None) -> Parts:
        n, device, (T, R, *_) = self.pool.tokens, new[0].device, new[0].shape
        table = (
            self.copy_shared_last_page(new)
            if self.table is not None
            else torch.zeros(R, 0, dtype=torch.int64, device=device)
        )
        missing = -(-(self.end + T) // n) - table.shape[1]
        self.table = torch.cat([table, self.pool.allocate(R * missing, new).view(R, missing)], dim=1)
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

    def copy_shared_last_page(self, like: Parts) -> Int[Tensor, "R P"]:
        """Copy the page to be written to wherever several rows share it; return the table."""
        table = self.table
        assert table is not None
        if self.end % self.pool.tokens == 0:
            return table
        last, counts = table[:, -1], self.pool.reference_counts
        order = last.argsort(stable=True)
        rows_here = torch.bincount(last, minlength=len(counts))
        first = torch.ones_like(last, dtype=torch.bool)
        first[order[1:]] = last[order[1:]] != last[order[:-1]]
        copying = (
            (~(first & (counts[last] == rows_here[last]))).nonzero().squeeze(1)
        )  # one of its rows may keep the page
        if len(copying):
            pages = last[copying]
            fresh = self.pool.allocate(len(copying), like)
            self.pool.copy(pages, fresh)
            self.pool.update_counts(fresh[:0], pages)
            table[copying, -1] = fresh
        return table

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        """Drop all columns except ``retained``, and the pages that hold none of them."""
        self.columns = self.columns[retained]
        self.keep_pages(torch.cat([self.columns // self.pool.tokens, self.columns.new_tensor(self.partial_page())]))

    def partial_page(self) -> list[int]:
        """Return the index of the page that is partly filled, if there is one."""
        return [self.end // self.pool.tokens] if self.end % self.pool.tokens else []

    def keep_pages(self, chosen: Int[Tensor, " P"]) -> None:
        if self.table is None:
            return
        n, chosen = self.pool.tokens, chosen.unique()  # in ascending order
        table = self.table[:, chosen]
        self.pool.update_counts(table, self.table)
        moved = torch.zeros(self.table.shape[1] + 1, dtype=torch.int64, device=chosen.device)
        moved[chosen] = torch.arange(len(chosen), device=chosen.device)
        self.columns = moved[self.columns // n] * n + self.columns % n
        self.end = (len(chosen) - 1) * n + self.end % n if self.end % n else len(chosen) * n
        self.table = table

    def reorder(self, rows: Tensor) -> None:
        if self.table is not None:
            table = self.table.index_select(0, rows)
            self.pool.update_counts(table, self.table)
            self.table = table

    def join(self, other: MemoryLayout) -> None:
        """Append the rows of ``other``: one shared page of zeros pads the shorter side, and the columns of ``other``
        are aligned with these."""
        assert isinstance(other, PagedLayout)
        assert self.table is not None and other.table is not None
        new = other.pool.read(other.slots(other.columns, other.table))
        self.pad(len(other.columns) - len(self.columns), new)
        last, n = self.columns[len(self.columns) - len(other.columns) :], self.pool.tokens
        start = int(last[0]) if len(last) else self.end  # a window of one token keeps no columns
        R, before, P = len(other.table), start // n, self.table.shape[1]
        fresh = self.pool.allocate(R * (P - before), new)
        self.pool.clear(fresh)
        table = torch.cat([self.zero_pages(R, before, new), fresh.view(R, P - before)], dim=1)
        self.pool.write(self.slots(last, table), new)
        self.table = torch.cat([self.table, table])

    def pad(self, columns: int, like: Parts) -> None:
        """Insert ``columns`` columns of zeros in front."""
        if columns > 0 and self.table is not None:
            n = self.pool.tokens
            pages = -(-columns // n)
            self.table = torch.cat([self.zero_pages(len(self.table), pages, like), self.table], dim=1)
            front = torch.arange(pages * n - columns, pages * n, device=self.columns.device)
            self.columns, self.end = torch.cat([front, self.columns + pages * n]), self.end + pages * n

    def zero_pages(self, rows: int, pages: int, like: Parts) -> Int[Tensor, "R P"]:
        """Return a table in which every entry is one shared page of zeros."""
        if not pages:
            return torch.zeros(rows, 0, dtype=torch.int64, device=like[0].device)
        page = self.pool.allocate(1, like)
        self.pool.clear(page)
        table = page.expand(rows, pages)
        self.pool.update_counts(table, page)
        return table

    def rewind(self, tokens: int) -> None:
        kept = len(self.columns) - tokens
        self.columns, self.end = self.columns[:kept], self.end - tokens
        pages = -(-self.end // self.pool.tokens)
        self.keep_pages(torch.arange(pages, device=self.columns.device))

    def __del__(self) -> None:
        if self.table is not None and not self.private:
            self.pool.update_counts(self.table[:0], self.table)

    @property
    def nbytes(self) -> int:
        if self.table is None:
            return self.pool.nbytes if self.private else 0
        own = self.pool.nbytes if self.private else len(self.table.unique()) * self.pool.page_nbytes
        return own + self.table.nbytes + self.columns.nbytes
