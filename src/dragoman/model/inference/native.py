"""Transformer decoding by our C kernels: one call for a whole step, without Python between layers.

A step of a small model starts some two hundred operations, each of which costs more to start than to run; here it is
one. Results equal those of ``tower.py``, the slow twin, as tests check. Anything that the kernels do not support
(relative biases, experts, windows with sinks, caches other than the default one) runs there.

B batch, T length, D width, V vocabulary, N sentences, S source length, R rows.
"""

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.caches.cache import DEFAULT, Cache, PooledCache, Preallocated
from dragoman.model.caches.state import KVPolicy
from dragoman.model.caches.storage import Float32, Unchanged
from dragoman.model.exact import hooks_of
from dragoman.model.inference.known import UnknownToKernels, check_known
from dragoman.model.inference.layouts import Panels
from dragoman.model.inference.native_tower import EncodedTexts, NativeTower
from dragoman.model.inference.slots import SlotPool, Slots, first_of
from dragoman.model.inputs import Embedding, check_length
from dragoman.model.interface import DecodingState
from dragoman.model.positions.tokens import Frames, Tokens, positions_of
from dragoman.model.transformer import Transformer
from dragoman.native.library import library

_CPU = torch.device("cpu")


class NativeTransformer(Transformer):
    """Transformer that decodes by our C kernels, and falls back to PyTorch for anything they do not support."""

    def __init__(self, model: Transformer):
        """
        Args:
            model: packed in panels; its parts are taken over.

        Raises:
            UnknownToKernels: a part that the kernels cannot compute.
        """
        nn.Module.__init__(self)
        if type(model) is not Transformer:
            raise UnknownToKernels(f"a model that is a {type(model).__name__}")
        check_known(model.cfg, "model")
        self.__setstate__(vars(model))  # all its parts
        self.hooks = hooks_of(model)
        if type(model.output) is not Panels:
            raise UnknownToKernels("weights that are not in panels")
        self.native_decoder = NativeTower(model.embed, model.decoder, model.output)
        if model.cfg.encoder is None:
            return
        self.native_encoder = self.build_native_encoder(model)

    @property
    def device(self) -> torch.device:
        return _CPU

    def __reduce__(self) -> "tuple[type[NativeTransformer], tuple[Transformer]]":
        """Return how to copy or pickle the model: from its PyTorch parts, since addresses hold here alone."""
        plain, own = Transformer.__new__(Transformer), ("hooks", "native_decoder", "native_encoder")
        plain.__setstate__({name: value for name, value in vars(self).items() if name not in own})
        return NativeTransformer, (plain,)

    def build_native_encoder(self, model: Transformer) -> NativeTower | None:
        """Return the encoder for the kernels; None where only PyTorch can encode the source."""
        try:
            check_known(model.cfg.encoder, "model.encoder")
            return NativeTower(model.source_embed, model.encoder) if isinstance(model.source_embed, Embedding) else None
        except UnknownToKernels:
            return None

    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        if not _is_known(policy) or any(self.hooks):
            return super().start(source, policy)
        library().use_torch_threads()
        if (source is None) != (self.cfg.encoder is None):
            self.encode(source)  # which tells what is wrong
        decoder = self.native_decoder
        shared = isinstance(policy, PooledCache)
        pool = self.shared_pool(policy) if shared else SlotPool(decoder.kv_widths, decoder.dtype)
        return Slots(pool) if source is None else self.read_source(source, pool)

    def shared_pool(self, policy: PooledCache) -> SlotPool:
        """Return the pool that all states of this model under ``policy`` share."""
        key = (*self.native_decoder.kv_widths, self.native_decoder.dtype)
        if key not in policy.pools:
            policy.pools[key] = SlotPool(key[:-1], self.native_decoder.dtype, capacity=policy.capacity)
        found = policy.pools[key]
        assert isinstance(found, SlotPool)
        return found

    def read_source(self, source: Tensor | Tokens | Frames, pool: SlotPool) -> Slots:
        """Encode the source, and project its keys and values for every layer of the decoder."""
        encoded, decoder = self.encoded(source), self.native_decoder
        sources = SlotPool(decoder.source_widths, decoder.dtype, slots=max(1, encoded.tokens))
        sources.used = encoded.tokens
        addresses = ctypes.addressof(sources.addresses)
        library().project_sources(decoder.address, encoded.hidden.data_ptr(), encoded.tokens, addresses)
        return Slots(pool, sources, encoded.first, encoded.lengths)

    def encoded(self, source: Tensor | Tokens | Frames) -> EncodedTexts:
        """Return the texts as hidden vectors, by the kernels where these know the encoder."""
        tokens, pad = source, None
        if isinstance(source, Tensor) and source.dim() == 2:
            tokens, pad = Tokens(source), self.cfg.pad  # the kernels find the padding themselves
        if self.native_encoder is not None and isinstance(tokens, Tokens) and tokens[2:] == (None, None):
            if self.max_length is not None and tokens.ids.shape[1] > self.max_length:
                check_length(positions_of(tokens if pad is None else self.tokens(tokens.ids)), self.max_length)
            return self.native_encoder.encode(tokens.ids, tokens.keep, pad)
        memory = self.encode(source)
        assert memory is not None
        keep, hidden = memory.positions.keep, memory.x.float()
        keep = torch.ones(hidden.shape[:2], dtype=torch.bool) if keep is None else keep
        count = keep.sum(dim=1).int()
        return EncodedTexts(hidden[keep].contiguous(), int(count.sum()), first_of(count), count)

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        if not isinstance(state, Slots):
            return super().decode(tokens, state)
        if not isinstance(tokens, Tokens):
            tokens = Tokens(tokens) if tokens.shape[1] == 1 else self.tokens(tokens)
        (R, T), keep = tokens.ids.shape, tokens.keep
        if self.max_length is not None and state.length + T > self.max_length:
            self.check_length(tokens, state)
        logits = state.read(self.native_decoder, tokens.ids, keep)
        if keep is not None:
            logits = logits.new_zeros(R, T, logits.shape[1]).masked_scatter_(keep[..., None], logits)
        return self.capped(logits.view(R, T, -1))

    def check_length(self, tokens: Tokens, state: Slots) -> None:
        """Check the length of texts.

        Raises:
            DataError: a text longer than ``max_length``.
        """
        positions = positions_of(tokens)
        before = state.lengths[:, None] if state.length else 0
        check_length(positions._replace(pos=positions.pos + before), self.max_length, state.length)


def _is_known(policy: KVPolicy) -> bool:
    """Return whether the kernels' own cache may replace this one: exact, and with the default layout."""
    if isinstance(policy, PooledCache):
        policy = policy.cache
    if type(policy) is not Cache:
        return False
    return type(policy.layout) is Preallocated and type(policy.storage) in (Unchanged, Float32)
