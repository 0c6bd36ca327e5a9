"""llama.cpp as a peer of ../lm_decode.py: run by the Python of an environment that has llama-cpp-python and gguf.

    PYTHON benchmarks/peers/llama_peer.py HUGGINGFACE_FOLDER float32|bfloat16|int8

Writes the folder's LLaMA as GGUF and loads it; then answers each line ``TOKENS`` of its input with one line of JSON:
the CPU seconds and the greedy tokens after the prompt. One thread; keys and values as llama.cpp keeps them, in float16.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import gguf  # pyright: ignore[reportMissingImports]
import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np

PROMPT, SAID = [501, 602, 703, 804], 2
"""Tokens that may be said begin with this one: padding and begin-of-sentence lie below."""


def tensors(path: Path):
    """Of a file of safetensors in float32, name and numbers."""
    raw = path.read_bytes()
    behind = 8 + int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8:behind]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield name, np.frombuffer(raw[behind + start : behind + end], np.float32).reshape(entry["shape"])


def write_gguf(folder: Path, to: Path, numbers: str) -> None:
    cfg = json.loads((folder / "config.json").read_text())
    heads, depth = cfg["num_attention_heads"], cfg["num_hidden_layers"]
    kinds = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0"}
    kind = gguf.GGMLQuantizationType[kinds[numbers]]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, depth)
    writer = gguf.GGUFWriter(str(to), "llama")
    writer.add_context_length(cfg["max_position_embeddings"])
    writer.add_embedding_length(cfg["hidden_size"])
    writer.add_block_count(depth)
    writer.add_feed_forward_length(cfg["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(cfg["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(cfg["rms_norm_eps"])
    writer.add_rope_dimension_count(cfg["head_dim"])
    writer.add_rope_freq_base(cfg["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(cfg["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for name, x in tensors(folder / "model.safetensors"):
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp turns neighbours, Hugging Face halves
            x = x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        own = gguf.GGMLQuantizationType.F32 if x.ndim == 1 else kind
        data = gguf.quants.quantize(np.ascontiguousarray(x), own)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Model:
    def __init__(self, path: Path):
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_threads, settings.n_threads_batch = 256, 1, 1
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def write(self, tokens: int) -> list[int]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        given, said = PROMPT, []
        for _ in range(tokens):
            batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * len(given))(*given), len(given))
            assert llama_cpp.llama_decode(self.context, batch) == 0
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (self.vocab,))
            given = [int(logits[SAID:].argmax()) + SAID]
            said += given
        return said


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(Path(sys.argv[1]), path, sys.argv[2])
        model = Model(path)
        for line in sys.stdin:
            began = time.process_time()
            said = model.write(int(line))
            print(json.dumps([time.process_time() - began, said]), flush=True)


if __name__ == "__main__":
    main()
