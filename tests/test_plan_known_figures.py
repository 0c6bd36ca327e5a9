"""Figures that papers and write-ups state, each from the counter, the caches or the model; none is pasted output."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dragoman.config import from_dict, override, to_dict
from dragoman.data.batch import PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.model.caches.cache import Cache, Growing, parse_cache
from dragoman.model.caches.storage import KV
from dragoman.model.families import ModelConfig
from dragoman.model.masks.visibility import Causal
from dragoman.plan import envelope, shapes
from dragoman.plan.counting import CPU, count, on_shapes
from dragoman.plan.parameters import count_parameters
from dragoman.plan.serving import count_serving, weight_bytes
from dragoman.plan.synthetic import batch_for, task_for
from dragoman.plan.training import count_training
from dragoman.presets import PRESETS

LAYERS, WIDTH, HEADS, CONTEXT = 96, 12_288, 96, 2048
"""GPT-3 (Brown et al., arXiv:2005.14165, table 2.1)."""


def config(name):
    plain = PRESETS[name]()
    cfg = from_dict(ModelConfig, plain["model"])
    return cfg.sized(vocab=plain["tokenizer"]["vocab"])


def outline(name):
    with torch.device("meta"):
        return config(name).build()


def cached(heads, channels, tokens, *, texts=1, policy=None, dtype=torch.float16):
    """Bytes that one layer's cache says it holds."""
    state = (policy or Cache(layout=Growing())).new_state(Causal())
    with on_shapes(CPU):
        one = torch.empty(texts, heads, tokens, channels, dtype=dtype)
        state.extend(KV(one, one))
        return state.nbytes


# ---- weights ------------------------------------------------------------------------------------------


def test_gpt3_has_175_billion_parameters_which_are_350_gb_in_16_bits():
    model = outline("gpt3-175b")
    assert round(count_parameters(model).total / 1e8) == 1746  # "174,600M" in the paper's table D.1
    assert round(weight_bytes(model, "float16") / 1e9) == 349  # write-ups: 2 bytes x 175 billion, rounded, are 350
    assert 2 * 175_000_000_000 == 350_000_000_000


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-2-7b", 6.74),
        ("llama-2-13b", 13.02),
        ("llama-2-70b", 68.98),
        ("llama-3-8b", 8.03),
        ("llama-3-70b", 70.55),
    ],
)
def test_llama_has_the_parameters_of_its_model_cards(name, billions):
    assert round(count_parameters(outline(name)).total / 1e9, 2) == billions


def test_palm_has_540_billion_parameters():
    assert round(count_parameters(outline("palm")).total / 1e7) == round(540.36e9 / 1e7)


def test_mixtral_has_47_billion_parameters_of_which_a_token_passes_13():
    found = count_parameters(outline("mixtral-8x7b"))
    assert (round(found.total / 1e9), round(found.active / 1e9)) == (47, 13)


def test_base_and_big_of_2017_have_the_papers_parameters():
    assert [round(count_parameters(outline(name)).total / 1e6) for name in ("transformer-base", "transformer-big")] == [
        63,
        214,
    ]  # the paper's 65 and 213 round a vocabulary of "about 37000"


# ---- activations --------------------------------------------------------------------------------------


class GptLayer(nn.Module):
    """A layer of GPT in 16 bits as Korthikanti et al. (arXiv:2205.05198, section 4.1) describe it: attention stores
    its weights, and each dropout a mask of one byte for each element."""

    def __init__(self, h, a):
        super().__init__()
        self.a = a
        self.first, self.second = nn.LayerNorm(h), nn.LayerNorm(h)
        self.qkv, self.out = nn.Linear(h, 3 * h), nn.Linear(h, h)
        self.up, self.down = nn.Linear(h, 4 * h), nn.Linear(4 * h, h)

    def forward(self, x):
        b, s, h = x.shape
        heads = self.qkv(self.first(x)).view(b, s, 3, self.a, h // self.a).permute(2, 0, 3, 1, 4)
        q, k, v = (one.contiguous() for one in heads)  # as three products would give them
        weights = torch.native_dropout((q @ k.mT / (h // self.a) ** 0.5).softmax(-1), 0.1, True)[0]
        mixed = (weights @ v).transpose(1, 2).reshape(b, s, h)
        x = x + torch.native_dropout(self.out(mixed), 0.1, True)[0]
        return x + torch.native_dropout(self.down(F.gelu(self.up(self.second(x)))), 0.1, True)[0]


def saved_by_a_layer(b, s, h, a):
    """Bytes that the layer keeps for its backward pass, the means and deviations of its norms left out."""
    with torch.device("meta"):
        layer = GptLayer(h, a).to(torch.bfloat16)
    with on_shapes(CPU):
        shapes.without_values(layer, CPU)
        x = torch.empty(b, s, h, dtype=torch.bfloat16, requires_grad=True)

        def step():
            layer(x + 0).sum().backward()

        found = count(step, layer)
    kept = [made.nbytes for made in found.memory.allocations if made.kept]
    return sum(nbytes for nbytes in kept if nbytes > 4 * b * s)


def test_activations_of_gpt3_are_what_the_formula_says_and_what_a_layer_keeps():
    formula = envelope.LayerActivations(s=CONTEXT, b=1, h=WIDTH, a=HEADS).stored
    assert LAYERS * formula == 275_414_777_856
    assert saved_by_a_layer(1, CONTEXT, WIDTH, HEADS) == formula


@pytest.mark.parametrize("b", [64, 128])
def test_activations_grow_with_the_batch(b):
    assert LAYERS * envelope.LayerActivations(s=CONTEXT, b=b, h=WIDTH, a=HEADS).stored == b * 275_414_777_856
    assert saved_by_a_layer(b, 64, 128, 4) == b * saved_by_a_layer(1, 64, 128, 4)


def test_attention_over_ten_thousand_tokens_has_a_hundred_million_weights():
    with on_shapes(CPU):
        q = torch.empty(1, 1, 10_000, 64, requires_grad=True)
        found = count(lambda: (q @ q.mT).softmax(-1).sum().backward(), nn.Linear(1, 1))
    assert max(made.nbytes for made in found.memory.allocations) == 10**8 * 4


def test_18_attention_maps_of_the_base_model_take_nearly_5_gb():
    """Six layers of the encoder, six of the decoder and six across: 32 texts of 512 tokens, 8 heads, in float32, where
    attention is written out; PyTorch's and our kernels store none of them."""
    cfg, ids = config("transformer-base").sized(vocab=100), torch.full((32, 512), 7)
    written_out = override(to_dict(cfg), "*.pattern.*.*.scorer={kind: capped_dot, cap: 50.0}")
    one = 32 * 8 * 512 * 512 * 4
    maps = {}
    for name, model in (("written out", from_dict(ModelConfig, written_out)), ("fused", cfg)):
        with torch.device("meta"):
            built = model.build()
        found = count_training(built, TranslationTask().loss, [PairBatch(ids, ids, ids)], device=torch.device("cuda"))
        maps[name] = [op for op in found.counted.operations if "softmax" in op.name and (32, 8, 512, 512) in op.shapes]
    stored = sum(op.calls for op in maps["written out"] if not op.backward)
    assert stored * one == 18 * one == 4_831_838_208
    assert not maps["fused"]


# ---- caches -------------------------------------------------------------------------------------------


def test_the_cache_of_gpt3_for_64_texts():
    s, n = 512, 32
    found = LAYERS * cached(HEADS, WIDTH // HEADS, s + n, texts=64)
    assert found == 4 * 64 * LAYERS * WIDTH * (s + n) == 164_282_499_072
    assert found == envelope.cache_bytes(layers=LAYERS, kv_heads=HEADS, channels=128, tokens=s + n, texts=64)


def test_a_token_has_8192_numbers_in_a_layers_cache_and_32_times_fewer_with_one_key_head():
    assert cached(32, 128, 1) // 2 == 8192
    assert cached(32, 128, 1) == 32 * cached(1, 128, 1)


@pytest.mark.parametrize(("dtype", "nbytes"), [(torch.float16, 1_073_741_824), (torch.float32, 2_147_483_648)])
def test_the_cache_of_a_7b_model_at_2048_tokens(dtype, nbytes):
    block = config("llama-2-7b").decoder.pattern[0].mixer
    assert 32 * cached(block.heads, 4096 // block.heads, 2048, dtype=dtype) == nbytes
    precision = "float16" if dtype == torch.float16 else "float32"
    whole = count_serving(
        outline("llama-2-7b"), users=1, context=2048, policy=parse_cache("growing"), precision=precision
    )
    assert nbytes <= whole.cache <= nbytes + 8 * 2 * 2049  # the positions of the tokens as well


# ---- days ---------------------------------------------------------------------------------------------


def test_gpt3_takes_25_days_by_6nd_and_34_with_recomputation():
    """On 1,024 A100 at 45% of 312 TFLOP/s. Write-ups print 34 days beside the formula 6 N D: that number is 8 N D."""
    n, d = count_parameters(outline("gpt3-175b")).total, 300e9
    days = {
        recomputed: envelope.seconds(
            envelope.training_flops(n, d, recomputed=recomputed), speed=1024 * 312e12, mfu=0.45
        )
        / envelope.DAY
        for recomputed in (False, True)
    }
    assert {again: round(found, 1) for again, found in days.items()} == {False: 25.3, True: 33.7}


def test_gpt3_took_as_many_operations_as_its_paper_says():
    n = count_parameters(outline("gpt3-175b")).total
    assert envelope.training_flops(n, 300e9) == pytest.approx(3.14e23, rel=0.005)  # table D.1


def test_palm_used_46_percent_of_its_peak_by_its_own_formula():
    n = count_parameters(outline("palm")).total
    each = envelope.palm_flops_per_token(n, layers=118, heads=48, channels=256, length=2048)
    assert round(238_300 * each / (6144 * 275e12), 3) == 0.462  # 238.3 thousand tokens a second, 6,144 chips


def test_the_papers_formula_is_what_is_counted():
    """6 N + 12 L H C T, with the parameters of all products: what an embedding looks up is not multiplied."""
    cfg = config("llama-3.2-1b")
    model, task = outline("llama-3.2-1b"), task_for(cfg)
    parameters, batch = count_parameters(model), batch_for(cfg, task, rows=1, length=256)
    found = count_training(model, task.loss, [batch.content], device=torch.device("cuda"))
    block = cfg.decoder.pattern[0].mixer
    matrices = parameters.total - parameters.by_part["other"]  # tied: the embedding is the output's matrix
    formula = envelope.palm_flops_per_token(
        matrices, layers=cfg.decoder.depth, heads=block.heads, channels=cfg.dim // block.heads, length=256
    )
    # attention computes its scores a second time in the backward pass: one product more than the formula's six
    again = 2 * cfg.decoder.depth * cfg.dim * 256
    products = sum(op.flops * op.calls for op in found.counted.operations if op.name != "aten.mv")  # gradients of norms
    assert products == 256 * (formula + again)
