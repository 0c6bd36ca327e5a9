"""Checks of exports: before an export is put in place, its log-probabilities and ids are compared with the run's.

V vocabulary, T length.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.errors import CheckpointError
from dragoman.interchange.vocabulary import VocabularyMapping
from dragoman.model.contrastive import TwoTowers, TwoTowersConfig
from dragoman.model.encoder import Encoder, EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import AttentionPoolingHead
from dragoman.model.inputs import FrameInput, PatchInput, TokenInput
from dragoman.model.positions.tokens import Frames, Tokens
from dragoman.text.tokens.framing import TextFrame
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

TOLERANCE = 1e-3
"""Largest difference of logits and log-probabilities in float32, relative to the largest where that is above 1."""
LIBRARIES = {"huggingface": "transformers", "ctranslate2": "ctranslate2", "onnx": "onnxruntime", "gguf": "llama_cpp"}
TEXTS = (
    "The door is open.", " two  spaces, and one behind ", "Grüße an 3 Leute: 12,50 €!", "don't we'll I'm",
    "x = f(y) # 漢字",
)  # fmt: skip


def checker_missing(layout: str) -> str | None:
    """Return the library that an export in this layout cannot be checked without; None where it is installed."""
    name = LIBRARIES[layout]
    return None if importlib.util.find_spec(name) else name


class Example(NamedTuple):
    """A source, for a model that has an encoder, and the beginning of a target, in our ids."""

    source: list[int] | None
    target: list[int]


def examples(vocab: int, *, translates: bool, source_vocab: int | None = None) -> list[Example]:
    """Return a few examples of different lengths, drawn from the vocabulary without its special tokens."""
    draw = np.random.default_rng(0)

    def ids(length: int, size: int) -> list[int]:
        return draw.integers(min(EOS + 1, size - 1), size, length).tolist()

    lengths = ((1, 3), (4, 2), (7, 6))
    return [Example(ids(s, source_vocab or vocab) if translates else None, ids(t, vocab)) for s, t in lengths]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress a library's messages and progress bars."""
    import transformers

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    bar = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bar:
            transformers.logging.enable_progress_bar()


def built(cfg: ModelConfig, weights: Any) -> nn.Module:
    """Return the run's model, as it is compared: in float32 and in evaluation mode."""
    model = cfg.build()
    model.load_state_dict(weights)
    return model.float().eval()


def compare(name: str, theirs: Tensor, ours: Tensor) -> None:
    """Compare the outputs of an export with those of the run.
    Raises:
        CheckpointError: the export answers otherwise.
    """
    same_shape = theirs.shape == ours.shape
    error = float((theirs.float() - ours.float()).abs().max()) if same_shape and ours.numel() else float(not same_shape)
    if not error <= TOLERANCE * max(1.0, float(ours.abs().max()) if ours.numel() else 1.0):
        raise CheckpointError(
            f"the export was compared with the run in {name} and answers otherwise (by {error:.2g}): nothing was "
            "written; please report this model's configuration"
        )


# ---- transformers ----------------------------------------------------------------------------------


@torch.inference_mode()
def check_huggingface(
    folder: Path, cfg: ModelConfig, weights: Any, vocabulary: VocabularyMapping | None, opener: Any = None
) -> None:
    """Compare the model in ``folder`` as transformers opens it with the run's.

    ``opener`` is the class of the model, where it is none of transformers.

    Raises:
        CheckpointError: it does not open, or answers otherwise.
    """
    import transformers

    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    with quiet():
        try:
            opener = opener or getattr(transformers, architecture)
            theirs = opener.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
            if hasattr(theirs, "set_experts_implementation"):
                theirs.set_experts_implementation("eager")  # the fast one requires sizes that 4 divides
        except Exception as error:  # a library may raise anything for a folder that it cannot open
            raise CheckpointError(f"transformers does not open the export: {str(error).splitlines()[0]}") from None
    ours = built(cfg, weights)
    if isinstance(cfg, TwoTowersConfig):
        _check_towers(theirs, ours, cfg, vocabulary)
        return
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.inputs, PatchInput):
        given = _images(cfg.inputs)
        reply = theirs(pixel_values=given)
        pools = isinstance(cfg.head, AttentionPoolingHead)
        compare("transformers", reply["pooler_output"] if pools else _answer(reply), ours(given))
        return
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.inputs, FrameInput):
        frames = _frames(cfg.inputs)
        compare("transformers", _answer(theirs(input_features=frames)), ours(Frames(frames, None)))
        return
    assert vocabulary is not None, "texts are read"
    order, source_order = vocabulary.order(), vocabulary.of_source.order()
    translates = getattr(cfg, "encoder", None) is not None
    target_size = (getattr(cfg, "vocab", None) or vocabulary.rows) if translates else vocabulary.rows
    for example in examples(target_size, translates=translates, source_vocab=vocabulary.of_source.rows):
        target = torch.tensor([[1, *example.target]])
        if not translates:
            target[target >= vocabulary.size] = 3
        if isinstance(getattr(cfg, "source", None), FrameInput):
            reply, answer = _after_speech(theirs, ours, cfg, _rows(order[target], vocabulary), target)
        elif example.source is not None:
            source = torch.tensor([[*example.source, EOS]])
            reply = theirs(input_ids=source_order[source], decoder_input_ids=_rows(order[target], vocabulary))
            answer = ours(target, source)
        else:
            reply, answer = theirs(input_ids=_rows(order[target], vocabulary)), ours(target)
        compare("transformers", *_comparable_logits(_answer(reply), answer, order, vocabulary))


def _after_speech(theirs: Any, ours: nn.Module, cfg: Any, ids: Tensor, target: Tensor) -> tuple[Any, Tensor]:
    """Return both answers to the same frames, of as long a speech as Whisper's layout reads."""
    frames = cfg.source.longest or cfg.source.stride
    heard = torch.linspace(-1, 1, frames * cfg.source.channels).view(1, frames, cfg.source.channels)
    return theirs(input_features=heard.transpose(1, 2), decoder_input_ids=ids), ours(target, heard)


def _frames(inputs: FrameInput) -> Tensor:
    return torch.linspace(-1, 1, 7 * inputs.channels).view(1, 7, inputs.channels)


def _images(inputs: PatchInput) -> Tensor:
    count = inputs.channels * inputs.size[0] * inputs.size[1]
    return torch.linspace(-1, 1, count).view(1, inputs.channels, *inputs.size)


def _check_towers(theirs: Any, ours: nn.Module, cfg: TwoTowersConfig, vocabulary: VocabularyMapping | None) -> None:
    """Compare the similarities of a text with itself, or with an image."""
    texts = torch.tensor([[1, 5, 4, 3, EOS]])
    towers = [cfg.first, cfg.second or cfg.first]
    images = [_images(tower.inputs) if isinstance(tower.inputs, PatchInput) else None for tower in towers]
    shown = next((one for one in images if one is not None), None)
    names = {"second_input_ids": texts} if shown is None else {"pixel_values": shown}
    ours_reads = [texts if one is None else one for one in images]
    filled = cfg.first.inputs.filled if isinstance(cfg.first.inputs, TokenInput) else None
    if filled and vocabulary is not None and "Siglip" in type(theirs).__name__:
        rows = _rows(vocabulary.order()[filled.fill(Tokens(texts)).ids], vocabulary)
        compare("transformers", theirs(input_ids=rows, **names)["logits_per_text"], ours(*ours_reads))
        return
    compare("transformers", theirs(input_ids=texts, **names)["logits"], ours(*ours_reads))


def _rows(ids: Tensor, vocabulary: VocabularyMapping) -> Tensor:
    """Return their ids; the rows that we add are replaced by the row that texts start with there."""
    return ids.masked_fill(ids >= vocabulary.size, vocabulary.start)


def _answer(reply: Any) -> Tensor:
    if (logits := reply.get("logits")) is not None:
        return logits
    if (start := reply.get("start_logits")) is not None:
        return torch.stack([start, reply["end_logits"]], dim=-1)
    pooled = reply.get("pooler_output") if "Dragoman" in type(reply).__name__ else None
    return reply["last_hidden_state"] if pooled is None else pooled


def _comparable_logits(
    theirs: Tensor, ours: Tensor, order: Tensor, vocabulary: VocabularyMapping
) -> tuple[Tensor, Tensor]:
    """Return theirs and ours in one order, and without the rows that we add, where they are logits of a vocabulary."""
    if ours.shape[-1] != len(order):
        return theirs, ours
    own = order < vocabulary.size
    return theirs[..., order[own]].log_softmax(dim=-1), ours[..., own].log_softmax(dim=-1)


def check_tokenizer(
    folder: Path, tokenizer: Tokenizer, vocabulary: VocabularyMapping, frame: TextFrame, *, with_code: bool = False
) -> None:
    """Compare the ids of a few texts as transformers reads them with ours.

    ``AutoTokenizer`` asks before it opens a folder ``with_code``; its class for such folders does not.

    Raises:
        CheckpointError: they differ.
    """
    import transformers

    with quiet():
        opener: Any = transformers.PreTrainedTokenizerFast if with_code else transformers.AutoTokenizer
        theirs = opener.from_pretrained(folder, local_files_only=True)
    order = vocabulary.order().tolist()
    for text in TEXTS:
        ours = [order[i] for i in frame.around(tokenizer.encode(text))]
        if theirs(text).input_ids != ours:
            raise CheckpointError(
                f"transformers reads {text!r} as other ids with this layout's tokenizer than the run does: nothing was "
                "written; export with --to ctranslate2 or --to onnx, which keep the run's tokenizer"
            )


# ---- CTranslate2 -----------------------------------------------------------------------------------


@torch.inference_mode()
def check_ctranslate2(folder: Path, model: nn.Module, names: tuple[Sequence[str], Sequence[str]]) -> None:
    """Compare the engine's log-probabilities of a few targets with the run's.

    ``names`` are the entries of the source's and the target's vocabulary.

    Raises:
        CheckpointError: it does not open, or they differ.
    """
    import ctranslate2

    translates = model.cfg.encoder is not None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        engine: Any = (ctranslate2.Translator if translates else ctranslate2.Generator)(
            str(folder), device="cpu", compute_type="float32"
        )
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"ctranslate2 does not open the export: {str(error).splitlines()[0]}") from None
    source_names, target_names = names
    for example in examples(len(target_names), translates=translates, source_vocab=len(source_names)):
        target = [target_names[i] for i in example.target]
        if example.source is not None:
            source = [source_names[i] for i in example.source]
            (scored,) = engine.score_batch([source], [target])
            logits = model(torch.tensor([[1, *example.target]]), torch.tensor([[*example.source, EOS]]))
        else:
            (scored,) = engine.score_batch([[target_names[1], *target]])
            logits = model(torch.tensor([[1, *example.target]]))
        found = torch.tensor(scored.log_probs)
        compare("ctranslate2", found, _log_probs(logits[0], [*example.target, EOS])[: len(found)])


def _log_probs(logits: Float[Tensor, "T V"], ids: list[int]) -> Float[Tensor, " T"]:
    return logits.float().log_softmax(dim=-1)[torch.arange(len(ids)), torch.tensor(ids)]


# ---- llama.cpp --------------------------------------------------------------------------------------


@torch.inference_mode()
def check_gguf(path: Path, model: nn.Module, vocabulary: VocabularyMapping) -> None:
    """Compare the log-probabilities that llama.cpp computes for a few texts with the run's.

    Raises:
        CheckpointError: it does not open, or answers otherwise.
    """
    import llama_cpp  # pyright: ignore[reportMissingImports] - compiled from source: no part of what tests install

    try:
        opened: Any = llama_cpp.Llama(
            str(path), n_ctx=64, logits_all=True, type_k=0, type_v=0, n_threads=1, verbose=False
        )
    except ValueError as error:
        raise CheckpointError(f"llama.cpp does not open the export: {str(error).splitlines()[0]}") from None
    order = vocabulary.order()
    for example in examples(vocabulary.size + vocabulary.added, translates=False):
        target = torch.tensor([[1, *example.target]])
        target[target >= vocabulary.size] = 3
        opened.reset()
        opened.eval(_rows(order[target], vocabulary)[0].tolist())
        logits = torch.from_numpy(opened.scores[: target.shape[1]].copy())[None]
        compare("llama.cpp", *_comparable_logits(logits, model(target), order, vocabulary))


# ---- ONNX ------------------------------------------------------------------------------------------


@torch.inference_mode()
def check_onnx(folder: Path, model: nn.Module) -> None:
    """Compare the outputs of the graphs with the run's model, token by token where it generates text.

    Raises:
        CheckpointError: they do not open, or answer otherwise.
    """
    import onnxruntime

    try:
        graphs: dict[str, Any] = {
            path.stem: onnxruntime.InferenceSession(path) for path in sorted(folder.glob("*.onnx"))
        }
    except Exception as error:  # the library raises nothing more precise
        raise CheckpointError(f"onnxruntime does not open the export: {str(error).splitlines()[0]}") from None
    if isinstance(model, Encoder):
        _check_reader(graphs["model"], model)
        return
    if isinstance(model, TwoTowers):
        for name, graph in graphs.items():
            _check_reader(graph, getattr(model, name))
        return
    cfg: Any = model.cfg
    translates = cfg.encoder is not None
    for example in examples(cfg.vocab, translates=translates, source_vocab=cfg.source_vocab):
        given: dict[str, Any] = {}
        source = None if example.source is None else torch.tensor([[*example.source, EOS]])
        if source is not None and "encoder" in graphs:
            keep = np.ones(source.shape, dtype=bool)
            (memory,) = graphs["encoder"].run(None, {"ids": source.numpy(), "keep": keep})
            given = {"memory": memory, "keep": keep}
        target, found = torch.tensor([[1, *example.target]]), []
        wanted = model(target) if source is None else model(target, source)
        if "begin" in graphs:
            stepwise = _read_by_states(graphs, target, source)
            compare("onnxruntime", stepwise.log_softmax(-1), wanted[0].float().log_softmax(-1))
            continue
        past = np.zeros([d if isinstance(d, int) else 1 for d in graphs["step"].get_inputs()[1].shape], np.float32)
        past = past[:, :, :, :, :0]
        for i in range(target.shape[1]):
            logits, past = graphs["step"].run(None, {"token": target[:, i : i + 1].numpy(), "past": past} | given)
            found.append(torch.from_numpy(logits[0]))
        compare("onnxruntime", torch.stack(found).log_softmax(-1), wanted[0].float().log_softmax(-1))
        whole = _read_whole(graphs["decoder"], target, past[:, :, :, :, :0], given)
        compare("onnxruntime", whole.log_softmax(-1), wanted[0].float().log_softmax(-1))


def _read_by_states(graphs: dict[str, Any], target: Tensor, source: Tensor | None) -> Float[Tensor, "T V"]:
    """Return the logits of a target that is read token by token, each with the state that the one before left."""
    given: dict[str, Any] = {"token": target[:, :1].numpy()}
    if source is not None:
        given |= {"ids": source.numpy(), "keep": np.ones(source.shape, dtype=bool)}
    logits, *state = graphs["begin"].run(None, given)
    found = [torch.from_numpy(logits[0])]
    names = [entry.name for entry in graphs["step"].get_inputs()[1:]]
    for i in range(1, target.shape[1]):
        by_name = dict(zip(names, state, strict=True))
        logits, *state = graphs["step"].run(None, {"token": target[:, i : i + 1].numpy()} | by_name)
        found.append(torch.from_numpy(logits[0]))
    return torch.stack(found)


def _read_whole(graph: Any, target: Tensor, past: Any, given: dict[str, Any]) -> Float[Tensor, "T V"]:
    """Return the logits of a target that is read in two parts."""
    found, length = [], target.shape[1]
    for part in (target[:, : length // 2], target[:, length // 2 :]):
        mask = np.ones((1, past.shape[4] + part.shape[1]), dtype=bool)
        logits, past = graph.run(None, {"ids": part.numpy(), "mask": mask, "past": past} | given)
        found.append(torch.from_numpy(logits[0]))
    return torch.cat(found)


def _check_reader(graph: Any, model: Encoder) -> None:
    if isinstance(model.cfg.inputs, PatchInput):
        inputs = torch.linspace(-1, 1, model.cfg.inputs.channels * model.cfg.inputs.size[0] * model.cfg.inputs.size[1])
        inputs = inputs.view(1, model.cfg.inputs.channels, *model.cfg.inputs.size)
        (found,) = graph.run(None, {"inputs": inputs.numpy()})
        compare("onnxruntime", torch.from_numpy(found), model(inputs))
        return
    for example in examples(model.cfg.inputs.vocab or EOS + 2, translates=False):  # pyright: ignore[reportAttributeAccessIssue]
        ids = torch.tensor([[1, *example.target, EOS]])
        (found,) = graph.run(None, {"ids": ids.numpy(), "keep": np.ones(ids.shape, dtype=bool)})
        compare("onnxruntime", torch.from_numpy(found), model(ids))
