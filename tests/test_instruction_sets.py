"""Products with the instructions of older processors: sums of 8-bit integers are exact, and the same with all."""

import pytest
import torch
from torch import nn

from dragoman.errors import ConfigError
from dragoman.model.inference.layouts import Int8Linear, Panels
from dragoman.native import library as native

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernels: {native.unavailable()}")
ROWS = (1, 2, 3, 4, 5, 6, 7, 13, 64, 241)
INPUTS = (1, 2, 3, 4, 31, 255, 256, 257, 511, 1000)
"""Whole words of four numbers and parts of one; whole parts of 256 that are converted together, and others."""


@pytest.fixture(scope="module", params=sorted(native.LEVELS))
def level(request):
    """The kernels of a level of instructions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.SWITCH, request.param)
        try:
            return native._compiled.__wrapped__()
        except ConfigError as missing:
            pytest.skip(f"{missing}")


def product(kernels, linear, x, numbers):
    with native.standing_in(kernels):
        return Panels([linear], numbers)(x)


@pytest.mark.parametrize("inputs", INPUTS)
def test_products_of_8_bits_are_those_of_pytorch_and_of_this_processor_to_the_bit(level, inputs):
    torch.manual_seed(inputs)
    linear, here = nn.Linear(inputs, 70, bias=False), native.library()
    for rows in ROWS:
        size = torch.logspace(-4, 4, rows)[:, None]
        x = torch.randn(rows, inputs) * size
        x[rows // 2, inputs // 2] = torch.nan if rows > 2 else 0
        got = product(level, linear, x, "int8")
        torch.testing.assert_close(got, product(here, linear, x, "int8"), rtol=0, atol=0, equal_nan=True)
        by_pytorch = Int8Linear([linear])(x)
        torch.testing.assert_close(got / size, by_pytorch / size, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("of_native", [False, True], ids=["level", "native"])
def test_the_largest_sums_of_8_bits_are_exact(level, of_native, inputs):
    """All codes are 127 or -127: pairs of products are the largest that 16 bits must hold."""
    torch.manual_seed(inputs)
    signs = torch.randint(0, 2, (3, inputs)) * 2.0 - 1
    x = torch.cat([signs, torch.ones(1, inputs), -torch.ones(1, inputs)])
    linear = nn.Linear(inputs, 5, bias=False)
    linear.weight.data = x.clone()
    got = product(native.library() if of_native else level, linear, x, "int8")
    torch.testing.assert_close(got, x @ x.T, rtol=1e-6, atol=0)


@pytest.mark.parametrize("inputs", INPUTS)
def test_products_in_bfloat16_are_those_of_rounded_numbers(level, inputs):
    torch.manual_seed(inputs)
    linear = nn.Linear(inputs, 70, bias=False)
    for rows in ROWS:
        x = torch.randn(rows, inputs)
        wanted = x.bfloat16().double() @ linear.weight.detach().bfloat16().double().T
        got = product(level, linear, x, "bfloat16")
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-6 * inputs**0.5 * float(wanted.abs().max()))


@pytest.mark.parametrize("numbers", ["float32", "bfloat16", "int8"])
def test_a_row_does_not_depend_on_the_rows_beside_it_to_the_bit(level, numbers):
    linear, x = nn.Linear(301, 100), torch.randn(400, 301)
    together, start = product(level, linear, x, numbers), 0
    for some in x.split([1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 60, 268]):
        assert torch.equal(product(level, linear, some, numbers), together[start : start + len(some)])
        start += len(some)


def test_a_level_that_this_processor_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(
        native, "_processor", lambda: b"model name : small\nflags : fpu abm avx avx2 bmi1 bmi2 f16c fma"
    )
    monkeypatch.setenv(native.SWITCH, "x86-64-v3")
    with pytest.raises(ConfigError, match="DRAGOMAN_KERNELS: this processor has no movbe, which x86-64-v3 needs"):
        native._compiled.__wrapped__()


def test_a_level_that_the_compiler_does_not_know_is_refused(monkeypatch):
    def fails(*_):
        raise native.Unavailable("cc cannot build them: error: bad value (x86-64-v3)")

    monkeypatch.setattr(
        native, "_processor", lambda: b"flags : " + b" ".join(n.encode() for n in native.LEVELS["x86-64-v4"])
    )
    monkeypatch.setattr(native, "_build_tried", fails)
    monkeypatch.setenv(native.SWITCH, "x86-64-v3")
    with pytest.raises(ConfigError, match=r"DRAGOMAN_KERNELS=x86-64-v3: cc cannot build them: .*since version 11"):
        native._compiled.__wrapped__()


def test_choices_of_other_kernels_are_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.cached_choice("precision", lambda: "bfloat16") == "bfloat16"
    monkeypatch.setenv(native.SWITCH, "x86-64-v3")
    assert native.cached_choice("precision", lambda: "float32") == "float32"
    monkeypatch.delenv(native.SWITCH)
    assert native.cached_choice("precision", lambda: "float32") == "bfloat16"
