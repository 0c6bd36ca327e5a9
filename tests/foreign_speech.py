"""Whisper of `transformers` with random weights, in a folder as it is published, and what is compared with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import foreign
import foreign_text
import numpy as np
import torch

from dragoman.checkpoint import load_model
from dragoman.decode.transcriber import Transcriber
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.interchange.vocabulary import VocabularyMapping

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", "<|0.00|>", "<|0.02|>",
)  # fmt: skip
"""Tokens behind the pieces, the first of which ends, begins and pads texts."""
SIZES: tuple[dict[str, Any], ...] = (
    {"num_mel_bins": 16, "d_model": 24, "encoder_attention_heads": 3, "decoder_attention_heads": 3},
    {"num_mel_bins": 20, "d_model": 20, "encoder_attention_heads": 5, "decoder_attention_heads": 2,
     "activation_function": "relu", "decoder_layers": 3, "scale_embedding": True},
)  # fmt: skip
LONGEST = 20


def make(size: int, folder: Path, **generation: Any) -> tuple[Any, Any, Any]:
    """Write a folder with these settings of generation; return model, tokenizer and feature extractor."""
    import transformers as t

    vocab, merges = foreign_text.byte_pairs()
    plain = {name: i for i, name in enumerate(name for name in vocab if name not in foreign_text.ROLES)}
    tokenizer = t.WhisperTokenizer(plain, merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:-2])})
    tokenizer.add_tokens([t.AddedToken(name, normalized=False) for name in SPECIAL[-2:]])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    end, start = ids[SPECIAL[0]], ids[SPECIAL[1]]
    torch.manual_seed(size)
    config = t.WhisperConfig(
        **{"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 30, "decoder_ffn_dim": 33} | SIZES[size],
        vocab_size=len(tokenizer), max_source_positions=50, max_target_positions=40, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, begin_suppress_tokens=None,
    )  # fmt: skip
    model = t.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
        _make_ends_likely(model, end)
    stated = {
        "is_multilingual": True,
        "lang_to_id": {name: ids[name] for name in ("<|en|>", "<|de|>", "<|fr|>")},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "suppress_tokens": [start, 5, 9],
        "begin_suppress_tokens": [end, 7],
        "max_length": 40,
    }
    for name, value in (stated | generation).items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    extractor = t.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=1)
    extractor.save_pretrained(folder)
    return model, tokenizer, extractor


def _make_ends_likely(model: Any, end: int) -> None:
    ids = torch.randint(10, 200, (8, 12))
    features = torch.randn(8, model.config.num_mel_bins, 100)
    seen = model(input_features=features, decoder_input_ids=ids, output_hidden_states=True)
    mean, spread = seen.decoder_hidden_states[-1].flatten(0, 1).mean(dim=0), seen.logits.std()
    row = model.get_output_embeddings().weight[end]
    row += mean * (3.0 * spread - seen.logits[..., end].mean()) / mean.square().sum()


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Return a sum of tones that come and go, in noise."""
    draw, time = np.random.default_rng(seed), np.arange(int(16_000 * seconds)) / 16_000
    tones = [np.sin(2 * np.pi * draw.uniform(90, 4000) * time) * np.sin(draw.uniform(1, 9) * time) for _ in range(5)]
    return (0.1 * np.sum(tones, axis=0) + 0.01 * draw.standard_normal(len(time))).astype(np.float32)


class Made:
    """A folder, its model, tokenizer and extractor, and the run that it becomes."""

    def __init__(self, path: Path, size: int = 0, **generation: Any):
        self.folder, self.run = path / "folder", path / "run"
        self.model, self.tokenizer, self.extractor = make(size, self.folder, **generation)
        import_checkpoint(self.folder, self.run)

    @property
    def vocabulary(self) -> VocabularyMapping:
        found = origin_vocabulary(foreign.RunDirectory.open(self.run))
        assert found is not None
        return found

    def features(self, waves: Sequence[np.ndarray]) -> torch.Tensor:
        return self.extractor(list(waves), sampling_rate=16_000, return_tensors="pt").input_features

    @torch.inference_mode()
    def logit_errors(self, count: int, *, cached: bool) -> list[float]:
        """For each speech, the largest difference of a logit of a random text after it."""
        model, _, _ = load_model(self.run)
        order, found = self.vocabulary.order(), []
        own, inverse = order < self.vocabulary.size, order.argsort()
        for seed in range(count):
            features = self.features([speech(1, seed)])
            ids = torch.randint(0, self.vocabulary.size - 20, (1, 9), generator=torch.Generator().manual_seed(seed))
            wanted = self.model(input_features=features, decoder_input_ids=ids).logits[0]
            ours, frames = inverse[ids], features.transpose(1, 2)
            if cached:
                state = model.start(frames)
                got = torch.cat([model.decode(ours[:, i : i + 1], state) for i in range(ids.shape[1])], dim=1)[0]
            else:
                got = model(ours, frames)[0]
            found.append(float((got[..., own] - wanted[..., order[own]]).abs().max()))
        return found

    @torch.inference_mode()
    def says(self, wave: np.ndarray, **options: Any) -> tuple[str, list[int] | None]:
        """Return their text and its ids, the end left out; no ids where it comes to no end."""
        out = self.model.generate(self.features([wave]), max_new_tokens=LONGEST, **options)[0].tolist()
        end = self.model.config.eos_token_id
        ids = out[: out.index(end)] if end in out else out if len(out) < LONGEST else None
        return self.tokenizer.decode(out, skip_special_tokens=True), ids

    def identical(self, beams: int, count: int, **options: Any) -> tuple[int, int]:
        """How many answers to speeches have the ids of those of `generate`, and of how many that it ends."""
        transcriber = Transcriber.load(self.run, precision="float32")
        waves = [speech(1, 100 + seed) for seed in range(count)]
        wanted = [self.says(wave, num_beams=beams, **options)[1] for wave in waves]
        got = transcriber.transcribe(waves, beam=beams, max_new_tokens=LONGEST, **options)
        order = self.vocabulary.order()
        ours = [order[list(one.tokens[0])].tolist()[:-1] for one in got]
        pairs = [(a, b) for a, b in zip(ours, wanted, strict=True) if b is not None]
        return sum(a == b for a, b in pairs), len(pairs)

    def comes_back(self, path: Path) -> bool:
        """Whether import, export and import again give the same files to the bit, and the export their own tensors."""
        from safetensors.torch import load_file

        export_huggingface(self.run, path / "again")
        import_checkpoint(path / "again", path / "second")
        files = [run / "checkpoints" / "step-000000" / "model.safetensors" for run in (self.run, path / "second")]
        theirs, ours = (load_file(folder / "model.safetensors") for folder in (self.folder, path / "again"))
        same = theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)
        return same and files[0].read_bytes() == files[1].read_bytes()


def stated(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "generation_config.json").read_text())
