"""Kernels of our own say what PyTorch says; a row's answer is its own, to the bit; without kernels PyTorch runs."""

import copy
import ctypes
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from variants import VARIANTS, V, batch, build

from dragoman.config import from_dict
from dragoman.decode.precision import fastest_number_format, prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.errors import DataError
from dragoman.model.caches.cache import parse_cache
from dragoman.model.inference.known import check_known
from dragoman.model.inference.layouts import Int8Linear, Panels, panels
from dragoman.model.inference.native import NativeTransformer
from dragoman.model.inference.packed import pack
from dragoman.model.inference.slots import Slots
from dragoman.model.positions.tokens import Tokens
from dragoman.model.transformer import TransformerConfig
from dragoman.native import library as native
from dragoman.presets import PRESETS
from dragoman.text import fetch

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernels: {native.unavailable()}")
CLOSE = {"float32": 2e-5, "bfloat16": 0.1, "int8": 0.25}


def in_float32(*which):
    return copy.deepcopy(build(*which)).float()


def native_of(plain, numbers="float32"):
    packed = copy.deepcopy(plain)
    pack(packed, panels(numbers))
    return NativeTransformer(packed)


def apart(got, wanted):
    return float((got - wanted).abs().max() / wanted.abs().max())


# ---- products --------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", CLOSE)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (3, 37, 70), (13, 64, 32), (64, 129, 33)])
@torch.no_grad()
def test_panels_multiply_as_pytorch_does(numbers, rows, inputs, outputs):
    parts = [nn.Linear(inputs, outputs), nn.Linear(inputs, 5, bias=False)]
    x = torch.randn(rows, 2, inputs)
    wanted = torch.cat([part(x) for part in parts], dim=-1)
    assert apart(Panels(parts, numbers)(x), wanted) <= {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.05}[numbers]


@pytest.mark.parametrize("numbers", ["float32", "bfloat16", "int8"])
def test_no_rows_give_none(numbers):
    assert Panels([nn.Linear(16, 32)], numbers)(torch.randn(0, 16)).shape == (0, 32)


@pytest.mark.parametrize("numbers", CLOSE)
def test_a_row_does_not_depend_on_the_rows_beside_it_to_the_bit(numbers):
    layer, x = Panels([nn.Linear(300, 100)], numbers), torch.randn(500, 300)
    together = layer(x)
    for i, some in enumerate(x.split([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 409])):
        start = i * (i + 1) // 2
        assert torch.equal(layer(some), together[start : start + len(some)])


def test_whole_numbers_are_those_of_pytorch():
    parts, x = [nn.Linear(40, 24), nn.Linear(40, 9)], torch.randn(20, 40) * torch.logspace(-6, 6, 20)[:, None]
    torch.testing.assert_close(Panels(parts, "int8")(x), Int8Linear(parts)(x), rtol=1e-6, atol=1e-6)


def test_a_copy_of_a_layer_has_weights_of_its_own():
    layer, x = Panels([nn.Linear(8, 4)]), torch.randn(2, 8)
    before = layer(x)
    other = copy.deepcopy(layer)
    layer.weight.zero_()
    assert torch.equal(other(x), before) and not torch.equal(layer(x), before)


# ---- whole steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["encoder-decoder", "decoder-only"])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_a_step_is_what_pytorch_makes_of_it_whether_the_kernels_know_the_model_or_not(name, shape, caplog):
    plain = in_float32(name, shape)
    target, source = batch(plain, 3, 6, 5)
    with caplog.at_level(logging.INFO):
        ready = prepare_for_inference(copy.deepcopy(plain), "cpu", "float32")
    known = type(ready) is NativeTransformer
    assert ("by kernels of our own" if known else "steps by PyTorch, for ") in caplog.text
    for numbers, most in CLOSE.items() if known else [("float32", CLOSE["float32"])]:
        model = native_of(plain, numbers) if known else ready
        state, slow = model.start(source), plain.start(source)
        assert isinstance(state, Slots) == known
        for tokens in target.split([1, 1, 2, 2], dim=1):
            got, wanted = model.decode(tokens, state), plain.decode(tokens, slow)
            keep = (tokens != 0) | (tokens.shape[1] == 1)
            assert apart(got[keep], wanted[keep]) < most, (numbers, state.length)


MOST_USED = ("transformer-small", "transformer-2026", "lm-small", "lm-small-2019", "llama-3.2-1b", "marian")


@pytest.mark.parametrize("preset", MOST_USED)
def test_models_of_plain_attention_are_known(preset):
    check_known(from_dict(TransformerConfig, PRESETS[preset]()["model"]), "model")


# ---- searches: rows that part, leave, and are taken back ---------------------------------------------


def rows_of(count, longest=9):
    rows = torch.randint(3, V, (count, longest))
    for i, row in enumerate(rows):
        row[2 + i % (longest - 1) :] = 0
    return rows


@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=4, nbest=4)], ids=["greedy", "beam"])
@pytest.mark.parametrize("name", ["plain", "rotary, gqa, qk norm", "sinusoidal"])
def test_a_search_finds_what_it_finds_by_pytorch(name, cfg):
    plain, source = in_float32(name), rows_of(20)
    for wanted, got in zip(search(plain, source, cfg), search(native_of(plain), source, cfg), strict=True):
        assert [h.tokens for h in got] == [h.tokens for h in wanted]


@pytest.mark.parametrize("numbers", CLOSE)
def test_an_answer_is_the_same_alone_in_a_batch_and_with_padding_to_the_bit(numbers):
    model, source, cfg = native_of(in_float32("plain"), numbers), rows_of(12), Beam(size=3, nbest=3)
    together = search(model, torch.nn.functional.pad(source, (0, 7)), cfg)
    for row, wanted in zip(source, together, strict=True):
        (alone,) = search(model, row[None, : int((row != 0).sum())], cfg)
        assert alone == wanted


def test_slots_that_no_row_knows_are_used_again():
    model, tokens = native_of(in_float32("plain", "decoder-only")), torch.randint(3, V, (4, 1))
    state = model.start(None)
    for step in range(100):
        model.decode(tokens, state)
        if step == 20:
            state.select(torch.tensor([2]))
            tokens = tokens[2:3]
    whole = model.start(None)
    wanted = model.decode(tokens.expand(1, 101), whole)[:, -1]
    assert state.pool.slots <= 256
    assert torch.equal(model.decode(tokens, state)[:, -1], wanted)


def test_states_that_join_go_on_as_if_they_had_been_one():
    model, source = native_of(in_float32("rotary")), rows_of(5)
    first, second = model.start(source[:3]), model.start(source[3:])
    a, b, c = torch.randint(3, V, (3, 1)), torch.randint(3, V, (3, 1)), torch.randint(3, V, (2, 1))
    apart_first, apart_second = model.start(source[:3]), model.start(source[3:])
    model.decode(a, first), model.decode(a, apart_first)
    model.decode(b, first), model.decode(b, apart_first)
    model.decode(c, second), model.decode(c, apart_second)
    first.join(second)
    got = model.decode(torch.cat([a, c]), first)
    assert torch.equal(got, torch.cat([model.decode(a, apart_first), model.decode(c, apart_second)]))
    first.select(torch.tensor([4, 0]))
    apart_second.select(torch.tensor([1]))
    assert torch.equal(model.decode(c, first)[:1], model.decode(c[:1], apart_second))


@torch.no_grad()
def test_who_joins_may_have_seen_more_than_there_is_room_for():
    model, source = native_of(in_float32("plain")), rows_of(2)
    young, old, alone = model.start(source[:1]), model.start(source[1:]), model.start(source[1:])
    text = torch.randint(3, V, (1, 70))
    model.decode(text[:, :1], young)
    for token in text[:, :32].split(1, dim=1):
        model.decode(token, old), model.decode(token, alone)
    young.join(old)
    for token in text[:, 32:].split(1, dim=1):
        got = model.decode(token.expand(2, 1), young)
        assert torch.equal(got[1:], model.decode(token, alone))
    assert young.length == 70


def test_tokens_are_taken_back():
    model = native_of(in_float32("rotary", "decoder-only"))
    state, straight = model.start(None), model.start(None)
    state.allow_rewind(3)
    text = torch.randint(3, V, (2, 6))
    model.decode(Tokens(text[:, :2]), state)
    model.decode(Tokens(text[:, :3], torch.tensor([[True] * 3, [False, True, True]])), state)
    state.rewind(3)
    model.decode(Tokens(text[:, :2]), state)  # fewer than may be taken back
    state.rewind(2)
    got = model.decode(Tokens(text[:, 2:]), state)
    assert torch.equal(got, model.decode(Tokens(text), straight)[:, 2:])


def test_a_prompt_padded_in_front_is_read_as_without_padding():
    model = native_of(in_float32("rotary", "decoder-only"))
    ids = torch.randint(3, V, (1, 5))
    padded = Tokens(torch.nn.functional.pad(ids, (2, 0)), torch.tensor([[False] * 2 + [True] * 5]))
    assert torch.equal(model.decode(padded, model.start(None))[:, 2:], model.decode(Tokens(ids), model.start(None)))


def test_a_text_longer_than_learned_positions_is_an_error():
    model = native_of(in_float32("learned", "decoder-only"))
    state = model.start(None)
    model.decode(Tokens(torch.full((1, 24), 3)), state)
    with pytest.raises(DataError, match="25 tokens"):
        model.decode(torch.tensor([[3]]), state)


def test_who_asks_for_another_cache_or_listens_gets_pytorch():
    model, source = native_of(in_float32("plain")), rows_of(2)
    assert not isinstance(model.start(source, parse_cache("growing")), Slots)
    hook = model.decoder.blocks[0].cross.weights.register_forward_hook(lambda *_: None)
    assert not isinstance(model.start(source), Slots)
    hook.remove()
    assert isinstance(model.start(source), Slots)


def test_everything_held_is_counted():
    model = native_of(in_float32("plain"))
    state = model.start(rows_of(2))
    model.decode(torch.tensor([[3], [4]]), state)
    assert state.nbytes >= sum(layer.nbytes for layer in (*state.pool.layers, *state.source.layers))


# ---- where there are none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "why"),
    [({native.SWITCH: "off"}, "DRAGOMAN_KERNELS is off"), ({"PATH": "", "CC": ""}, "there is no C compiler")],
)
def test_without_kernels_it_is_said_why(environment, why):
    code = "from dragoman.native.library import unavailable; print(unavailable())"
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == why


def test_a_compiler_that_fails_is_an_answer(tmp_path, monkeypatch):
    bad = tmp_path / "cc"
    bad.write_text("#!/bin/sh\necho 'x.c:1: error: no such thing' >&2\nexit 1\n")
    bad.chmod(0o755)
    monkeypatch.setenv("CC", str(bad))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(native.Unavailable, match=r"cannot build them: x\.c:1: error: no such thing"):
        native._compiled.__wrapped__()
    assert not list((tmp_path / "dragoman").iterdir())


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"DRAGOMAN_CACHE": "a", "XDG_CACHE_HOME": "b"}, "a"),
        ({"XDG_CACHE_HOME": "b"}, "b/dragoman"),
        ({"DRAGOMAN_CACHE": "", "XDG_CACHE_HOME": ""}, "home/.cache/dragoman"),
    ],
)
def test_one_folder_keeps_choices_and_wheels_wherever_the_environment_puts_it(given, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "home")
    for name in ("DRAGOMAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, given.get(name, ""))
    monkeypatch.setattr(fetch, "_pip_download", lambda requirement, to: (to.mkdir(), (to / "a.whl").write_bytes(b"")))
    native.cached_choice("precision", lambda: "float32")
    assert fetch.fetch_wheel("pypi:a==1.0") == Path(folder) / "wheels" / "a-1.0" / "a.whl"
    assert (tmp_path / folder / native.CHOICES).exists()


def test_numbers_are_chosen_by_measurement(caplog):
    fastest_number_format.cache_clear()
    with caplog.at_level(logging.INFO):
        assert fastest_number_format() in ("float32", "bfloat16")
    if native.library().multiplies_bfloat16:
        assert "of float32's time for one row" in caplog.text


def structures(cls=ctypes.Structure):
    for found in cls.__subclasses__():
        yield from structures(found)
        if found.__module__.startswith("dragoman."):
            yield found


def test_a_structure_that_goes_to_c_takes_no_other_names_than_its_fields():
    found = list(structures())
    assert len(found) >= 10
    for cls in found:
        with pytest.raises(AttributeError):
            cls().no_such_field = 1


@pytest.mark.parametrize("variant", ["sinusoidal", "rotary"])
def test_a_thread_reads_no_table_of_positions_that_another_is_still_making(variant, monkeypatch):
    """Addresses of the tables that each of two threads may read from once they have reached a length."""
    tower = native_of(in_float32(variant)).native_decoder
    make, making, go_on = tower.pointer, threading.Event(), threading.Event()

    def slow(values):
        making.set()
        assert go_on.wait(20)
        return make(values)

    def extend(found):
        tower.ensure_positions(100)
        found.append((tower.struct.positions, [block.self.cos_sin for block in tower.blocks]))

    monkeypatch.setattr(tower, "pointer", slow)
    first, second = [], []
    threads = [threading.Thread(target=extend, args=(found,)) for found in (first, second)]
    threads[0].start()
    assert making.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert first == second and len(first) == 1
