"""A matrix unit, emulated: its products are those of vectors in int8, those of Intel's manual in bfloat16."""

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from variants import batch, build

from dragoman.decode import precision
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.errors import ConfigError
from dragoman.model.inference.layouts import Panels
from dragoman.native import library as native

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernels: {native.unavailable()}")
SHAPES = [(1, 1, 1), (2, 3, 16), (15, 63, 31), (16, 64, 32), (17, 65, 33), (33, 130, 70), (241, 300, 290), (500, 40, 9)]
"""Rows, inputs and outputs: parts of a tile, whole ones and several."""


@pytest.fixture(scope="module")
def emulated():
    """The library whose matrix unit is emulated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.SWITCH, "emulated")
        library = native._compiled.__wrapped__()
    assert library.uses_matrix_unit, "it multiplies as it should"
    return library


@pytest.fixture
def tiles(emulated):
    """Let all products be those of the emulated unit, those in int8 from one row on."""
    emulated.use_int8_tiles_from(1)
    with native.standing_in(emulated):
        yield emulated


def layer(inputs, outputs, numbers):
    torch.manual_seed(inputs)
    return Panels([nn.Linear(inputs, outputs)], numbers)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_whole_numbers_are_those_of_vectors_to_the_bit(emulated, rows, inputs, outputs):
    product, x = layer(inputs, outputs, "int8"), torch.randn(rows, inputs)
    if rows > 2:
        x[1, 0] = torch.nan
    with native.standing_in(emulated):
        emulated.use_int8_tiles_from(1)
        in_tiles = product(x)
        emulated.use_int8_tiles_from(rows + 1)
        in_vectors = product(x)
    torch.testing.assert_close(in_tiles, in_vectors, rtol=0, atol=0, equal_nan=True)


def of_manual(x, w, bias):
    """TDPBF16PS (Intel's manual, volume 2): within a tile of 32 inputs the sums of even and of odd ones are apart.

    A product of two bfloat16 is exact in float64, so that adding it rounds as a fused addition does, but for a rounding
    to float64 first, which changes one sum of some hundred million.
    """
    total = np.zeros((len(x), len(w)), dtype=np.float32)
    for start in range(0, x.shape[1], 32):
        part = np.zeros((2, *total.shape), dtype=np.float32)
        for k in range(start, min(start + 32, x.shape[1])):
            product = x[:, k, None].astype(np.float64) * w[None, :, k].astype(np.float64)
            part[k % 2] = (part[k % 2].astype(np.float64) + product).astype(np.float32)
        total += part[0] + part[1]
    return total + bias


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_products_in_bfloat16_are_those_of_the_manual_to_the_bit(tiles, rows, inputs, outputs):
    torch.manual_seed(rows)
    linear, x = nn.Linear(inputs, outputs), torch.randn(rows, inputs)
    got = Panels([linear], "bfloat16")(x)
    numbers, weight = (t.detach().bfloat16().float().numpy() for t in (x, linear.weight))
    np.testing.assert_array_equal(got.numpy(), of_manual(numbers, weight, linear.bias.detach().numpy()))


@pytest.mark.parametrize("numbers", ["bfloat16", "int8"])
def test_a_row_does_not_depend_on_the_rows_beside_it_to_the_bit(tiles, numbers):
    product, x = layer(150, 100, numbers), torch.randn(300, 150)
    together = product(x)
    for start, some in zip((0, 1, 3, 18, 34, 51), x.split([1, 2, 15, 16, 17, 249]), strict=True):
        assert torch.equal(product(some), together[start : start + len(some)])


@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=3)], ids=["greedy", "beam"])
@torch.no_grad()
def test_translations_in_int8_are_those_of_vectors_to_the_bit(emulated, cfg):
    plain = copy.deepcopy(build("plain", "encoder-decoder")).float()
    source = batch(plain, 5, 6, 9)[1]
    assert source is not None

    def translations():
        return search(prepare_for_inference(copy.deepcopy(plain), "cpu", "int8"), source, cfg)

    wanted = translations()
    with native.standing_in(emulated), pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "remembered_int8_rows", lambda: "1")
        assert translations() == wanted


def test_rows_are_chosen_by_measurement(tiles, monkeypatch):
    """Up to four rows vectors are faster here, and tiles from there on."""
    first = []
    monkeypatch.setattr(tiles, "use_int8_tiles_from", first.append)
    monkeypatch.setattr(
        precision, "seconds_of_product", lambda numbers, rows: 1.0 if first[-1] > 1 else 0.5 if rows > 4 else 2.0
    )
    assert precision.fastest_int8_rows() == "5"
    monkeypatch.setattr(precision, "cached_choice", lambda name, measure: "somebody wrote this")
    assert precision.remembered_int8_rows() == "5"


def test_what_is_not_known_is_refused(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "of")
    with pytest.raises(ConfigError, match="DRAGOMAN_KERNELS: there is no 'of': choose from on, off, vectors, "):
        native._compiled.__wrapped__()


def test_a_unit_that_is_asked_for_and_missing_is_refused(monkeypatch):
    monkeypatch.setattr(native, "Library", lambda path: SimpleNamespace(uses_matrix_unit=False))
    monkeypatch.setenv(native.SWITCH, "matrix-unit")
    with pytest.raises(ConfigError, match="no matrix unit that the kernels can use"):
        native._compiled.__wrapped__()


def test_a_unit_that_does_not_multiply_is_left_alone(monkeypatch, tmp_path, caplog):
    """As on a processor whose unit is there and may not be used; here the instructions themselves are missing."""
    if b" amx_tile" in native._processor():
        pytest.skip("this processor has one: nothing fails")
    built = []
    monkeypatch.setattr(native, "_build", lambda compiler, flags, to: built.append(flags))
    monkeypatch.setattr(native, "_multiplies", lambda path: False)
    native._build_tried("cc", (*native.FLAGS, native.AMX), tmp_path / "kernels.so")
    assert built == [(*native.FLAGS, native.AMX), native.FLAGS]


def test_a_process_that_the_unit_ends_is_an_answer(tmp_path):
    assert not native._multiplies(tmp_path / "missing.so")


@pytest.mark.skipif(b" amx_tile" not in native._processor(), reason="this processor has no matrix unit")
def test_the_real_unit_multiplies_as_the_emulated_one(emulated):
    code = "from dragoman.native.library import library; print(library().uses_matrix_unit)"
    said = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    if said.stdout.strip() != "True":
        pytest.skip("the kernel does not give it")
    for rows, inputs, outputs in SHAPES:
        for numbers in ("int8", "bfloat16"):
            product, x = layer(inputs, outputs, numbers), torch.randn(rows, inputs)
            real = product(x)
            with native.standing_in(emulated):
                assert torch.equal(product(x), real)
