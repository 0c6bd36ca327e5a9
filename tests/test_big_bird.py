"""BigBird: the published layer, and random blocks that are the same whatever comes beside or later."""

import pytest
import torch
from sparse_layers import mixed, plain, weights_of
from transformers import BigBirdConfig, BigBirdModel
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdSelfAttention
from variants import D, H, assert_equal

from dragoman.model.big_bird import BigBird
from dragoman.model.positions.position import NoPosition


def copied(theirs, **fields):
    ours = BigBird(heads=H, bias=True, causal=False, position=NoPosition(), **fields).build(D).double()
    for our, their in {"q": "query", "k": "key", "v": "value"}.items():
        getattr(ours, our).load_state_dict(getattr(theirs, their).state_dict())
    with torch.no_grad():
        ours.out.weight.copy_(torch.eye(D))
        ours.out.bias.zero_()
    return ours


def config(**fields):
    return BigBirdConfig(
        hidden_size=D, num_attention_heads=H, attention_probs_dropout_prob=0.0, use_bias=True, vocab_size=9, **fields
    )


@pytest.mark.parametrize("random_blocks", [1, 3])
def test_it_is_the_published_layer_for_the_same_random_blocks(random_blocks, monkeypatch):
    block, N = 2, 12
    cfg = config(block_size=block, num_random_blocks=random_blocks, attention_type="block_sparse")
    theirs = BigBirdBlockSparseAttention(cfg, seed=0).double().train()  # in evaluation it draws none
    ours = copied(theirs, block=block, window=2 * block, random_blocks=random_blocks)
    index, count = torch.arange(N)[None], torch.full((1, N), N)
    drawn = ours.visibility.random_choice(index, count, N)[0, 1:-1].numpy()
    assert (drawn >= 0).all()
    monkeypatch.setattr(theirs, "_bigbird_block_rand_mask_with_head", lambda **_: [drawn] * H)
    x = torch.randn(2, N * block, D, dtype=torch.float64)
    blocked, band, begin, end = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(2, N * block), block)
    wanted = theirs(
        x, band_mask=band, from_mask=begin, to_mask=end, from_blocked_mask=blocked, to_blocked_mask=blocked
    )[0]
    assert_equal(mixed(ours, x, plain(N * block)), wanted)


def test_a_window_over_all_is_their_full_attention():
    theirs = BigBirdSelfAttention(config(attention_type="original_full")).double().eval()
    ours, x = copied(theirs, block=4, window=16, random_blocks=0), torch.randn(2, 16, D, dtype=torch.float64)
    assert_equal(mixed(ours, x, plain(16)), theirs(x)[0])


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_a_block_sees_its_window_the_global_and_the_random_blocks(causal):
    cfg, N = BigBird(heads=H, block=3, window=6, random_blocks=2, causal=causal), 10
    seen = weights_of(cfg.build(D).double(), torch.randn(1, 3 * N, D, dtype=torch.float64), plain(3 * N))[0, 0] > 0
    ends = {0} if causal else {0, N - 1}
    for i in range(N):
        blocks = {j for j in range(N) if seen[3 * i + 2, 3 * j]}
        near = {j for j in range(N) if abs(i - j) < 2 and (j <= i or not causal)}
        if i in ends:
            assert blocks == {j for j in range(N) if j <= i or not causal}
            continue
        free = [j for j in range(N) if j not in near | ends and (j < i or not causal)]
        assert near | ends <= blocks and len(blocks - near - ends) == min(2, len(free))


def test_random_blocks_depend_on_the_seed_and_in_decoders_on_the_past_alone():
    def drawn(seed, blocks, causal):
        pattern = BigBird(heads=H, block=2, window=4, random_blocks=2, seed=seed, causal=causal).visibility
        return pattern.random_choice(torch.arange(blocks)[None], torch.full((1, blocks), blocks), blocks)[0].tolist()

    assert drawn(1, 30, True) == drawn(1, 30, True) != drawn(2, 30, True)
    assert [sorted(row) for row in drawn(1, 60, True)[:30]] == [sorted(row) for row in drawn(1, 30, True)]
    every = [j for row in drawn(0, 400, False) for j in row]
    counts = torch.bincount(torch.tensor(every), minlength=400)
    assert counts[1:-1].max() < 12  # spread over all blocks: two each on average
