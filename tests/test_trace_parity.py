"""What the trace reads equals what transformers itself shows: its attentions, its hidden states, and its own hooks."""

import re
from pathlib import Path

import pytest
import torch
from foreign import pair
from torch import Tensor

from dragoman import inspect

FIELDS = {"output_attentions": True, "output_hidden_states": True}
NAMES = ["BERT", "GPT-2", "LLaMA", "T5", "Marian", "ViT"]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def hidden(seen: inspect.Trace, tower: str) -> list[Tensor]:
    """Residual stream before each layer, and what the tower returns."""
    layers = [value for name, value in seen.tensors.items() if re.fullmatch(tower + r"\.\d+\.residual\.before", name)]
    return [*layers, seen.tensors[f"{tower}.output"]]


def weights(seen: inspect.Trace, pattern: str) -> list[Tensor]:
    return [value for name, value in seen.tensors.items() if re.fullmatch(pattern + r"\.weights", name)]


def compare(seen: inspect.Trace, theirs: dict[str, tuple[Tensor, ...]], last: bool = True) -> int:
    """Compare lists of tensors by the pattern of our places or, for hidden states, the tower; return how many.

    Without ``last`` leave out the last hidden states, which some models return before, or scaled after, the last norm.
    """
    compared = 0
    for where, expected in theirs.items():
        ours = weights(seen, where) if where.endswith(("mixer", "cross")) else hidden(seen, where)
        assert len(ours) == len(expected)
        skipped = where in ("encoder", "decoder") and not last
        for mine, other in list(zip(ours, expected, strict=True))[: -1 if skipped else None]:
            close(mine, other)
            compared += 1
    return compared


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    found = pair(request.param, 0, tmp_path_factory.mktemp("parity"))
    found.theirs.set_attn_implementation("eager")
    return found


@torch.no_grad()
def test_weights_and_hidden_states_are_those_that_transformers_returns(both):
    if both.name == "ViT":
        images = torch.randn(2, 3, 12, 12)
        seen = inspect.trace_inputs(both.ours, (images,))
        theirs = both.theirs(pixel_values=images, **FIELDS)
        lists = {r"encoder\.\d+\.mixer": theirs.attentions}
        assert compare(seen, lists | {"encoder": theirs.hidden_states}, last=False) >= 4
        return
    text = torch.stack([both.texts(1, seed=s, shortest=9)[0] for s in (1, 2)])
    if both.name in ("T5", "Marian"):
        source = torch.stack([both.texts(1, seed=s, shortest=9)[0] for s in (3, 4)])
        seen = inspect.trace_inputs(both.ours, (both.inverse[text], both.inverse[source]))
        theirs = both.theirs(input_ids=source, decoder_input_ids=text, **FIELDS)
        lists = {
            r"encoder\.\d+\.mixer": theirs.encoder_attentions,
            r"decoder\.\d+\.mixer": theirs.decoder_attentions,
            r"decoder\.\d+\.cross": theirs.cross_attentions,
            "encoder": theirs.encoder_hidden_states,
        }
        assert compare(seen, lists) >= 7
        assert compare(seen, {"decoder": theirs.decoder_hidden_states}, last=both.name != "T5") >= 2
        return
    seen = inspect.trace_inputs(both.ours, (both.inverse[text],))
    theirs = both.theirs(input_ids=text, **FIELDS)
    tower = "encoder" if both.name == "BERT" else "decoder"
    assert compare(seen, {rf"{tower}\.\d+\.mixer": theirs.attentions, tower: theirs.hidden_states}) >= 5


HOOKED = {
    # name of their module: (place, whether its input counts)
    "BERT": {
        "bert.encoder.layer.0.attention.self.query": ("encoder.0.mixer.queries", False),
        "bert.encoder.layer.1.attention.self.value": ("encoder.1.mixer.values", False),
        "bert.encoder.layer.1.attention.output.dense": ("encoder.1.mixer.output", False),
        "bert.encoder.layer.0.attention.output.LayerNorm": ("encoder.0.residual.after_mixer", False),
        "bert.encoder.layer.0.output.dense": ("encoder.0.feed_forward.output", False),
        "bert.embeddings.LayerNorm": ("encoder.embedding.norm", False),
    },
    "GPT-2": {
        "transformer.h.0.ln_1": ("decoder.0.mixer.norm.before", False),
        "transformer.h.0.attn.c_proj": ("decoder.0.mixer.output", False),
        "transformer.h.1.ln_2": ("decoder.1.feed_forward.norm.before", False),
        "transformer.h.1.mlp.c_fc": ("decoder.1.feed_forward.up", False),
        "transformer.h.1.mlp.c_proj": ("decoder.1.feed_forward.output", False),
        "transformer.wpe": ("decoder.embedding.positions", False),
        "transformer.wte": ("decoder.embedding.tokens", False),
        "transformer.ln_f": ("decoder.final_norm", False),
    },
    "LLaMA": {
        "model.layers.0.self_attn.q_proj": ("decoder.0.mixer.queries", False),
        "model.layers.0.self_attn.o_proj": ("decoder.0.mixer.heads", True),
        "model.layers.1.mlp.gate_proj": ("decoder.1.feed_forward.gate", False),
        "model.layers.1.mlp.down_proj": ("decoder.1.feed_forward.hidden", True),
        "model.norm": ("decoder.final_norm", False),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HOOKED)
@torch.no_grad()
def test_places_are_what_hooks_on_their_modules_see(name, tmp_path):
    both = pair(name, 0, tmp_path)
    theirs, modules = {}, dict(both.theirs.named_modules())
    handles = []
    for module, (place, takes_input) in HOOKED[name].items():

        def hook(_, given, out, place=place, takes_input=takes_input):
            theirs[place] = given[0] if takes_input else out

        handles.append(modules[module].register_forward_hook(hook))
    text = both.texts(1, shortest=9)[0][None]
    both.theirs(input_ids=text)
    seen = inspect.trace_inputs(both.ours, (both.inverse[text],))
    for handle in handles:
        handle.remove()
    for place, value in theirs.items():
        mine = seen.tensors[place]
        mine = mine.transpose(1, 2).flatten(2) if mine.dim() == 4 else mine
        close(mine, value.expand_as(mine))


def test_every_name_of_transformer_lens_in_the_documentation_has_its_place(tmp_path):
    page = Path(__file__).parent.parent / "docs" / "look-inside.md"
    table = re.findall(r"^\| `([\w.{}]*hook_\w+)` \| `([\w.{}]+)`", page.read_text(), re.MULTILINE)
    assert len(table) >= 15
    known = inspect.places(pair("GPT-2", 0, tmp_path).ours)
    assert not [ours for _, ours in table if ours.replace("{i}", "1") not in known]
