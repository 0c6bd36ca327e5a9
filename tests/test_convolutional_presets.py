"""Presets of convolutional models: as large as the Transformers beside them, or as the papers' architectures count."""

import pytest
from test_presets import parameters


@pytest.mark.parametrize(
    "name, beside",
    [
        ("convs2s", "transformer-small"),
        ("bytenet", "transformer-small"),
        ("cnn-9", "transformer-small"),
        ("gated-cnn-lm-small", "lm-small"),
    ],
)
def test_a_small_model_has_the_parameters_of_the_transformer_beside_it(name, beside):
    assert parameters(name) == pytest.approx(parameters(beside), rel=0.02)


def normalized(inputs: int, outputs: int) -> int:
    """Weights, a gain and a bias for each output."""
    return inputs * outputs + 2 * outputs


def plain(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def test_convs2s_has_the_parameters_of_the_authors_architecture_for_english_to_german():
    E, V, out = 768, 40_000, 512
    widths = [(512, 3)] * 9 + [(1024, 3)] * 4 + [(2048, 1)] * 2  # fconv_wmt_en_de of fairseq

    def side(attends: bool, last: int) -> int:
        count, before = V * E + 1024 * E + normalized(E, 512), 512
        for channels, kernel in widths:
            count += normalized(kernel * before, 2 * channels)
            count += normalized(before, channels) if before != channels else 0
            count += normalized(channels, E) + normalized(E, channels) if attends else 0
            before = channels
        return count + normalized(before, last)

    wanted = side(attends=False, last=E) + side(attends=True, last=out) + plain(out, V)
    assert parameters("convs2s-wmt") == wanted
    assert 190e6 < wanted < 220e6


def test_bytenet_has_the_parameters_of_the_papers_blocks():
    d, D, V, blocks = 800, 1600, 300, 30
    norms = 2 * D + 2 * d + 2 * d
    block = norms + plain(D, d) + plain(3 * d, d) + plain(d, D)
    ends = 2 * V * D + 2 * (2 * D) + plain(D, D) + plain(D, V)
    assert parameters("bytenet-wmt") == 2 * blocks * block + ends
