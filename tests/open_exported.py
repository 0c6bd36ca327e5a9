"""Open folders with code as anyone would, where this package cannot be imported; print what differs, as JSON.

    python open_exported.py FOLDER...

Each folder has a file ``expected.pt`` beside what was exported: inputs, and what the run's model answers.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.modules["dragoman"] = None  # pyright: ignore[reportArgumentType]: an import raises ImportError

import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def opened(folder: Path) -> Any:
    """Open a folder with the most precise of the classes that its configuration names."""
    named = json.loads((folder / "config.json").read_text())["auto_map"]
    name = next((name for name in named if name not in ("AutoConfig", "AutoModel")), "AutoModel")
    return getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()


def answer(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    reply = model(**given)
    if "start_logits" in reply:
        return torch.stack([reply["start_logits"], reply["end_logits"]], dim=-1)
    if reply.get("logits") is not None:
        return reply["logits"]
    return reply["last_hidden_state"] if reply.get("pooler_output") is None else reply["pooler_output"]


@torch.inference_mode()
def differences(folder: Path) -> dict[str, Any]:
    expected, model = torch.load(folder / "expected.pt"), opened(folder)
    given = expected["given"]
    far = (answer(model, given) - expected["answer"]).abs()
    if far.dim() > 2 and far.shape[:2] == given["attention_mask"].shape:  # nobody reads the logits of padding
        far = far[given["attention_mask"].bool()]
    found: dict[str, Any] = {"logits": float(far.max())}
    for number, (prompt, ids) in enumerate(expected.get("greedy", [])):
        options = {"max_new_tokens": len(ids), "min_new_tokens": 0, "do_sample": False}
        for cached in (True, False):
            written = model.generate(prompt, use_cache=cached, **options)[0]
            start = 1 if model.config.is_encoder_decoder else prompt.shape[1]
            if (said := written[start:].tolist()[: len(ids)]) != ids:
                found[f"greedy {number} {cached}"] = [said, ids]
        beams = [model.generate(prompt, num_beams=3, use_cache=cached, **options).tolist() for cached in (True, False)]
        if beams[0] != beams[1]:
            found[f"beams {number}"] = beams
    if "texts" in expected:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        for text, ids in expected["texts"].items():
            read = tokenizer(text).input_ids
            if read != ids or tokenizer.decode(read, skip_special_tokens=True) != text:
                found[f"text {text}"] = [read, ids]
    return found


if __name__ == "__main__":
    print(json.dumps({folder: differences(Path(folder)) for folder in sys.argv[1:]}))
