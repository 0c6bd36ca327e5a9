"""A folder with everything that the commands of the documents name, at toy size: texts, run files, trained runs."""

import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import chat_templates
import foreign_text
import numpy as np
from PIL import Image
from tiny_tasks import run_files, write_texts

from dragoman.config import merge, to_dict
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint
from dragoman.model.transformer import TransformerConfig
from dragoman.presets import rewritten2026, vaswani2017
from dragoman.train import recipe
from dragoman.train.run import start

RUNS = {  # task -> the runs of it that documents name
    "translation": ["my-run", "other", "base", "large", "small", "de-en", "corpus", "demo-es", "t5", "a"],
    "language_modelling": ["my-language-model", "lm"],
    "classification": ["topics", "classify"],
    "images": ["digits", "pictures"],
    "tagging": ["names"],
    "question_answering": ["reader"],
    "contrastive": ["pairs"],
    "masked": ["reviews"],
    "denoising": ["denoiser"],
}
PRESETS = {  # how a preset's name begins -> its task
    "transformer": "translation",
    "lstm": "translation",
    "lm": "language_modelling",
    "mamba": "language_modelling",
    "classifier": "classification",
    "vit": "images",
    "tagger": "tagging",
    "reader": "question_answering",
    "towers": "contrastive",
    "encoder": "masked",
    "denoiser": "denoising",
}
PO = 'msgid ""\nmsgstr "Language: de\\nPlural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n'
XLIFF = """<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="a" datatype="plaintext"
 source-language="en" target-language="de"><body>{}</body></file></xliff>\n"""
TMX = """<tmx version="1.4"><header creationtool="a" creationtoolversion="1" segtype="sentence" o-tmf="a" adminlang="en"
 srclang="en" datatype="plaintext"/><body>{}</body></tmx>\n"""


def build(folder: Path) -> None:
    """Write texts and train a run of each task."""
    write_texts(folder)
    _write_parallel_text(folder)
    _write_documents(folder)
    _write_other_texts(folder)
    for task, names in RUNS.items():
        first, *others = [folder / "runs" / name for name in names]
        _train(toys(folder)[task], first)
        for other in others:
            shutil.copytree(first, other, symlinks=True)
    _train_special_runs(folder)
    _write_imports(folder)


def toys(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a run file of each task; the model that translates has a layout that exports know."""
    files = run_files(folder)
    for task in ("translation", "denoising"):
        files[task]["model"] = to_dict(vaswani2017(dim=16, heads=2, hidden=16, depth=2, dropout=0.1))
    translation = files["translation"]
    short, few = ({"kind": "table", "path": str(folder / name)} for name in ("short.tsv", "few.tsv"))  # ends soon
    data = {"train": [short], "valid": short, "test": few, "overlap": "keep"}
    train = {"budget": {"steps": 30}, "validate_every": 30, "keep": {"last": 10, "optimizer_states": 10}}
    files["translation"] = merge(translation, {"data": data, "train": train})
    cfg = rewritten2026(dim=16, heads=2, kv_heads=2, hidden=16, depth=2, encoder_depth=1, dropout=0.0)
    files["language_modelling"]["model"] = _decoder_alone(cfg)
    return files


def toy_presets(folder: Path) -> dict[str, Any]:
    """Return a toy for each preset whose task has one, by the preset's name."""
    files = {
        task: {key: value for key, value in plain.items() if key != "data"} for task, plain in toys(folder).items()
    }
    return {
        name: lambda plain=files[PRESETS[head]]: plain
        for name in recipe.PRESETS
        if (head := name.split("-")[0]) in PRESETS
    }


def _decoder_alone(cfg: TransformerConfig) -> dict[str, Any]:
    plain = to_dict(cfg)
    for block in plain["decoder"]["pattern"]:
        block["cross"] = None
    return plain | {"encoder": None, "scale_embedding": False, "tying": "none"}


def _train(plain: dict[str, Any], path: Path) -> None:
    for _ in start(recipe.load(plain), path).events():
        pass


def _train_special_runs(folder: Path) -> None:
    files = toys(folder)
    parts = [
        {"kind": "part", "tags": [tag], "name": tag, "pairs": {"kind": "table", "path": str(folder / name)}}
        for tag, name in (("2de", "short.tsv"), ("2es", "short.tsv"))
    ]
    _train(merge(files["translation"], {"data": {"train": parts}}), folder / "runs/many")
    reads = {"context": {"kind": "sentences_before", "sentences": 1}}
    _train(merge(files["translation"], {"data": reads}), folder / "runs/talks")
    adapters = {"run": str(folder / "runs/base"), "lora": {"rank": 2, "targets": ["*.q"]}}
    data, train = files["translation"]["data"], files["translation"]["train"]
    _train({"start_from": adapters, "data": data, "train": train}, folder / "runs/finetune")


def _write_imports(folder: Path) -> None:
    export_huggingface(folder / "runs/my-run", folder / "opus-mt-en-de", check=False)
    export_huggingface(folder / "runs/lm", folder / "Llama-3.2-1B", check=False)
    _write_mamba(folder / "mamba-130m-hf", tokenizer_of=folder / "Llama-3.2-1B")
    (folder / "imported").mkdir()
    for source, name in (
        ("lm", "Llama-3.2-1B"),
        ("my-run", "t5-small"),
        ("my-run", "flan-t5-small"),
        ("reviews", "bert"),
    ):
        shutil.copytree(folder / "runs" / source, folder / "imported" / name, symlinks=True)
    make_chat_model(folder / "imported" / "chat")
    questions = [{"prompt": "A red", "choices": ["dog", "cat"], "answer": i % 2} for i in range(4)]
    (folder / "arc.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    (folder / "conversations.jsonl").write_text(json.dumps([{"role": "user", "content": "A red dog?"}]) + "\n")


def make_chat_model(run: Path) -> None:
    """Import a chat model with random weights."""
    folder = run.with_name("chat-folder")
    foreign_text.make(foreign_text.Case("Mistral", False), folder)
    (folder / "chat_template.jinja").write_text(chat_templates.QWEN)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 6], "max_new_tokens": 5}))
    import_checkpoint(folder, run)
    shutil.rmtree(folder)


def _write_mamba(folder: Path, *, tokenizer_of: Path) -> None:
    """Write a folder of transformers with a Mamba of random weights, and another's tokenizer."""
    from transformers import MambaConfig, MambaForCausalLM

    vocabulary = json.loads((tokenizer_of / "config.json").read_text())["vocab_size"]
    cfg = MambaConfig(vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, state_size=4, eos_token_id=2)
    MambaForCausalLM(cfg).save_pretrained(folder)
    for path in tokenizer_of.glob("*token*"):
        shutil.copy(path, folder)


def _sentences(seed: int = 1) -> list[tuple[str, str]]:
    """Return pairs that are unlike each other, so that some can be held out."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 6))) for _ in range(400)]
    sources = [" ".join(draw.sample(words, k=draw.randint(2, 4))) for _ in range(60)]
    return [(source, source[::-1].upper()) for source in sources]


def _write_parallel_text(folder: Path) -> None:
    pairs = _sentences()

    def lines(name: str, rows: list[str]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{row}\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)

    for name in ("corpus.tsv", "mine.tsv", "old.tsv", "ours.tsv", "more.tsv", "test.tsv", "en-de.tsv", "en-es.tsv"):
        lines(name, [f"{source} {name[:2]}\t{target}" for source, target in pairs])
    for name in ("made-by-a-machine.tsv", "back.tsv", "questions.tsv", "plain.tsv"):
        lines(name, [f"{source}\t{target}" for source, target in pairs])
    for seed, name in enumerate(("train", "valid", "test", "talks", "crawl"), start=2):
        pairs = _sentences(seed)
        lines(f"{name}.en", [source for source, _ in pairs])
        lines(f"{name}.de", [target for _, target in pairs])
        lines(f"{name}.es", [target for _, target in pairs])
    pairs = _sentences()
    lines("short.tsv", [f"{source}\t{target[:1]}" for source, target in pairs])
    lines("few.tsv", [f"{source}\t{target[:1]}" for source, target in pairs[:8]])
    lines("k.csv", ["id,en,es", *(f"{i},{source},{target}" for i, (source, target) in enumerate(pairs))])
    lines("test.csv", ["id,en,es", *(f"{i},{source},{target}" for i, (source, target) in enumerate(pairs))])
    lines("table.csv", ["id,en", "1,red dog"])
    lines("memory.csv", ["English,German", *(f"{source},{target}" for source, target in pairs)])
    lines("news.csv", ["en,de,id", *(f"{source},{target},{i // 5}" for i, (source, target) in enumerate(pairs))])
    records = [json.dumps({"translation": {"en": source, "de": target}}) for source, target in pairs]
    lines("more.jsonl.gz", records)
    lines("ours.jsonl", [json.dumps({"source": source, "target": target + "S"}) for source, target in pairs])
    lines("clean.tsv.gz", [f"{source}\t{target}" for source, target in pairs])
    lines("reports.jsonl", [json.dumps({"report": source, "summary": target}) for source, target in pairs])
    for language, side in (("en", 0), ("es", 1)):
        strings = {f"k{i}": pair[side] for i, pair in enumerate(pairs)}
        lines(f"locales/{language}.json", [json.dumps(strings)])


def _write_documents(folder: Path) -> None:
    pairs = _sentences()
    po = PO + "".join(f'msgid "{source}"\nmsgstr "{target}"\n\n' for source, target in pairs[:40])
    (folder / "messages.po").write_text(po + 'msgid "red dog"\nmsgstr ""\n')
    for name in ("locale/de/LC_MESSAGES/app.po", "locale/de/more.po"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(po.replace('msgid "the', f'msgid "{Path(name).stem} the'))
    (folder / "app.po.gz").write_bytes(gzip.compress(po.encode()))
    (folder / "app.pot").write_text('msgid "red dog"\nmsgstr ""\n')
    unit = '<trans-unit id="{}"><source>{}</source><target>{}</target></trans-unit>'
    units = "".join(unit.format(i, *pair) for i, pair in enumerate(pairs))
    for name in ("app.xlf", "app.de.xlf", "messages.de.xlf"):
        (folder / name).write_text(XLIFF.format(units + '<trans-unit id="x"><source>red dog</source></trans-unit>'))
    unit = '<tu><tuv xml:lang="en"><seg>{}</seg></tuv><tuv xml:lang="de"><seg>{}</seg></tuv></tu>'
    memory = TMX.format("".join(unit.format(*pair) for pair in pairs))
    (folder / "memory.tmx").write_text(
        memory.replace("</body>", '<tu><tuv xml:lang="en"><seg>a dog</seg></tuv></tu></body>')
    )
    keyed = [json.dumps({f"k{i}": pair[side] for i, pair in enumerate(pairs)}) for side in (0, 1)]
    strings = [
        "<resources>" + "".join(f"<string name='k{i}'>{p[side]}</string>" for i, p in enumerate(pairs)) + "</resources>"
        for side in (0, 1)
    ]
    texts = {f"app/locales/{name}/more.json": text for name, text in zip(("en", "de"), keyed, strict=True)}
    texts |= {f"app/strings.{name}.xml": text for name, text in zip(("en", "de"), strings, strict=True)}
    strings = {
        source: {"localizations": {it: {"stringUnit": {"state": "translated", "value": target}} for it in ("de", "fr")}}
        for source, target in pairs
    }
    texts["Localizable.xcstrings"] = json.dumps({"sourceLanguage": "en", "strings": strings, "version": "1.0"})
    for name, text in (DOCUMENTS | texts | {"app/locales/de/more.po": po}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("memory.tmx.gz", "corpus.tmx.gz"):
        (folder / name).write_bytes(gzip.compress(memory.encode()))


DOCUMENTS = {
    "strings/en.json": '{"a": "red dog"}\n',
    "strings/de.json": '{"a": "roter Hund"}\n',
    "app/locales/en/a.json": '{"a": "red dog"}\n',
    "app/locales/en/b.yml": "en:\n  a: big car\n",
    "film.srt": "1\n00:00:01,000 --> 00:00:02,000\nred dog\n",
    "page.html": "<p>big <b>car</b></p>\n",
    "guide.md": "# red dog\n",
}


def _write_other_texts(folder: Path) -> None:
    short = "red dog\nthe big car\n"
    for name in ("a.txt", "b.txt", "new.txt", "prompts.txt", "readme.txt", "monolingual.de", "monolingual.en"):
        (folder / name).write_text(short)
    (folder / "input.txt").write_text(short * 12)
    (folder / "failures.tsv").write_text("a purple zebra\tARBEZ\n")
    (folder / "clean.txt").write_text("red dog\n")
    (folder / "corrupt.txt").write_text("red car\n")
    (folder / "parses.tsv").write_text("red\t2\ndog\t0\n")
    (folder / "castle.txt").write_text("the red house stands.\n")
    (folder / "lines.tsv").write_text("red dog\tGOD\n")
    (folder / "terms.tbx").write_text(
        "<tbx><text><body><conceptEntry><langSec xml:lang='en'><termSec><term>dog</term></termSec></langSec>"
        "<langSec xml:lang='de'><termSec><term>GOD</term></termSec></langSec></conceptEntry></body></text></tbx>"
    )
    (folder / "glossary.tsv").write_text("source\ttarget\tforbidden\ndog\tGOD\t\ncar\tRAC|rac\tOTUA*\n")
    texts = (folder / "texts.txt").read_text()
    for name in ("mine.txt", "books/one.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(texts)
    (folder / "articles.jsonl").write_text('{"text": "the red dog sees a car"}\n' * 3)
    for name in ("books/two.txt.gz", "reviews.txt.gz"):
        (folder / name).write_bytes(gzip.compress(texts.encode()))
    labelled = (folder / "labelled.tsv").read_text()
    for name, column in (("reviews.tsv", "sentence"), ("labels.tsv", "text")):
        (folder / name).write_text(f"{column}\tlabel\n" + labelled)
    shutil.copy(folder / "tagged.conll", folder / "train.conll")
    question = {
        "id": "1",
        "question": "which?",
        "answers": [{"text": "red", "answer_start": 4}],
        "is_impossible": False,
    }
    context = {"context": "the red house stands.", "qas": [question]}
    asked = {
        "version": "2",
        "data": [
            {"title": str(i), "paragraphs": [context | {"context": f"the red {text}"}]}
            for i, (text, _) in enumerate(_sentences())
        ],
    }
    for name in ("train-v2.0.json", "dev-v2.0.json"):
        (folder / name).write_text(json.dumps(asked))
    (folder / "asked.jsonl").write_text(json.dumps({"context": "a red dog", "question": "who?"}) + "\n")
    draw = np.random.default_rng(1)
    for number in range(40):
        path = folder / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (4, 4), dtype=np.uint8)).save(path)
    shutil.copy(folder / "pictures/cat/0.png", folder / "image.png")
    shutil.copy(folder / "pictures/cat/0.png", folder / "one.png")
    rows = [f"pictures/{('cat', 'dog')[n % 2]}/{n}.png\ta picture {n}" for n in range(40)]
    (folder / "captions.tsv").write_text("image\tcaption\n" + "\n".join(rows) + "\n")
