"""Positions: whether order makes a difference, where it enters, and how loud it is.

B rows, T positions, D width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.blocks import BlockCall, find_blocks
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import by_position, name_of
from dragoman.inspect.doctor.subject import ExaminedModel

SURE = 10
"""Positions that attention weighs a little, as those of an untrained DeBERTa, change less than other answers may."""
RELATIVE_CAUSE = "no positions: none are added, or what is added is the same everywhere"


class PositionsIgnored(DoctorCheck[ExaminedModel]):
    """Models to which the order of tokens makes no difference."""

    name = "positions ignored"
    asks = "Does the order of tokens make a difference?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        need_precision(subject)
        if subject.batch.is_image:
            yield from self._image(subject)
            return
        if subject.batch.length is None or subject.batch.length < 4:
            raise NotApplicable("the batch has fewer than four positions")
        if subject.batch.causal:
            yield from self._causal(subject)
            return
        order = _shuffle(subject.batch.length)
        found = subject.difference(_expected(subject, order), subject.answer(_reordered(subject, order)))
        if found <= subject.tolerance / SURE:
            ids = subject.batch.is_ids
            if subject.answers_positions and not _mixes(subject):
                raise NotApplicable("no output depends on another token")
            yield self.finding(
                Severity.error if ids else Severity.note,
                "the order of tokens makes no difference",
                evidence=f"with its tokens in another order, the outputs are the same up to {found:.1e} of their size",
                numbers={"difference": found},
                cause=RELATIVE_CAUSE,
                remedy="add position embeddings to the token embeddings, or relative positions in attention"
                if ids
                else "it reads vectors: add positions to them before it",
                where="(model)",
            )

    def _causal(self, subject: ExaminedModel) -> Iterator[Finding]:
        """Ask each block whether its last output depends on the order of what comes before."""
        blocks = [call for calls in find_blocks(subject) for call in calls]
        attends = [call for call in blocks if _at(subject, call.x) is not None]
        if not attends:
            raise NotApplicable("its layers have no positions of the tokens")
        if all(_is_blind(subject, call) for call in attends) and not _enters(subject):
            yield self.finding(
                _weight(subject, attends),
                "no layer sees the order of tokens",
                evidence=f"in each of {len(attends)} layers the last output stays the same when the vectors before it "
                "change places, and equal tokens have equal outputs at every position",
                numbers={"layers": len(attends)},
                cause=RELATIVE_CAUSE,
                remedy="add position embeddings or relative positions; the causal mask alone tells deep models some of "
                "the order (Haviv et al., arXiv:2203.16634), shallow ones none",
                where=attends[0].name.rpartition(".")[0] or "(model)",
            )

    def _image(self, subject: ExaminedModel) -> Iterator[Finding]:
        patch = next(
            (
                m.kernel_size
                for m in subject.model.modules()
                if isinstance(m, nn.Conv2d) and m.kernel_size == m.stride and m.kernel_size[0] > 1
            ),
            None,
        )
        if patch is None:
            raise NotApplicable("it reads images, and not in patches")
        height, width = map(int, patch)
        x = subject.batch.value
        rows, columns = x.shape[2] // height, x.shape[3] // width
        parts = x.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5)
        moved = parts.flatten(1, 2)[:, torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0))]
        back = moved.unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        found = subject.difference(subject.clean, subject.answer(subject.batch.with_tokens(back)))
        if found <= subject.tolerance:
            yield self.finding(
                Severity.error,
                "the order of patches makes no difference",
                evidence=f"with its patches in another order, the outputs are the same up to {found:.1e} of their size",
                numbers={"difference": found},
                cause=RELATIVE_CAUSE,
                remedy="add position embeddings to the patch embeddings",
                where="(model)",
            )


def need_precision(subject: ExaminedModel) -> None:
    """Check that equal outputs can be told from rounding.

    Raises:
        NotApplicable: the model runs in half precision.
    """
    if subject.clean.dtype in (torch.bfloat16, torch.float16):
        raise NotApplicable("half precision is too coarse to tell that outputs are equal: examine it in float32")


def _mixes(subject: ExaminedModel) -> bool:
    """Return whether an output depends on a token elsewhere."""
    value, dim = subject.batch.value.clone(), 1 - subject.batch.batch_dim
    value.narrow(dim, 0, 1).copy_(subject.other_tokens().narrow(dim, 0, 1))
    return subject.differs(subject.clean[:, 1:], subject.answer(subject.batch.with_tokens(value))[:, 1:])


def _weight(subject: ExaminedModel, layers: list[BlockCall]) -> Severity:
    """Return how grave it is that no layer of a causal model sees order: vectors may come with their positions."""
    if not subject.batch.is_ids:
        return Severity.note
    return Severity.error if len(layers) == 1 else Severity.warning


def _shuffle(length: int) -> list[int]:
    """Return an order without a fixed point."""
    return [*range(1, length, 2), *range(0, length, 2)][::-1]


def _reordered(subject: ExaminedModel, order: list[int]):
    value = subject.batch.value
    dim = 1 - subject.batch.batch_dim
    return subject.batch.with_tokens(value.index_select(dim, torch.tensor(order, device=value.device)))


def _expected(subject: ExaminedModel, order: list[int]) -> Tensor:
    """Return the outputs that a model blind to order gives."""
    return subject.clean[:, order] if subject.answers_positions else subject.clean


def _at(subject: ExaminedModel, x: Tensor) -> Tensor | None:
    if x.ndim != 3 or subject.batch.length is None:
        return None
    return by_position(x, subject.batch.rows, subject.batch.length)


@torch.no_grad()
def _is_blind(subject: ExaminedModel, call: BlockCall) -> bool:
    """Return whether a block's last output stays the same when what comes before changes places."""
    x = _at(subject, call.x)
    assert x is not None
    dim = 1 if x.shape == call.x.shape and call.x.shape[1] == subject.batch.length else 0
    length = call.x.shape[dim]
    order = torch.tensor([*_shuffle(length - 1), length - 1], device=call.x.device)
    try:
        moved = call.replay(call.x.index_select(dim, order))
    except Exception:  # the block cannot be run by itself
        return False
    return not subject.differs(call.y.select(dim, length - 1), moved.select(dim, length - 1))


def _constant(subject: ExaminedModel):
    """Return the batch with the same token at every position, in every row."""
    value, dim = subject.batch.value, 1 - subject.batch.batch_dim
    return subject.batch.with_tokens(value.narrow(dim, 0, 1).expand_as(value).contiguous())


def _entry(subject: ExaminedModel) -> tuple[str, int] | None:
    """Return the first module, and its number in time, whose values differ between positions of equal tokens."""
    events = subject.trace(_constant(subject))
    for number, event in enumerate(events):
        for value in event.values:
            x = _at(subject, value)
            if x is not None and subject.difference(x[:, :1].expand_as(x), x) > max(subject.tolerance, 1e-4):
                return (event.caller if event.entering else event.name), number
    return None


def _enters(subject: ExaminedModel) -> bool:
    return _entry(subject) is not None


class PositionsMisplaced(DoctorCheck[ExaminedModel]):
    """Positions that enter after the layers that need them, or that drown the tokens."""

    name = "positions misplaced"
    asks = "Do positions enter before the first layer, and no louder than the tokens?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if not subject.batch.is_ids or (subject.batch.length or 0) < 4 or subject.batch.source is not None:
            raise NotApplicable("it asks for a model of one sequence of ids")
        need_precision(subject)
        entry = _entry(subject)
        if entry is None:
            raise NotApplicable("positions are relative, or there are none")
        blocks = find_blocks(subject)[0]
        known = [call for call in blocks if _at(subject, call.x) is not None]
        if not known or not all(_is_blind(subject, call) for call in known):
            raise NotApplicable("its layers see the order by themselves")
        yield from self._late(subject, entry, known)
        yield from self._loud(subject, known[0])

    def _late(self, subject: ExaminedModel, entry: tuple[str, int], blocks: list[BlockCall]) -> Iterator[Finding]:
        events = subject.trace(_constant(subject))
        first = next(i for i, e in enumerate(events) if e.name == blocks[0].name and e.entering)
        last = max(i for i, e in enumerate(events) if e.name == blocks[-1].name and not e.entering)
        if entry[1] <= first:
            return
        late = entry[1] > last
        yield self.finding(
            Severity.error if late else Severity.warning,
            "positions enter after the layers" if late else "positions enter inside the layers",
            evidence="equal tokens have equal vectors at every position until "
            f"{name_of(entry[0])}; {'all' if late else 'none'} of {len(blocks)} layers ran before",
            numbers={"layers": len(blocks)},
            cause="positions are added after the layers or after a norm instead of to the embeddings",
            remedy="add them to the token embeddings, before the first layer",
            where=name_of(entry[0]),
        )

    def _loud(self, subject: ExaminedModel, block: BlockCall) -> Iterator[Finding]:
        """Compare how much the first layer's input varies over positions and over tokens."""
        x = _at(subject, _input_of(subject, block, _constant(subject)))
        y = _at(subject, block.x)
        if x is None or y is None or len(subject.batch.value.unique()) < 3:
            return
        positions = float((x - x.mean(dim=1, keepdim=True)).float().square().mean().sqrt())
        whole = float((y - y.mean(dim=(0, 1), keepdim=True)).float().square().mean())
        tokens = max(whole - positions**2, 1e-12) ** 0.5
        ratio = positions / tokens
        if ratio > 8:
            yield self.finding(
                Severity.warning,
                "positions are far louder than tokens",
                evidence=f"in the first layer's input positions vary {ratio:.0f} times as much as tokens",
                numbers={"ratio": ratio},
                cause="sinusoids of size 1 are added to embeddings of size 1/sqrt(D) or less",
                remedy="multiply the embeddings by sqrt(D) (Vaswani et al. 2017, section 3.4), or learn positions",
                where=block.name.rpartition(".")[0] or "(model)",
            )


def _input_of(subject: ExaminedModel, block: BlockCall, batch) -> Tensor:
    for event in subject.trace(batch):
        if event.name == block.name and event.entering:
            return next(v for v in event.values if v.shape == block.x.shape)
    return block.x
