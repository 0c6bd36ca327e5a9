"""Imports and exports read text as their own library does, special tokens included."""

import json
import shutil

import foreign_text
import pytest
import torch
from tokenizers import AddedToken

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.cli import main
from dragoman.decode.chat_template import ChatTemplate
from dragoman.decode.generator import Generator
from dragoman.decode.search.greedy import Greedy
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.interchange.vocabulary import special_ids
from dragoman.text.chat_template_files import write_template_sources
from dragoman.text.tokens.tokenizer import BOS, EOS, PROMPT_FRAME, Tokenizer

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

NAMES = [("GPT-2", False), ("LLaMA", True), ("Qwen 2", False), ("BART", True), ("BERT", True)]
SOME = [foreign_text.Case(*pair) for pair in NAMES]
"""Few, for time: all families are counted by ``benchmarks/parity.py``."""
TEXTS = foreign_text.TEXTS[::5]


@pytest.mark.parametrize("case", SOME, ids=[f"{case.name}, {case.begins}" for case in SOME])
def test_texts_are_read_and_answered_as_their_library_does_in_both_directions(case, tmp_path):
    for what, (good, everything) in foreign_text.count(case, tmp_path, TEXTS).items():
        assert good == everything > 0, what


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """A chat model: two tokens that end a text, a chat template, and nothing before a text."""
    path = tmp_path_factory.mktemp("chat")
    foreign_text.make(foreign_text.Case("Mistral", False), path / "folder")
    settings = path / "folder" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": TEMPLATE}))
    (path / "folder" / "chat_template.jinja").write_text(TEMPLATE)
    generation = path / "folder" / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": [2, 6]}))
    import_checkpoint(path / "folder", path / "run")
    return path


TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def test_special_tokens_in_a_text_are_text_unless_asked_for(chat):
    tokenizer = load_model(chat / "run")[1]
    theirs = transformers.AutoTokenizer.from_pretrained(chat / "folder")
    text = "<|im_start|>The <s>door</s> is<|im_end|>"
    assert tokenizer.with_special_tokens().encode(text) == theirs(text).input_ids
    assert len(tokenizer.encode("<|im_start|>")) > 1
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_command_line_reads_special_tokens_where_asked(chat, capsys):
    said = []
    for option in ([], ["--special-tokens"]):
        arguments = ["generate", str(chat / "run"), "<|im_start|>The", "--search", "greedy", "--max-new-tokens", "4"]
        assert main([*arguments, "--format", "json", *option]) == 0
        said.append(json.loads(capsys.readouterr().out)["continuations"][0]["tokens"])
    assert said[0] != said[1]


def test_a_text_ends_at_any_of_the_tokens_that_end_one(chat):
    generator = Generator(*load_model(chat / "run")[::2])
    assert generator.tokenizer.ends == (6,)
    with_end = [g.continuations[0] for g in generator.generate(list(TEXTS), search=Greedy(), max_new_tokens=20)]
    assert all(6 not in one.tokens[:-1] for one in with_end)
    assert all(len(one.tokens) == len(one.token_log_probs) for one in with_end)
    assert all(one.log_prob == pytest.approx(sum(one.token_log_probs), abs=1e-4) for one in with_end)


MANY_ENDS = [2, *range(70, 170)]


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("ends", "tokens"), [(2, 6), ([2, 6], 12), (MANY_ENDS, 12), (MANY_ENDS, 3)])
def test_a_limit_and_further_ends_of_a_text_act_as_in_the_original(ends, tokens, early, beams, chat, tmp_path):
    shutil.copytree(chat / "folder", tmp_path / "folder")
    path = tmp_path / "folder" / "generation_config.json"
    own = {"eos_token_id": ends, "num_beams": beams, "early_stopping": early, "max_new_tokens": tokens}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    import_checkpoint(tmp_path / "folder", tmp_path / "run")
    generator = Generator.load(tmp_path / "run", precision="float32")
    order = origin_vocabulary(RunDirectory.open(tmp_path / "run")).order()
    original = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder").eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in TEXTS:
        ids = torch.tensor([reader(text).input_ids])
        if not ids.shape[1]:
            continue
        settings = {"do_sample": False, "suppress_tokens": [0, 1], "pad_token_id": 0}
        theirs = original.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
        ours = generator.generate([text])[0].continuations[0]
        assert order[list(ours.tokens)].tolist() == [token for token in theirs if token != 0]
        assert (ours.ended == "end") == (ours.tokens[-1] in (EOS, *generator.tokenizer.ends))


def test_chat_templates_are_kept_through_import_and_export(chat, tmp_path):
    from unittest import mock

    from dragoman.interchange import exporting

    for name, as_it_came in (("given back", True), ("written anew", False)):
        with mock.patch.object(exporting, "_is_as_it_came", return_value=as_it_came):
            exporting.export_huggingface(chat / "run", tmp_path / name)
        assert (tmp_path / name / "chat_template.jinja").read_text() == TEMPLATE
        assert json.loads((tmp_path / name / "tokenizer_config.json").read_text())["chat_template"] == TEMPLATE
        assert json.loads((tmp_path / name / "generation_config.json").read_text())["eos_token_id"] == [2, 6]


@pytest.mark.parametrize("as_it_came", [True, False])
@pytest.mark.parametrize("own", [None, {"default": "OWN"}, {"default": "OWN", "tool_use": "OWN TOOLS"}])
def test_an_export_has_the_chat_templates_that_chat_uses(own, as_it_came, chat, tmp_path, monkeypatch):
    from dragoman.interchange import exporting

    folder, run = tmp_path / "folder", tmp_path / "run"
    shutil.copytree(chat / "folder", folder)
    write_template_sources(folder, {"default": "FOLDER", "tool_use": "FOLDER TOOLS"})
    import_checkpoint(folder, run)
    if own:
        write_template_sources(run, own)
    monkeypatch.setattr(exporting, "_is_as_it_came", lambda *_: as_it_came)
    exporting.export_huggingface(run, tmp_path / "out", check=False)
    exported, ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "out"), ChatTemplate.load(run)
    for tools in (None, [{"type": "function", "function": {"name": "f"}}]):
        messages = [{"role": "user", "content": "x"}]
        theirs = exported.apply_chat_template(messages, tools=tools, tokenize=False)
        assert theirs == ours.render(messages, tools=tools, add_generation_prompt=False)


@pytest.mark.parametrize("case", [("BERT", True), ("Pegasus", True), ("Mistral", False)], ids=str)
def test_an_export_that_is_written_anew_keeps_what_the_folder_states(case, tmp_path, monkeypatch):
    from dragoman.interchange import exporting

    folder = tmp_path / "folder"
    foreign_text.make(foreign_text.Case(*case), folder)
    sides = {"model_max_length": 77, "padding_side": "left", "truncation_side": "left"}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | sides))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if (folder / "generation_config.json").is_file():
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"suppress_tokens": [9, 11]}))
    import_checkpoint(folder, tmp_path / "run")
    monkeypatch.setattr(exporting, "_is_as_it_came", lambda *_: False)
    exporting.export_huggingface(tmp_path / "run", tmp_path / "out")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for name, value in sides.items():
        assert getattr(found, name) == getattr(tokenizer, name) == value
    for role in ("unk_token", "sep_token", "cls_token", "mask_token", "pad_token", "eos_token"):
        if getattr(tokenizer, role) is not None:
            assert getattr(found, role) == getattr(tokenizer, role), role
    if (folder / "generation_config.json").is_file():
        stated = json.loads((tmp_path / "out" / "generation_config.json").read_text())["suppress_tokens"]
        assert {9, 11} <= set(stated)
        theirs, config = (json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "out"))
        assert config["max_position_embeddings"] == theirs["max_position_embeddings"] == 256


def test_an_empty_prompt_begins_with_the_beginning_where_nothing_stands_before_a_text(chat):
    generator = Generator.load(chat / "run")
    assert generator.tokenizer.frame(PROMPT_FRAME).around([]) == []
    assert generator.generate([""], search=Greedy(), max_new_tokens=2)[0].continuations[0].tokens


def test_a_stale_config_json_does_not_say_what_the_tokenizer_knows_better(tmp_path):
    foreign_text.make(foreign_text.Case("BERT", True), tmp_path / "folder")
    content = json.loads((tmp_path / "folder" / "config.json").read_text())
    (tmp_path / "folder" / "config.json").write_text(json.dumps(content | {"bos_token_id": 0, "eos_token_id": 0}))
    found = special_ids(tmp_path / "folder", content, content["vocab_size"], shape="encoder")
    assert (found.pad, found.bos, found.eos) == (0, 2, 3)
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]) == 0


def test_a_run_that_was_imported_before_frames_were_kept_goes_on_as_it_was(chat, tmp_path):
    shutil.copytree(chat / "run", tmp_path / "old", symlinks=True)
    path = tmp_path / "old" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    assert Tokenizer.load(path).frame(PROMPT_FRAME) == PROMPT_FRAME
    assert PROMPT_FRAME.around([7]) == [BOS, 7]


def test_a_tokenizer_of_a_file_that_a_run_trains_with_is_framed_as_in_training(chat, tmp_path):
    from dragoman.text.tokens.training import Loaded

    inner = RunDirectory.open(chat / "run").tokenizers()[0].inner
    inner.add_special_tokens([AddedToken("[X]", special=True)])
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.train(Loaded(path=str(tmp_path / "tokenizer.json")), [])
    assert tokenizer.frame(PROMPT_FRAME) == PROMPT_FRAME and tokenizer.eos == EOS
