"""Collection of all that a page shows: runs the model, and returns plain data and arrays.

S source tokens, T target tokens, H heads, L layers.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dragoman.data.material import ImageMaterial
from dragoman.errors import ConfigError
from dragoman.inspect.attribution import (
    Attribution,
    ExplainedAnswer,
    gradient_x_input,
    integrated_gradients,
    occlusion,
)
from dragoman.inspect.faithfulness import POINTS, faithfulness
from dragoman.inspect.lens import beam_tree, candidates, logit_lens, position_views, routing
from dragoman.inspect.places import find, places
from dragoman.inspect.rollup import flow, rollout
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import Trace, trace_inputs

PageData = dict[str, Any]
"""Content of a page: strings, numbers, lists and arrays."""


@dataclass(frozen=True)
class PageChoice:
    """Parts of the model that a page shows."""

    layers: tuple[int, ...] = ()
    """Layers, counted from 0; none named: all."""
    heads: tuple[int, ...] = ()
    """Heads, counted from 0; none named: all."""
    beam: int | None = None
    """Hypotheses of the search that is shown again; None for as many as ``dragoman translate`` keeps."""
    steps: int = 32
    """Points on the path of integrated gradients."""
    attributions: bool = True
    """Run the model again without each input, which takes the longest."""


STEPS_AFTER = 2
"""Steps of a search that are shown after the one that found its answer."""
LONGEST_GRADIENTS = 64
"""Most tokens for which a page has gradients: each output needs passes of its own, so that their cost grows with the
square of the length."""
READ = ("*.weights", "*.residual.after", "*.routing", "logits")
_SELF = re.compile(r"(?P<tower>.+)\.(?P<layer>\d+)\.(?P<part>mixer|cross)\.weights|decoder\.cross\.weights")
_TITLES = {
    "encoder": "Self-attention of the encoder",
    "decoder": "Self-attention of the decoder",
    "cross": "Attention to the source",
    "first": "Self-attention of the first tower",
    "second": "Self-attention of the second tower",
}


def collect(subject: Subject, given: Any, target: Any = None, choice: PageChoice | None = None) -> PageData:
    """Return the data of a page about the answer to ``given``.

    Raises:
        ConfigError: a layer or head that the model does not have.
        DataError: an input that the model cannot read.
    """
    choice = choice or PageChoice()
    inputs = subject.inputs(given, target, beam=choice.beam)
    known = places(subject.model)
    wanted = [pattern for pattern in READ if _any(known, pattern)]
    seen = trace_inputs(subject.model, inputs.arguments, wanted)
    found: PageData = {
        "run": "" if subject.run is None else subject.run.name,
        "kind": subject.kind,
        "input": given if isinstance(given, str) else "",
        "tokens": {"source": inputs.source_tokens, "target": inputs.tokens, "next": inputs.targets},
        "attention": _attention(subject, seen, choice),
        "positions": position_views(subject.model),
        "routing": routing(seen),
    }
    if subject.kind in ("translator", "language model"):
        found |= _of_writer(subject, inputs, seen, choice)
    if choice.attributions and subject.kind != "towers":
        found["attribution"] = _attribution(ExplainedAnswer(subject, inputs), found["attention"], choice)
    if subject.materials and isinstance(subject.materials[0], ImageMaterial):
        found["image"] = _image(subject.materials[0], inputs)
    return found


def _any(known: Any, pattern: str) -> bool:
    try:
        return bool(find(known, pattern))
    except ConfigError:
        return False


def _of_writer(subject: Subject, inputs: Inputs, seen: Trace, choice: PageChoice) -> PageData:
    """Return what only models that write have: probabilities, the logit lens and the search."""
    logits = seen.output[0]
    logs = logits.float().log_softmax(-1)
    own = [float(logs[i, token]) for i, token in enumerate(inputs.target_ids)]
    found: PageData = {
        "output": subject.tokenizer.decode(inputs.target_ids) if subject.tokenizer else "",
        "log_probs": own,
        "candidates": candidates(subject, logits),
        "lens": logit_lens(subject, seen),
    }
    if subject.kind == "translator":
        nodes = beam_tree(subject, inputs, choice.beam)
        answered = next((node.step for node in nodes if node.fate.startswith("chosen")), nodes[-1].step)
        found["tree"] = [asdict(node) for node in nodes if node.step <= answered + STEPS_AFTER]
        found["steps_after"] = max(0, nodes[-1].step - answered - STEPS_AFTER)
    return found


# ---- attention ----------------------------------------------------------------------------------------


def _attention(subject: Subject, seen: Trace, choice: PageChoice) -> list[PageData]:
    """Return each kind of attention with its layers, and its rollup where a token attends to its own side."""
    kinds: dict[str, PageData] = {}
    for name in seen:
        match = _SELF.fullmatch(name)
        if match is None or name.endswith("global_weights"):
            continue
        tower, layer = match["tower"] or "decoder", int(match["layer"] or 0)
        crossing = ".cross." in name
        kind = kinds.setdefault("cross" if crossing else tower, _kind_of_attention(subject, tower, crossing))
        weights = seen[name]
        kind["all"].append((layer, weights[0]))
    for kind in kinds.values():
        every = kind.pop("all")
        if not kind["crossing"]:
            mean = np.stack([weights.mean(0) for _, weights in every])
            kind["rollout"], kind["flow"] = rollout(mean), flow(mean)
        kind["layers"] = _chosen(every, choice)
    return list(kinds.values())


def _kind_of_attention(subject: Subject, tower: str, crossing: bool) -> PageData:
    own = "source" if subject.kind == "translator" and tower.startswith("encoder") else "target"
    title = _TITLES.get("cross" if crossing else tower, f"Self-attention of {tower}")
    return {
        "id": "cross" if crossing else tower,
        "title": title,
        "rows": "next" if crossing else own,
        "columns": "source" if crossing else own,
        "crossing": crossing,
        "all": [],
    }


def _chosen(every: Sequence[tuple[int, np.ndarray]], choice: PageChoice) -> list[PageData]:
    """Return the chosen layers and heads.

    Raises:
        ConfigError: a layer or head that is not there.
    """
    layers = [layer for layer, _ in every]
    _check("layer", choice.layers, range(max(layers) + 1))
    heads = max(len(weights) for _, weights in every)
    _check("head", choice.heads, range(heads))
    found = []
    for layer, weights in every:
        if choice.layers and layer not in choice.layers:
            continue
        picked = [head for head in choice.heads or range(len(weights)) if head < len(weights)]
        found.append({"layer": layer, "heads": picked, "weights": weights[picked]})
    return found


def _check(what: str, wanted: Sequence[int], there: range) -> None:
    for number in wanted:
        if number not in there:
            raise ConfigError(f"{what} {number}: this model has the {what}s {there[0]} to {there[-1]}, counted from 0")


# ---- attribution --------------------------------------------------------------------------------------


def _attribution(answer: ExplainedAnswer, attention: Sequence[PageData], choice: PageChoice) -> PageData:
    """Return every attribution, and how far each can be believed."""
    methods: list[Attribution] = [occlusion(answer)]
    short = max(answer.count, len(answer.outputs)) <= LONGEST_GRADIENTS
    if short:
        methods += [gradient_x_input(answer), integrated_gradients(answer, steps=choice.steps)]
    importance = {one.method: one.total for one in methods}
    importance |= _attention_as_importance(answer, attention)
    curves = faithfulness(answer, importance, points=POINTS if short else POINTS // 2)
    return {
        "inputs": answer.tokens,
        "outputs": answer.outputs,
        "methods": [
            {"name": one.method, "scores": one.scores, "total": one.total, "notes": dict(one.notes)} for one in methods
        ],
        "faithfulness": [
            {
                "method": curve.method,
                "share": curve.share,
                "deletion": curve.deletion,
                "insertion": curve.insertion,
                "score": curve.score,
            }
            for curve in curves
        ],
    }


def _attention_as_importance(answer: ExplainedAnswer, attention: Sequence[PageData]) -> dict[str, np.ndarray]:
    """Return the attention that each input receives, by the kinds that read the explained inputs."""
    found = {}
    for kind in attention:
        if kind["crossing"] and answer.subject.kind == "translator":
            found["attention to the source"] = kind["layers"][-1]["weights"].mean(0).sum(0)
        elif not kind["crossing"] and kind["id"] == answer.side and kind["rollout"] is not None:
            found["rollout of self-attention"] = kind["rollout"].sum(0)
    return {name: values for name, values in found.items() if len(values) == answer.count}


def _image(material: ImageMaterial, inputs: Inputs) -> PageData:
    """Return the image and how its patches lie."""
    cfg = material.cfg
    image = inputs.arguments[0][0].detach().cpu().float().numpy()
    low, high = float(image.min()), float(image.max())
    pixels = ((image - low) / max(high - low, 1e-9) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[..., :3]
    rows, columns = (side // cfg.patch for side in cfg.size)
    return {"pixels": pixels, "rows": rows, "columns": columns, "before": int(cfg.class_token)}
