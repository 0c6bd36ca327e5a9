"""Counting a step on shapes: its work is what PyTorch counts on values, and its memory what autograd keeps."""

import dataclasses
import json

import by_kernels
import convolutional_variants
import pytest
import recurrent_variants
import torch
import variants
from conftest import without_numbers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dragoman.config import from_dict, to_dict
from dragoman.data.batch import PairBatch
from dragoman.data.packing import IGNORE, TextBatch
from dragoman.data.tasks import LanguageModellingTask, TranslationTask
from dragoman.model import chunked_loss
from dragoman.model.families import ModelConfig
from dragoman.model.layer_stack import LayerStack
from dragoman.model.linear import multiply_by
from dragoman.model.mlp import Gated
from dragoman.model.parts import part_of
from dragoman.model.scorer import CappedDot
from dragoman.model.tower import SharedTower, TowerConfig
from dragoman.native.library import available, library, standing_in
from dragoman.plan import shapes
from dragoman.plan.counting import CPU, count, on_shapes
from dragoman.plan.heap import Heap, occupied
from dragoman.plan.live import LiveBytes
from dragoman.plan.parameters import count_parameters
from dragoman.plan.replay import FREE, RecordedStep
from dragoman.plan.synthetic import batch_for, task_for
from dragoman.plan.training import count_training
from dragoman.plan.training_memory import training_memory
from dragoman.presets import PRESETS
from dragoman.train.optimize import Adafactor, AdamW, Muon

VOCAB = 40


def preset(name, **sizes):
    """A preset of its own widths, with few layers, words and classes, so that it is counted in no time."""
    cfg = from_dict(ModelConfig, shallow(PRESETS[name]()["model"]))
    options = {"vocab": VOCAB} | ({"classes": 3} if "classes" in type(cfg).sized.__annotations__ else {})
    return cfg.sized(**options | sizes)


def shallow(plain):
    """The same configuration with as few layers as its pattern has."""
    if isinstance(plain, list):
        return [shallow(value) for value in plain]
    if not isinstance(plain, dict):
        return plain
    made = {key: shallow(value) for key, value in plain.items()}
    if isinstance(made.get("depth"), int) and isinstance(made.get("pattern"), list):
        made["depth"] = min(made["depth"], len(made["pattern"]))
    return made


def outline(cfg, *, recompute=False, products="torch"):
    with torch.device("meta"):
        model = cfg.build()
    multiply_by(model, products)
    for module in model.modules():
        if isinstance(module, LayerStack):
            module.recompute = recompute
    return model


def counted(cfg, *, rows=2, length=8, **options):
    task = task_for(cfg)
    built = {name: options.pop(name) for name in ("recompute", "products") if name in options}
    batch = batch_for(cfg, task, rows=rows, length=length)
    return count_training(outline(cfg, **built), task.loss, [batch.content], **options)


# ---- every model --------------------------------------------------------------------------------------
# Some two hundred models, each of whose operations PyTorch looks up: a few of each kind here, all of them with the slow
# tests.


def few(names):
    """Every tenth by itself, and the others marked slow."""
    return [name if i % 10 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(names)]


def unlike(presets):
    """One preset of each architecture: larger ones of the same differ in numbers, which ask for no other code."""
    found = {json.dumps(without_numbers(shallow(presets[name]()["model"]))): name for name in reversed(presets)}
    return list(reversed(found.values()))


def saved_bytes(found):
    """Bytes held between the forward and the backward pass."""
    return sum(made.nbytes for made in found.memory.allocations if made.kept)


def check_counted(cfg):
    """Both passes are counted; each product once forward and twice backward, or once where ids are its input."""
    found = counted(cfg).counted
    forward, backward = found.flops(backward=False), found.flops(backward=True)
    assert 0 < forward < backward < 4 * forward
    assert sum(found.by_part().values()) == forward + backward
    assert found.peak_bytes >= saved_bytes(found) > 0
    assert sum(found.peak.values()) == found.peak_bytes
    assert not found.recomputed


@pytest.mark.parametrize("name", few(variants.VARIANTS))
def test_every_variant_of_the_transformer_is_counted(name):
    plain = to_dict(variants.VARIANTS[name].config("encoder-decoder"))
    check_counted(from_dict(ModelConfig, shallow(plain)))


@pytest.mark.parametrize("name", few(convolutional_variants.VARIANTS))
def test_every_convolutional_variant_is_counted(name):
    check_counted(convolutional_variants.VARIANTS[name].sized(vocab=VOCAB))


@pytest.mark.parametrize("name", few(recurrent_variants.EVERY))
def test_every_recurrent_variant_is_counted(name):
    check_counted(recurrent_variants.EVERY[name])


@pytest.mark.parametrize("name", few(unlike(PRESETS)))
def test_every_preset_is_counted(name):
    check_counted(preset(name))


# ---- work ---------------------------------------------------------------------------------------------


def multiplied(cfg, batch, task):
    """What PyTorch counts while the same step runs on values."""
    model = cfg.build().train()
    with FlopCounterMode(display=False) as counter:
        task.loss(model, batch)[0].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["lm-tiny", "transformer-tiny", "lstm-luong", "convs2s", "classifier-tiny"])
def test_counted_work_is_that_of_a_real_step(name):
    cfg = preset(name)
    task = task_for(cfg)
    batch = batch_for(cfg, task, rows=2, length=8).content
    with standing_in(None):
        real = multiplied(cfg, batch, task)
        found = count_training(outline(cfg), task.loss, [batch]).counted
    unknown = sum(  # what PyTorch's counter leaves out: its kernel for attention on CPUs, sums in place, vectors
        op.flops * op.calls
        for op in found.operations
        if "flash" in op.name or op.name in ("aten.addmm_", "aten.mv", "aten.addmv", "aten.dot")
    )
    assert found.flops() - unknown == real


def test_padding_and_documents_are_as_in_the_batch():
    """Targets that are padding are not learned from: half of the targets, half of the output's work."""
    cfg, ids = preset("lm-tiny"), torch.full((2, 8), 7)
    half = ids.clone()
    half[:, 4:] = IGNORE
    task, parts = LanguageModellingTask(), []
    for targets in (ids, half):
        found = count_training(outline(cfg), task.loss, [TextBatch(ids, targets, None)])
        parts.append(found.counted.by_part()["output"])
    assert parts[0] == 2 * parts[1]


def test_experts_are_expected_to_share_the_tokens_evenly():
    cfg = preset("mixtral-8x7b")
    block = cfg.decoder.pattern[0]
    small = dataclasses.replace(block, mlp=dataclasses.replace(block.mlp, expert=Gated(hidden=16)))
    dense = dataclasses.replace(block, mlp=Gated(hidden=32))
    parts = []
    for pattern in (small, dense):
        each = dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, pattern=(pattern,)))
        parts.append(counted(each, rows=2, length=16).counted.by_part()["feed_forward"])
    router = 3 * 2 * 32 * cfg.dim * block.mlp.experts
    assert parts[0] - router == parts[1]  # two experts of 16 are as much work as one layer of 32


def test_a_loss_is_counted_in_the_chunks_of_the_device_that_is_planned_for():
    """4,096 tokens over 37,000 words are 606 MB of logits: on a CPU 19 chunks of 32 MB by a kernel, or 73 of 8 MB; 3 of
    256 MB on a GPU."""
    cfg = preset("lm-tiny", vocab=37_000)
    found = {kind: counted(cfg, rows=64, length=64, device=torch.device(kind)).counted for kind in ("cpu", "cuda")}
    calls = {kind: [op.calls for op in each.operations if op.part == "output" and op.flops and not op.backward]
             for kind, each in found.items()}  # fmt: skip
    chunks = 19 if available() else 73
    assert sum(calls["cuda"]) == 3 and chunks <= sum(calls["cpu"]) <= chunks + 3
    assert _products(found["cuda"]) == _products(found["cpu"])
    assert found["cpu"].peak["logits"] < 100e6 < 2**28 <= found["cuda"].peak["logits"] < 1.2e9


def test_the_norm_after_a_sublayer_is_no_output_layer():
    """A residual connection calls it ``output``: ``x + output(f(before(x)))``."""
    assert part_of("decoder.blocks.0.mlp_residual.output") == "other"
    assert part_of("decoder.blocks.0.mlp_residual.output", multiplies=True) == "feed_forward"


def test_tables_of_positions_inside_a_tower_are_not_hidden():
    """Kaplan et al. (arXiv:2001.08361), section 2.1: N has no embeddings of the vocabulary or of positions."""
    model = outline(preset("t5-small"))
    tables = sum(p.numel() for name, p in model.named_parameters() if name.endswith("table.weight"))
    embedding = model.embed.tokens.weight.numel()
    assert tables and count_parameters(model).by_part["embedding"] == tables + embedding


def test_an_expert_that_a_token_does_not_pass_is_idle():
    model = outline(preset("mixtral-8x7b"))
    found, mixture = count_parameters(model), model.decoder.blocks[0].mlp
    each = sum(p.numel() for p in mixture.experts[0].parameters())
    assert found.total - found.active == 6 * each


def test_layers_that_share_a_mixture_have_its_idle_experts_once():
    cfg = preset("mixtral-8x7b")
    tower = {field.name: getattr(cfg.decoder, field.name) for field in dataclasses.fields(cfg.decoder)}
    one, own, shared = (
        count_parameters(outline(dataclasses.replace(cfg, decoder=kind(**{**tower, "depth": depth}))))
        for kind, depth in ((TowerConfig, 1), (TowerConfig, 6), (SharedTower, 6))
    )
    assert (shared.total, shared.active) == (one.total, one.active)
    assert own.total - own.active == 6 * (one.total - one.active)


@pytest.mark.parametrize("name", ["lm-tiny", "transformer-tiny"])
def test_activation_checkpointing_computes_the_layers_again(name):
    plain, again = (counted(preset(name), recompute=recompute).counted for recompute in (False, True))
    assert again.learned_flops == plain.flops()
    of_layers = {"attention", "feed_forward"}
    forward = sum(op.flops * op.calls for op in plain.operations if not op.backward and op.part in of_layers)
    assert 0 < again.recomputed <= forward
    assert saved_bytes(again) < saved_bytes(plain)


@by_kernels.needed
@pytest.mark.parametrize("name", ["lm-tiny", "transformer-tiny", "mamba-small", "lm-tiny-2019"])
def test_kernels_in_c_count_as_their_twins_do(name):
    """On a CPU in bfloat16; means of norms' gradients, which a kernel sums itself, are no products there."""
    cfg = preset(name)
    by_kernel = counted(cfg, precision=torch.bfloat16).counted
    assert any(op.name.startswith("dragoman.") and "recurrence" not in op.name for op in by_kernel.operations)
    twin = counted(cfg, precision=torch.bfloat16, device=torch.device("cuda")).counted
    assert not any(op.name.startswith("dragoman.") and "recurrence" not in op.name for op in twin.operations)
    assert _products(by_kernel) == _products(twin)


def _products(found):
    return sum(op.flops * op.calls for op in found.operations if op.name != "aten.mv")


def test_work_belongs_to_parts_in_both_passes():
    found = counted(preset("transformer-tiny")).counted
    for part in ("attention", "feed_forward"):
        passes = [
            sum(op.flops * op.calls for op in found.operations if op.part == part and op.backward == back)
            for back in (False, True)
        ]
        assert 2 * passes[0] <= passes[1] < 3 * passes[0]


# ---- memory -------------------------------------------------------------------------------------------


class Doubling(torch.autograd.Function):
    """Keeps its input, and nothing else."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * (x > 0)


def test_what_autograd_keeps_is_what_is_live_between_the_passes():
    with on_shapes(CPU):
        x = torch.empty(1000, requires_grad=True)

        def step():
            y = Doubling.apply(x + 1)  # x + 1 is kept, and y as the sum's argument is not
            total = y.sum()
            del y
            total.backward()

        found = count(step, nn.Identity())
    assert saved_bytes(found) == 4000 + 2 * 4  # x + 1, the sum, and the sum's gradient


def test_attention_that_is_written_out_keeps_its_weights():
    B, N, cfg = 2, 64, preset("lm-tiny-2019")
    block = cfg.decoder.pattern[0]
    fused = dataclasses.replace(block, dropout=0.0, mixer=dataclasses.replace(block.mixer, dropout=0.0))
    explicit = dataclasses.replace(fused, mixer=dataclasses.replace(fused.mixer, scorer=CappedDot(cap=50.0)))
    kept = []
    for pattern in (fused, explicit):
        each = dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, pattern=(pattern,), depth=1))
        kept.append(saved_bytes(counted(each, rows=B, length=N, device=torch.device("cuda")).counted))
    weights = 4 * B * block.mixer.heads * N * N
    assert kept[1] - kept[0] >= weights


def test_gradients_live_beside_the_activations_of_the_next_micro_batch():
    cfg = preset("lm-tiny")
    task = task_for(cfg)
    batch = batch_for(cfg, task, rows=2, length=16).content
    one, two = (count_training(outline(cfg), task.loss, [batch] * n) for n in (1, 2))
    assert two.counted.peak["gradients"] > one.counted.peak.get("gradients", 0)
    assert two.counted.peak_bytes <= one.counted.peak_bytes + one.trainable + max(one.weights)


def test_micro_batches_that_are_the_same_count_as_others_that_are_equal():
    cfg = preset("lm-tiny")
    task = task_for(cfg)
    batches = [batch_for(cfg, task, rows=2, length=8).content for _ in range(4)]
    recordings = RecordedStep.empty(), RecordedStep.empty()
    same, others = (
        count_training(outline(cfg, recompute=True), task.loss, given, observe=recording.observe)
        for given, recording in zip(([batches[0]] * 4, batches), recordings, strict=True)
    )
    assert same.counted.operations == others.counted.operations
    assert same.counted.recomputed == others.counted.recomputed > 0
    assert same.counted.peak == others.counted.peak
    assert recordings[0] == recordings[1]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_chunks_of_a_loss_that_are_alike_count_as_if_each_were_run(monkeypatch, precision):
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 4 * VOCAB * 7)
    monkeypatch.setattr(chunked_loss, "KERNEL_CHUNK", VOCAB * 7)
    made = []
    for rows in (1, 8):  # 2 or 18 chunks of 7 tokens, and a rest; 16 are left out: small objects take turns by fours
        recording = RecordedStep.empty()
        found = counted(preset("lm-tiny"), rows=rows, length=16, precision=precision, observe=recording.observe)
        with monkeypatch.context() as plain:
            plain.setattr(chunked_loss, "alike", lambda passes, number: passes)
            recorded = RecordedStep.empty()
            each = counted(preset("lm-tiny"), rows=rows, length=16, precision=precision, observe=recorded.observe)
        assert found.counted.operations == each.counted.operations
        for some, every in ((recording.forward, recorded.forward), (recording.backward, recorded.backward)):
            assert some.total() == every.total()
            some, every = ({call: n for call, n in of.items() if call.name not in FREE} for of in (some, every))
            assert some == every
        assert found.counted.peak == each.counted.peak and training_memory(found) == training_memory(each)
        made.append((len(found.counted.memory.allocations), len(each.counted.memory.allocations)))
    assert made[1][0] < made[1][1]  # fewer are run


def test_r_drop_counts_as_two_passes():
    cfg = preset("transformer-tiny")
    batch = batch_for(cfg, task_for(cfg), rows=2, length=16).content
    once, twice = (
        count_training(outline(cfg), TranslationTask(r_drop=alpha).loss, [batch]).counted for alpha in (0.0, 5.0)
    )
    assert 1.95 < twice.flops() / once.flops() < 2.2
    assert saved_bytes(twice) > 1.8 * saved_bytes(once)


@pytest.mark.parametrize(("optimizer", "copies"), [(AdamW(), 2.0), (Muon(), 1.0), (Adafactor(), 0.0)])
def test_the_optimizer_itself_tells_what_it_keeps(optimizer, copies):
    found = counted(preset("lm-tiny"), optimizer=optimizer.build)
    state, weights = sum(found.state), sum(found.weights)
    assert copies * weights <= state <= (copies + 0.5) * weights


def test_devices_that_share_a_model_hold_their_share_of_it():
    found = counted(preset("lm-tiny"), optimizer=AdamW().build, device=torch.device("cuda"))
    whole, replicated, sharded = (
        training_memory(found, devices=n, sharded=shard) for n, shard in ((1, False), (8, False), (8, True))
    )
    assert replicated.weights == whole.weights == pytest.approx(8 * sharded.weights, abs=8)
    assert whole.optimizer == pytest.approx(8 * sharded.optimizer, abs=8)
    assert replicated.activations == sharded.activations == whole.activations


def test_an_average_of_the_weights_is_a_further_copy():
    found = counted(preset("lm-tiny"), optimizer=AdamW().build)
    plain, averaged = (training_memory(found, averaged=each) for each in (False, True))
    assert averaged.total - plain.total == pytest.approx(plain.weights, rel=0.1)


# ---- the C library ------------------------------------------------------------------------------------


def test_a_gap_is_filled_by_what_fits_into_it():
    heap = Heap()
    first, _ = heap.allocate(10_000), heap.allocate(10_000)
    top = heap.top
    heap.free(first)
    assert heap.allocate(9000) == first
    assert heap.top == heap.largest == top


def test_gaps_side_by_side_are_one():
    heap = Heap()
    blocks = [heap.allocate(10_000) for _ in range(3)]
    top = heap.top
    heap.free(blocks[0])
    heap.free(blocks[1])
    heap.allocate(20_000)
    assert heap.top == top


def test_a_block_beside_small_objects_is_not_large_enough_for_the_next_of_its_size():
    heap = Heap()
    start = heap.allocate(10_000, ends=96)
    heap.allocate(10_000)
    heap.free(start)
    top = heap.top
    heap.allocate(10_000)
    assert heap.top > top


def test_a_process_occupies_at_least_what_it_holds():
    found = counted(preset("transformer-tiny"), rows=8, length=32, optimizer=AdamW().build)
    held = sum(found.weights) + found.counted.peak_bytes
    assert occupied(found.weights, found.counted.memory, found.state) > held
    assert occupied([], LiveBytes(), []) == 0


@pytest.mark.parametrize("steps", [7, 32, 50])
def test_a_recurrent_layer_keeps_its_workspace_for_the_backward_pass(steps):
    def layer():
        shapes_of = ((steps, 3, 40), (4 * 24, 40), (4 * 24, 24), (4 * 24,), (4 * 24,), (1, 3, 24), (1, 3, 24))
        settings = (False, [], 2, 24, 1, True, False, False, True)
        return torch.ops.aten.mkldnn_rnn_layer.default, (*map(torch.zeros, shapes_of), *settings)

    function, given = layer()
    real = function(*given)[3].numel()
    with shapes.shape_mode():
        function, given = layer()
        assert shapes.call(function, given, {})[3].numel() == pytest.approx(real, rel=0.05 if steps > 32 else 0)


# ---- outside ------------------------------------------------------------------------------------------


def test_counting_leaves_everything_as_it_was():
    before = torch.random.get_rng_state()
    attention, address = torch.nn.functional.scaled_dot_product_attention, torch.Tensor.data_ptr
    counted(preset("lm-tiny"), precision=torch.bfloat16, device=torch.device("cuda"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.nn.functional.scaled_dot_product_attention is attention and torch.Tensor.data_ptr is address
    if available():
        assert library().scan_span > 0


def test_shared_parameters_stay_shared_on_shapes():
    model = outline(preset("lm-tiny"))
    tied = model.output.weight is model.embed.weight if hasattr(model.embed, "weight") else None
    before = sum(p.numel() for p in model.parameters())
    with on_shapes(CPU):
        shapes.without_values(model, CPU)
    assert sum(p.numel() for p in model.parameters()) == before
    assert tied in (None, True)


def test_a_batch_of_pairs_has_the_length_of_each_side():
    cfg = preset("transformer-tiny")
    batch = batch_for(cfg, TranslationTask(), rows=3, length=5, source_length=9)
    assert isinstance(batch.content, PairBatch)
    assert batch.content.source.shape == (3, 9) and batch.content.target_in.shape == (3, 5)
    assert batch.tokens == 27
