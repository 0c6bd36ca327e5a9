"""Models that were exported from Dragoman, as transformers calls them.

B batch, T length, S source length, D width, V vocabulary, K classes.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import ModelOutput

from dragoman.interchange.remote_code.configuration_dragoman import DragomanConfig
from dragoman.interchange.remote_code.network_dragoman import ExportedCache, Frames, Tokens, read_part

CACHE = ALL_CACHE_NAMES[0]
"""Name of a cache among the arguments of a model: it differs between versions of transformers."""


class DragomanCache:
    """State of the network after the tokens so far, for ``generate``."""

    is_compileable = False

    def __init__(self, state: Any, tokens: int = 0):
        self.state, self.tokens = state, tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens so far, padding included."""
        return self.tokens

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Continue row i from row ``beam_idx[i]``."""
        self.state.reorder(beam_idx)


@dataclass
class DragomanOutput(ModelOutput):
    """Logits (B, T, V), and the cache to continue with."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cache: Any = None


@dataclass
class DragomanSource(ModelOutput):
    """An encoded source: a state without target tokens, and the number of sentences."""

    state: Any = None
    sentences: int | None = None


class DragomanPreTrainedModel(PreTrainedModel):
    """Base of the models: a network, built from its configuration."""

    config_class = DragomanConfig
    base_model_prefix = "network"
    main_input_name = "input_ids"

    def __init__(self, config: DragomanConfig):
        super().__init__(config)
        with torch.device("cpu"):  # not the meta device: some parts compute constants when they are built
            self.network = read_part(config.network).build()
        self._tied_weights_keys = _tied(self)  # pyright: ignore[reportAttributeAccessIssue]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the initial values that PyTorch's layers have."""


def _tied(model: nn.Module) -> dict[str, str]:
    """Return the names of weights that are the same as an earlier one, with the name of that one."""
    first: dict[int, str] = {}
    pairs = model.named_parameters(remove_duplicate=False)
    return {name: first[id(value)] for name, value in pairs if first.setdefault(id(value), name) != name}


def _tokens(ids: torch.Tensor, mask: torch.Tensor | None = None, types: torch.Tensor | None = None) -> Any:
    """Return ids with their mask, which is left out where nothing is padded, and their token types."""
    keep = None if mask is None else mask[:, -ids.shape[1] :].bool()
    return Tokens(ids, None if keep is None or bool(keep.all()) else keep, None, types)


def _source(
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    pixel_values: torch.Tensor | None = None,
    input_features: torch.Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """Return what an encoder reads: ids, images or float frames."""
    if pixel_values is not None:
        return pixel_values
    if input_features is not None:
        return Frames(input_features, None if attention_mask is None else attention_mask.bool())
    if input_ids is None:
        raise ValueError("give input_ids, pixel_values or input_features")
    return _tokens(input_ids, attention_mask, token_type_ids)


# ---- models that generate ----------------------------------------------------------------------------


class _Generating(DragomanPreTrainedModel, GenerationMixin):
    """Decoding with a cache of our own kind."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def get_input_embeddings(self) -> nn.Module:
        return self.network.embed.tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.network.output

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: torch.Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        cache, ids = kwargs.get(CACHE), "decoder_input_ids" if self.config.is_encoder_decoder else "input_ids"
        names = ("attention_mask", "encoder_outputs", "use_cache")
        return {name: kwargs.get(name) for name in names} | {
            ids: input_ids if cache is None else input_ids[:, cache.get_seq_length() :],
            "cache": cache,
        }

    def _update_model_kwargs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, outputs: Any, model_kwargs: dict[str, Any], **options: Any
    ) -> Any:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **options)
        if outputs.get("cache") is not None:
            model_kwargs[CACHE] = outputs["cache"]
        return model_kwargs

    def _read(self, tokens: Any, cache: DragomanCache | None, begin: Any, loss: Any) -> DragomanOutput:
        """Return the logits after tokens that follow those in the cache; without one, ``begin`` returns a state."""
        cache = DragomanCache(begin()) if cache is None else cache
        logits = self.network.decode(tokens, cache.state)
        cache.tokens += tokens.ids.shape[1]
        return DragomanOutput(loss=loss(logits), logits=logits, cache=cache)


class DragomanForCausalLM(_Generating):
    """Language model."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: DragomanCache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> DragomanOutput:
        tokens = _tokens(input_ids, attention_mask)
        if cache is not None or use_cache:
            return self._read(tokens, cache, lambda: self.network.start(None, ExportedCache()), lambda logits: None)
        logits = self.network(tokens)
        loss = None if labels is None else _cross_entropy(logits[:, :-1], labels[:, 1:])
        return DragomanOutput(loss=loss, logits=logits)


class DragomanEncoder(nn.Module):
    """Encoder of a sequence-to-sequence model, as ``generate`` calls it."""

    main_input_name = "input_ids"

    def __init__(self, model: "DragomanForSeq2SeqLM"):
        super().__init__()
        self.start = lambda source: model.network.start(source, ExportedCache())

    def forward(self, *ids: torch.Tensor, **kwargs: Any) -> DragomanSource:
        source = _source(*ids, **kwargs)
        rows = len(source if isinstance(source, torch.Tensor) else source[0])
        return DragomanSource(state=self.start(source), sentences=rows)


class DragomanForSeq2SeqLM(_Generating):
    """Translator, or any other model that writes one text for another, or for an image."""

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return DragomanEncoder(self)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: DragomanSource | None = None,
        cache: DragomanCache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> DragomanOutput:
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids, or labels to compute a loss for")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)

        def begin() -> Any:
            if encoder_outputs is None:
                return self.network.start(_source(input_ids, attention_mask, **kwargs), ExportedCache())
            state = copy.deepcopy(encoder_outputs["state"])  # the tokens of this target go into a state of their own
            if (beams := len(decoder_input_ids) // encoder_outputs["sentences"]) > 1:
                state.expand(beams)
            return state

        def loss(logits: torch.Tensor) -> torch.Tensor | None:
            return None if labels is None else _cross_entropy(logits, labels)

        if cache is None and encoder_outputs is None and not use_cache:
            logits = self.network(_tokens(decoder_input_ids), _source(input_ids, attention_mask, **kwargs))
            return DragomanOutput(loss=loss(logits), logits=logits)
        return self._read(_tokens(decoder_input_ids), cache, begin, loss)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels, one place later, after the token that texts begin with."""
        first = torch.full_like(labels[:, :1], self.config.decoder_start_token_id)
        shifted = torch.cat([first, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id or 0)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of all labels but -100."""
    return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten())


# ---- models that read --------------------------------------------------------------------------------


class DragomanModel(DragomanPreTrainedModel):
    """Encoder without a task, or with one vector for the whole input: ``pooler_output``."""

    def forward(self, input_ids: torch.Tensor | None = None, **kwargs: Any) -> BaseModelOutputWithPooling:
        hidden, keep = self.network.encode(_source(input_ids, **kwargs))
        vector = self.network.head(hidden, keep)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=None if vector.shape == hidden.shape else vector
        )


class DragomanForMaskedLM(DragomanPreTrainedModel):
    """Masked language model."""

    def forward(
        self, input_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> MaskedLMOutput:
        logits = self.network(_source(input_ids, **kwargs))
        return MaskedLMOutput(loss=None if labels is None else _cross_entropy(logits, labels), logits=logits)


class DragomanForSequenceClassification(DragomanPreTrainedModel):
    """Classifier of texts, images or frames: one class, several, or values, as ``problem_type`` says."""

    def forward(
        self, input_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        logits = self.network(_source(input_ids, **kwargs))
        return SequenceClassifierOutput(loss=None if labels is None else self._loss(logits, labels), logits=logits)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == "regression":
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
        if self.config.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return _cross_entropy(logits, labels)


class DragomanForImageClassification(DragomanForSequenceClassification):
    """Classifier of images."""

    main_input_name = "pixel_values"

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        return super().forward(pixel_values=pixel_values, labels=labels)


class DragomanForTokenClassification(DragomanPreTrainedModel):
    """Tagger: logits of classes for each token."""

    def forward(
        self, input_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> TokenClassifierOutput:
        logits = self.network(_source(input_ids, **kwargs))
        return TokenClassifierOutput(loss=None if labels is None else _cross_entropy(logits, labels), logits=logits)


class DragomanForQuestionAnswering(DragomanPreTrainedModel):
    """Reader: the logits that an answer starts at a token, and that it ends there."""

    def forward(self, input_ids: torch.Tensor | None = None, **kwargs: Any) -> QuestionAnsweringModelOutput:
        if input_ids is not None and kwargs.get("token_type_ids") is None:  # 1 behind the token that ends the question
            ends = (input_ids == self.config.eos_token_id).long()
            kwargs["token_type_ids"] = (ends.cumsum(dim=1) - ends).clamp(max=1)
        start, end = self.network(_source(input_ids, **kwargs)).unbind(dim=-1)
        return QuestionAnsweringModelOutput(start_logits=start, end_logits=end)


@dataclass
class DragomanTowersOutput(ModelOutput):
    """Vectors of both sides, and the scaled similarity of each to each."""

    logits: torch.Tensor | None = None
    first_embeds: torch.Tensor | None = None
    second_embeds: torch.Tensor | None = None


class DragomanTowersModel(DragomanPreTrainedModel):
    """Two encoders whose vectors are compared: texts with texts, or texts with images."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        second_input_ids: torch.Tensor | None = None,
        second_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> DragomanTowersOutput:
        """Compare the texts ``input_ids`` with the images ``pixel_values``, or with the texts ``second_input_ids``.

        Images belong to the encoder that reads images, whichever that is.
        """
        texts = _source(input_ids, attention_mask)
        if pixel_values is None:
            given = texts, _source(second_input_ids, second_attention_mask)
        else:
            given = (pixel_values, texts) if self.images == "first" else (texts, pixel_values)
        a, b = self.network.first(given[0]), self.network.second(given[1])
        return DragomanTowersOutput(logits=self.network.similarity(a, b), first_embeds=a, second_embeds=b)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return a vector of length 1 for each text, by the first encoder that reads texts."""
        encoder = self.network.second if self.images == "first" else self.network.first
        return encoder(_source(input_ids, attention_mask))

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return a vector of length 1 for each image."""
        return (self.network.first if self.images == "first" else self.network.second)(pixel_values)

    @property
    def images(self) -> str:
        """Name of the encoder that reads images; ``second`` where none does."""
        kind = type(self.network.first.inputs).__name__  # by name: an export without images lacks the class
        return "first" if kind == "PatchEmbedding" else "second"
