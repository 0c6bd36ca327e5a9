"""Patching, ablation and steering: exact where they must be exact, and right about a circuit that was planted."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import planted_circuit
import pytest
import recurrent_variants
import torch
import variants
from planted_circuit import INDUCTION, PREVIOUS
from test_every_command import make
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman import inspect
from dragoman.cli import main
from dragoman.errors import ConfigError, DataError
from dragoman.inspect.contrast import MeasuredAnswer
from dragoman.inspect.interventions import Site

KINDS = ("translation", "language_model", "classifier", "tagger", "masked", "embedder", "towers", "images")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {kind: make(kind, folder / kind) for kind in KINDS}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("ab\ncd\n")


def pair_of(variant="plain", shape="encoder-decoder"):
    """A clean and a corrupt input of an untrained model, which differ in one token."""
    model = variants.build(variant, shape)
    arguments = variants.batch(model, 1, 7, 6)
    given = arguments[-1] if shape == "encoder-decoder" else arguments[0]
    other = given.clone()
    other[0, 2] = (given[0, 2] + 1) % variants.V
    names = tuple(map(str, given[0].tolist())), tuple(map(str, other[0].tolist()))
    if shape == "encoder-decoder":
        target = arguments[0]
        shown = tuple(map(str, target[0].tolist()))
        both = [
            inspect.Inputs((target, ids), source_tokens=tokens, tokens=shown)
            for ids, tokens in zip((given, other), names, strict=True)
        ]
        ids = target[0]
    else:
        both = [inspect.Inputs((ids,), tokens=tokens) for ids, tokens in zip((given, other), names, strict=True)]
        ids = given[0]
    return inspect.Contrast(model, *both, MeasuredAnswer(ids, torch.arange(len(ids))))


@pytest.mark.parametrize(("variant", "shape"), [("plain", "encoder-decoder"), ("rotary, gqa, qk norm", "decoder-only")])
def test_patching_a_place_with_itself_changes_no_bit(variant, shape):
    pair = pair_of(variant, shape)
    pair.record(list(pair.known))
    for name in pair.known:
        found = pair.patch([Site(name)], clean=False)
        assert (found.log_prob, found.recovered) == (pair.corrupt_log_prob, 0.0), name


@pytest.mark.parametrize("shape", ["encoder-decoder", "decoder-only"])
@pytest.mark.parametrize("variant", ["gqa", "learned"])
def test_patching_a_whole_layer_recovers_the_clean_answer_to_the_bit(variant, shape):
    pair = pair_of(variant, shape)
    side = "encoder" if shape == "encoder-decoder" else "decoder"
    for place in (f"{side}.0.residual.after", f"{side}.1.residual.after", "decoder.output", "logits"):
        found = pair.patch([Site(place)])
        assert (found.log_prob, found.recovered) == (pair.clean_log_prob, 1.0), place


@pytest.mark.parametrize("name", ["bahdanau", "luong", "luong, no feeding"])
def test_a_recurrent_model_is_patched_too_and_a_layer_without_a_residual_stream_is_shown_by_its_state(name):
    cfg = recurrent_variants.TRANSLATORS[name]
    model = recurrent_variants.build(cfg)
    target, source = recurrent_variants.targets(1, 5), recurrent_variants.sources(cfg, 1, 6)
    other = source.clone()
    other[0, 1] = source[0, 1] + 1 if source[0, 1] < 5 else source[0, 1] - 1
    names = [tuple(map(str, ids[0].tolist())) for ids in (source, other, target)]
    both = [
        inspect.Inputs((target, ids), tokens, names[2]) for ids, tokens in zip((source, other), names, strict=False)
    ]
    pair = inspect.Contrast(model, *both, MeasuredAnswer(target[0], torch.arange(5)))
    pair.record(list(pair.known))
    assert {pair.patch([Site(place)], clean=False).recovered for place in pair.known} == {0.0}
    assert any(row.place == "decoder.0.mixer.state" for row in inspect.patch_map([pair]).rows)


def test_all_heads_together_are_the_whole_place():
    pair = pair_of()
    place = "encoder.0.mixer.heads"
    assert pair.patch([Site(place, heads=(0, 1, 2, 3))]) == pair.patch([Site(place)])
    assert pair.patch([Site(place, heads=(0,))]) != pair.patch([Site(place)])


def test_the_direct_path_from_the_embedding_to_the_next_layer_is_all_there_is():
    pair = pair_of()
    first = pair.path(Site("encoder.embedding"), Site("encoder.0.mixer.input"))
    queries = [Site(f"encoder.0.mixer.{part}") for part in ("queries", "keys", "values")]
    assert first.log_prob == pytest.approx(pair.patch(queries).log_prob, abs=1e-9)


def test_a_path_holds_what_stands_between_at_its_corrupt_value():
    """The last layer's output goes to the output layer directly; the embedding only by the residual stream."""
    pair = pair_of(shape="decoder-only")
    direct = pair.path(Site("decoder.1.feed_forward.output"), Site("logits"))
    assert direct.log_prob == pytest.approx(pair.patch([Site("decoder.1.feed_forward.output")]).log_prob, abs=1e-9)
    through = pair.path(Site("decoder.embedding"), Site("logits")).recovered
    assert through != pytest.approx(pair.patch([Site("decoder.embedding")]).recovered)


def test_the_heads_of_a_planted_circuit_come_out_first():
    needed = inspect.patch_heads(planted_circuit.contrasts(swapped=True))
    assert [(cell.place, cell.head) for cell in needed[:2]] == [INDUCTION, PREVIOUS]
    assert needed[1].recovered > 0.5 > 0.1 > needed[2].recovered
    assert needed[1].low <= needed[1].recovered <= needed[1].high
    enough = inspect.patch_heads(planted_circuit.contrasts())
    assert (enough[0].place, enough[0].head) == INDUCTION
    assert enough[0].recovered > 0.9


def test_the_path_of_a_planted_circuit_goes_from_one_head_into_the_keys_of_the_other():
    pairs = planted_circuit.contrasts(6, swapped=True)

    def mean(head, part):
        sender, receiver = Site(PREVIOUS[0], heads=(head,)), Site(f"decoder.1.mixer.{part}", heads=(INDUCTION[1],))
        return sum(pair.path(sender, receiver).recovered for pair in pairs) / len(pairs)

    assert mean(PREVIOUS[1], "keys") > 0.5
    assert max(mean(PREVIOUS[1], "values"), mean(PREVIOUS[1], "queries"), mean(0, "keys")) < 0.1


def test_ablating_a_head_by_its_mean_leaves_what_does_not_depend_on_the_text():
    model = variants.build("plain", "decoder-only")
    subject = inspect.Subject(model)
    inputs = variants.batch(model, 1, 7, 6)
    heads = inspect.trace_inputs(model, inputs, "decoder.0.mixer.heads").tensors["decoder.0.mixer.heads"]
    means = {"decoder.0.mixer.heads": heads.mean(dim=2, keepdim=True)}
    site = Site("decoder.0.mixer.heads", heads=(1,))
    zero, mean = (
        inspect.trace_inputs(model, inputs, "decoder.0.mixer.output", inspect.ablation([site], values))
        for values in (None, means)
    )
    assert zero.replaced == mean.replaced == {"decoder.0.mixer.heads"}
    assert not torch.equal(zero.output, mean.output)
    all_zero = inspect.ablation([Site("decoder.0.mixer.heads")])
    output = inspect.trace_inputs(model, inputs, "decoder.0.mixer.output", all_zero)["decoder.0.mixer.output"]
    assert subject.kind == "language model"
    assert abs(output).max() == 0  # this mixer has no bias


def test_steering_by_a_difference_of_means_moves_the_answer_towards_the_one_and_back(runs):
    subject = inspect.Subject.open(runs["classifier"])
    some, others = ["aaa", "aab"], ["zzz", "zzy"]
    place = "encoder.0.residual.after"
    direction = inspect.difference_of_means(subject, some, others, place)
    assert direction.shape == (1, 1, 16)
    same = inspect.trace(subject, "mmm", read=(), write=inspect.steering(place, direction, 0.0))
    assert torch.equal(same.output, inspect.trace(subject, "mmm", read=()).output)

    def towards(strength):
        vector = inspect.trace(
            subject, "mmm", read="encoder.output", write=inspect.steering(place, direction, strength)
        )
        wanted = inspect.mean_values(subject, some, "encoder.output")["encoder.output"]
        return torch.cosine_similarity(vector.tensors["encoder.output"].mean(1), wanted[0]).item()

    assert towards(-4.0) < towards(0.0) < towards(4.0)


BAD_SITES = {
    "decoder.0.mixer.headz": "Did you mean decoder.0.mixer.head",
    "decoder.7.mixer.heads": "layers 0 to 1",
    "decoder.0.mixer.heads:4": "head 4: there are 4, counted from 0",
    "decoder.0.residual.after:1": "has no heads",
    "decoder.0.residual.after@7": "token 7: there are",
    "decoder.*.mixer.heads": "matches 2 places",
    "decoder.0.mixer.heads:x": "not a place",
    "": "not a place",
}


@pytest.mark.parametrize("site", BAD_SITES)
def test_a_site_that_does_not_exist_is_told_with_what_there_is(site):
    pair = pair_of(shape="decoder-only")
    with pytest.raises(ConfigError) as told:
        pair.patch([Site.parse(site)])
    assert BAD_SITES[site] in str(told.value)


def test_a_receiver_before_its_sender_is_refused():
    pair = pair_of()
    with pytest.raises(ConfigError, match="comes before"):
        pair.path(Site("decoder.0.mixer.heads"), Site("encoder.0.mixer.heads"))


def test_inputs_of_unlike_length_are_refused_with_the_token_at_which_they_part(runs):
    subject = inspect.Subject.open(runs["language_model"])
    with pytest.raises(DataError, match=r"5 tokens and corrupt 6, .* part at token 4: 'd' and 'xd'"):
        inspect.Contrast.of(subject, "abcd", "abcxd")
    with pytest.raises(DataError, match="the same to the model"):
        inspect.Contrast.of(subject, "abcd", "abcd")


@pytest.mark.parametrize("kind", ["translation", "language_model", "classifier", "tagger", "masked"])
def test_patch_shows_a_map_on_every_kind_of_model_with_probabilities(kind, runs, here, capsys):
    assert main(["patch", str(runs[kind]), "abc", "abd", "--format", "json", "-o", "map.svg"]) == 0
    found = json.loads(capsys.readouterr().out)
    side = "decoder" if kind == "language_model" else "encoder"
    row = next(row for row in found["rows"] if row["place"] == f"{side}.0.residual.after")
    assert row["whole"]["recovered"] == pytest.approx(1)
    assert len(row["cells"]) >= 3
    assert {head["head"] for head in found["heads"]} == {0, 1}
    assert ET.parse("map.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["abc"], "give a clean and a corrupt text"),
        (["abc", "abcd"], "line 1: clean has"),
        (["lines.txt", "abc"], "clean has 2, corrupt has 1"),
        (["nowhere.txt", "abc"], "no such file"),
        (["abc", "abd", "-o", "map.png"], "name it .svg"),
        (["abc", "abd", "--places", "decoder.0.mixer.headz"], "Did you mean"),
        (["abc", "abd", "--places", "decoder.4.mixer.heads"], "decoder has the layers 0 to 0"),
        (["abc", "abd", "--path", "decoder.0.cross.heads:5", "logits"], "head 5: there are 2"),
        (["abc", "abd", "--path", "encoder.embedding", "logits", "-o", "map.svg"], "leave --places and -o out"),
        (["abc", "abd", "--path", "logits", "encoder.embedding"], "comes before"),
        (["", "abd"], "clean"),
    ],
)
def test_bad_input_of_patch_is_told_in_one_line(arguments, told, runs, here, capsys):
    assert main(["patch", str(runs["translation"]), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dragoman: ") and err.count("\n") == 1
    assert told in err


def test_two_images_are_compared_patch_by_patch(runs):
    subject = inspect.Subject.open(runs["images"])
    draw = np.random.default_rng(0)
    clean = draw.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    corrupt = clean.copy()
    corrupt[:2, :2] = 255 - corrupt[:2, :2]
    pair = inspect.Contrast.of(subject, clean, corrupt)
    assert pair.patch([Site("encoder.0.residual.after")]).recovered == 1
    row = inspect.patch_map([pair], ["encoder.embedding"]).rows[0]
    assert [cell.label for cell in row.cells if abs(cell.recovered) > 1e-6] == ["0,0"]
    with pytest.raises(DataError, match="the same to the model"):
        inspect.Contrast.of(subject, clean, clean)


def test_the_answer_can_be_given(runs):
    writer = inspect.Subject.open(runs["language_model"])
    pair = inspect.Contrast.of(writer, "ab", "ac", "xyz")
    assert pair.answer.spelling == ("x", "y", "z")
    translator = inspect.Subject.open(runs["translation"])
    assert inspect.Contrast.of(translator, "ab", "ac", "xy").answer.spelling[:2] == ("x", "y")
    with pytest.raises(ConfigError, match="leave it out"):
        inspect.Contrast.of(inspect.Subject.open(runs["classifier"]), "ab", "ac", "xy")


def test_a_model_that_answers_with_vectors_is_refused(runs, here, capsys):
    for kind in ("embedder", "towers"):
        assert main(["patch", str(runs[kind]), "abc", "abd"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
