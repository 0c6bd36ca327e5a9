"""Attribution: what is computed is what it says, and what matters is found on a model where one knows what matters."""

import numpy as np
import pytest
import torch
from test_every_command import make
from torch.nn.functional import log_softmax

from dragoman.errors import DataError
from dragoman.inspect.attribution import ExplainedAnswer, gradient_x_input, integrated_gradients, occlusion, parts
from dragoman.inspect.faithfulness import RANDOM, faithfulness
from dragoman.inspect.rollup import flow, rollout
from dragoman.inspect.subject import Inputs, Subject


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("translation", "language_model", "classifier", "masked", "embedder")
    return {kind: Subject.open(make(kind, folder / kind)) for kind in kinds}


def answer(subject: Subject, text: str = "abcd ef") -> ExplainedAnswer:
    return ExplainedAnswer(subject, subject.inputs(text, "fe dc" if subject.kind == "translator" else None))


KINDS = ("translation", "language_model", "classifier", "masked", "embedder")


@pytest.mark.parametrize("kind", KINDS)
def test_occlusion_is_the_difference_between_two_runs_of_the_model(kind, subjects):
    one = answer(subjects[kind])
    found = occlusion(one, baseline="zero")
    assert found.scores.shape == (len(one.tokens), len(one.outputs))
    model = one.model
    table = model.source_embed if kind == "translation" else model.embed if hasattr(model, "embed") else model.inputs
    for place in one.occludable[:3]:

        def hook(_, __, out, place=place):
            out = out.clone()
            out[:, place] = 0
            return out

        handle = table.tokens.register_forward_hook(hook)
        with torch.no_grad():
            logs = one.log_probs(model(*one.given.arguments))[0].numpy()
        handle.remove()
        fall = one.log_probabilities - logs
        if kind == "language_model":
            fall[:place] = 0  # an earlier token cannot depend on it
        np.testing.assert_allclose(found.scores[place], fall, atol=1e-5)


@pytest.mark.parametrize("kind", ["translation", "language_model", "classifier"])
def test_integrated_gradients_add_up_to_the_change_and_say_by_how_much_they_do_not(kind, subjects):
    found = integrated_gradients(answer(subjects[kind]), steps=96)
    change = found.notes["change explained"]
    assert found.notes["completeness error"] < 0.02 * max(1, abs(change))
    assert found.total.sum() == pytest.approx(change, abs=0.02 * len(found.outputs) * max(1, abs(change)))


def test_gradients_are_those_of_captum(subjects):
    from captum.attr import InputXGradient, IntegratedGradients

    one = answer(subjects["classifier"])
    x, start = one.before.tensors[one.place], one.baseline("mean")[None]
    table = one.model.inputs.tokens

    def forward(vectors):
        handle = table.register_forward_hook(lambda *_: vectors)
        try:
            return one.log_probs(one.model(one.given.arguments[0].expand(len(vectors), -1)))
        finally:
            handle.remove()

    theirs = IntegratedGradients(forward).attribute(x, start, target=0, n_steps=32, method="gausslegendre")
    ours = integrated_gradients(one, steps=32)
    np.testing.assert_allclose(ours.scores[:, 0], theirs[0].sum(-1).detach().numpy(), atol=1e-5)
    theirs = InputXGradient(forward).attribute(x.clone().requires_grad_(), target=0)
    plain = gradient_x_input(one, baseline="zero")
    np.testing.assert_allclose(plain.scores[:, 0], theirs[0].sum(-1).detach().numpy(), atol=1e-5)


def test_the_only_token_that_matters_is_found_and_random_replacements_agree(subjects):
    subject = subjects["classifier"]
    one = answer(subject, "abcdefgh")
    important = one.occludable[4]
    weight = torch.zeros(one.count)
    weight[important] = 5.0

    def head(x, keep=None):
        score = (x[:, :, 0] * weight).sum(1)
        return torch.stack([score, -score], dim=-1)

    original, tower = subject.model.head.forward, subject.model.tower
    try:
        subject.model.head.forward = head
        tower.read = lambda x, positions: x
        one = answer(subject, "abcdefgh")
        importance = {}
        for method in (occlusion(one), gradient_x_input(one), integrated_gradients(one)):
            assert np.abs(method.total).argmax() == important, method.method
            importance[method.method] = np.abs(method.total)
        drawn = occlusion(one, baseline="random", seeds=range(4))
        assert np.abs(drawn.total).argmax() == important and drawn.notes["spread"] >= 0
        curves = faithfulness(one, importance)
        assert {curve.method for curve in curves} == {*importance, RANDOM}
    finally:
        subject.model.head.forward = original
        del tower.read


def test_spans_share_their_effect(subjects):
    one = answer(subjects["translation"])
    alone, spans = occlusion(one, width=1), occlusion(one, width=3)
    assert spans.scores.shape == alone.scores.shape
    with pytest.raises(DataError, match="at least 1"):
        occlusion(one, width=0)


def test_parts_are_ablated_one_by_one(subjects):
    found = parts(answer(subjects["translation"]))
    whole = {part.place for part in found if part.head is None}
    assert {"encoder.0.mixer.output", "decoder.0.cross.output", "decoder.0.feed_forward.output"} <= whole
    assert {part.head for part in found if part.place == "decoder.0.cross.heads"} == {0, 1}


def test_marks_are_never_taken_away(subjects):
    one = answer(subjects["translation"])
    assert one.tokens[-1] == "⟨eos⟩" and len(one.tokens) - 1 not in one.occludable


def test_rollout_and_flow_of_layers_that_look_at_themselves_stay_where_they_are():
    own = np.eye(4)[None].repeat(3, axis=0)
    np.testing.assert_allclose(rollout(own), np.eye(4))
    np.testing.assert_allclose(flow(own), np.eye(4))


def test_flow_is_the_smallest_cut_between_an_output_and_an_input():
    weights = np.zeros((2, 2, 2))
    weights[:, 0, 0] = weights[:, 1, 0] = 1  # both tokens look at the first
    found = flow(weights)
    # from the second: 0.5 by way of the first token's column, 0.5 along its own and then across
    np.testing.assert_allclose(found[1], [2 / 3, 1 / 3], atol=1e-5)
    assert flow(np.ones((1, 30, 30)) / 30) is None


def test_log_probabilities_are_those_of_a_softmax(subjects):
    one = answer(subjects["language_model"])
    ids = one.given.arguments[0]
    logs = log_softmax(one.model(ids)[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(one.log_probabilities, logs.detach().numpy(), atol=1e-6)


def test_two_towers_are_refused_in_words(tmp_path):
    towers = Subject.open(make("towers", tmp_path / "towers"))
    with pytest.raises(DataError, match="of two towers explain one"):
        ExplainedAnswer(towers, towers.inputs(("ab", "cd")))
    assert isinstance(towers.inputs(("ab", "cd")), Inputs)
