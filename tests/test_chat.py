"""Chat models as people use them: conversations in Python, at the terminal and in files; their own settings."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import chat_templates
import foreign_text
import pytest
import torch

from dragoman.api.run import Run
from dragoman.cli import main
from dragoman.decode.chat import ChatModel
from dragoman.decode.constraints.repetition import NoRepeat, RepetitionPenalty
from dragoman.decode.generation_settings import GenerationSettings, read_generation_settings
from dragoman.decode.generator import Generator
from dragoman.decode.messages import with_continuation
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Average
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.speculative import Speculative
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.interchange.generation import OBEYED
from dragoman.interchange.importing import import_checkpoint, import_notes

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

HELLO = [{"role": "user", "content": "The door is open."}]
TALK = [*HELLO, {"role": "assistant", "content": "the light"}, {"role": "user", "content": "is on"}]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A chat model whose template ends a turn with a token that no file names among those that end a text."""
    path = tmp_path_factory.mktemp("chat")
    foreign_text.make(foreign_text.Case("Mistral", False), path / "folder")
    change(path / "folder" / "tokenizer_config.json", {"chat_template": chat_templates.CHATML})
    (path / "folder" / "chat_template.jinja").write_text(chat_templates.CHATML)
    import_checkpoint(path / "folder", path / "run")
    return path


@pytest.fixture
def run(world) -> Path:
    return world / "run"


@pytest.fixture
def settings(run):
    """Return a function that says what generation_config.json holds, until the test ends."""
    path = run / "origin" / "generation_config.json"
    before = path.read_text()
    yield lambda **given: path.write_text(json.dumps(given))
    path.write_text(before)


def change(path: Path, more: dict) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def said(capsys) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


# ---- in Python ------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_conversations_are_answered_as_transformers_answers_them(world):
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(world / "folder").eval()
    model, compared = ChatModel.load(world / "run"), 0
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for messages in (HELLO, TALK, [chat_templates.SYSTEM, *TALK]):
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        never = [theirs.config.pad_token_id, theirs.config.bos_token_id]
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, suppress_tokens=never,
            eos_token_id=[theirs.config.eos_token_id, end], pad_token_id=0,
        )  # fmt: skip
        wanted = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        found = model.reply([messages], search=Greedy(), max_new_tokens=8)[0]
        assert found.text == wanted.replace("\ufffd", "")
        assert found.prompt == tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        compared += 1
    assert compared == 3


def test_answers_do_not_depend_on_the_batch_and_streams_spell_them(run):
    model = ChatModel.load(run)
    together = model.reply([HELLO, TALK, HELLO], search=Greedy(), max_new_tokens=10)
    for messages, found in zip((HELLO, TALK), together, strict=False):
        assert model.reply([messages], search=Greedy(), max_new_tokens=10)[0].text == found.text
        assert "".join(model.stream(messages, search=Greedy(), max_new_tokens=10)) == found.text


@pytest.mark.parametrize(
    "search",
    [
        *(Greedy(), Sample(), Sample(samples=2), Beam(size=1), Beam(size=2), Speculative()),
        Speculative(search=Sample(samples=2)),
    ],
    ids=str,
)
def test_what_can_be_streamed_is_what_streams_take(search, run):
    model = ChatModel.load(run)
    if model.can_stream(search):
        pieces = model.stream(HELLO, search=search, max_new_tokens=6, seed=3)
        assert "".join(pieces) == model.reply([HELLO], search=search, max_new_tokens=6, seeds=[3])[0].text
    else:
        with pytest.raises(ConfigError, match="streamed"):
            model.stream(HELLO, search=search)


def test_a_run_loads_its_chat_model(run):
    said = [
        model.reply([HELLO], search=Greedy(), max_new_tokens=6)[0].text
        for model in (Run(run).chat_model(), Run(run).chat_model("last", device="cpu"), ChatModel.load(run))
    ]
    assert said[0] == said[1] == said[2]


def test_an_answer_ends_where_the_template_ends_a_turn(run):
    model = ChatModel.load(run)
    end = model.generator.tokenizer.find_mark("<|im_end|>")
    assert model.ends == (end,) and end not in model.generator.tokenizer.ends
    found = [g.continuations[0] for g in model.reply([HELLO] * 30, search=Sample(), seeds=range(30), max_new_tokens=40)]
    assert all(end not in one.tokens[:-1] for one in found)
    assert any(one.tokens[-1] == end and one.ended == "end" for one in found)


def test_a_conversation_that_cannot_be_read_is_named(run, monkeypatch):
    model = ChatModel.load(run)
    with pytest.raises(DataError, match="conversation 2: message 1: has no role"):
        model.reply([HELLO, [{"content": "x"}]])
    monkeypatch.setattr(type(model.generator.model), "max_length", 100)
    with pytest.raises(DataError, match="tokens, and the model reads"):
        model.reply([[{"role": "user", "content": "door " * 500}]])


@pytest.mark.parametrize("name", ["seed", "seeds", "batch_tokens", "progress", "temprature"])
def test_answers_have_the_settings_of_the_function_that_makes_them(run, name):
    model = ChatModel.load(run)
    values = {"seed": 1, "seeds": [1], "batch_tokens": 99, "progress": lambda done, count: None, "temprature": 1}
    for make, function in (
        (lambda **given: model.reply([HELLO], **given)[0].text, Generator.generate),
        (lambda **given: "".join(model.stream(HELLO, **given)), Generator.stream),
    ):
        if name in inspect.signature(function).parameters:
            assert isinstance(make(max_new_tokens=2, **{name: values[name]}), str)
        else:
            with pytest.raises(ConfigError, match=f"{name}: no such setting of an answer; known: .*max_new_tokens"):
                make(**{name: values[name]})


def test_the_last_message_may_be_continued(run):
    model = ChatModel.load(run)
    begun = [*HELLO, {"role": "assistant", "content": "the light is"}]
    found = model.reply([begun], continue_final_message=True, search=Greedy(), max_new_tokens=3)[0]
    assert found.prompt.endswith("<|im_start|>assistant\nthe light is")


# ---- at the command line --------------------------------------------------------------------------------

BRIEF = ["--search", "greedy", "--max-new-tokens", "6"]


def test_one_message_is_answered(run, capsys):
    assert main(["generate", str(run), "The door is open.", "--chat", *BRIEF]) == 0
    wanted = ChatModel.load(run).reply([HELLO], search=Greedy(), max_new_tokens=6)[0].text
    assert said(capsys)[0] == wanted + "\n"
    assert main(["generate", str(run), "The door is open.", "--chat", "--stream", *BRIEF]) == 0
    assert said(capsys)[0] == wanted + "\n"


def test_a_message_that_is_continued_grows_by_the_answer(run, tmp_path, capsys):
    model, parts = ChatModel.load(run), [{"type": "text", "text": "the light is"}]
    asked = [[*HELLO, {"role": "assistant", "content": content}] for content in ("the light is", parts)]
    path = tmp_path / "messages.jsonl"
    path.write_text(json.dumps({"messages": asked[0], "continue_final_message": True}))
    assert main(["generate", str(run), str(path), "--chat", "--format", "json", *BRIEF]) == 0
    found = json.loads(said(capsys)[0])
    wanted = model.reply(asked[:1], continue_final_message=True, search=Greedy(), max_new_tokens=6)[0].text
    assert found["messages"] == [*HELLO, {"role": "assistant", "content": "the light is" + wanted}]
    assert with_continuation(asked[1], "!")[-1]["content"] == [{"type": "text", "text": "the light is!"}]
    assert asked[1][-1]["content"] == parts


@pytest.mark.parametrize("wrong", ["false", "true", 1, None, []])
def test_whether_a_message_is_continued_is_true_or_false(run, tmp_path, capsys, wrong):
    path = tmp_path / "messages.jsonl"
    path.write_text(json.dumps({"messages": HELLO, "continue_final_message": wrong}))
    assert main(["generate", str(run), str(path), "--chat", *BRIEF]) == 2
    assert "line 1: continue_final_message: true or false is expected" in said(capsys)[1]


def test_conversations_in_json_lines_are_answered_in_order(run, tmp_path, capsys):
    lines = [TALK, {"messages": HELLO, "id": 7, "tools": [chat_templates.WEATHER]}, HELLO]
    path = tmp_path / "messages.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert main(["generate", str(run), str(path), "--chat", "--format", "json", "--system", "Be brief.", *BRIEF]) == 0
    answered = [json.loads(line) for line in said(capsys)[0].splitlines()]
    assert [one["messages"][0]["content"] for one in answered] == ["Be brief."] * 3
    assert [len(one["messages"]) for one in answered] == [5, 3, 3]
    assert all(one["messages"][-1]["role"] == "assistant" for one in answered)
    assert answered[1]["continuations"] == answered[2]["continuations"]
    assert main(["generate", str(run), str(path), "--chat", "-o", str(tmp_path / "out.txt"), *BRIEF]) == 0
    assert (tmp_path / "out.txt").read_text()


LINES = {
    "no JSON": ("{", r"line 2: not JSON"),
    "a number": ("3", "line 2: a list of messages is expected"),
    "no messages": ('{"prompt": "x"}', "line 2: a list of messages is expected"),
    "a broken message": ('[{"role": "user"}, {"content": "x"}]', "line 2: message 2: has no role"),
    "NaN": ('[{"role": "user", "content": NaN}]', "line 2: message 1: holds nan"),
    "a line nested too deeply": ("[" * 100_000, "line 2: not JSON"),
    "a message nested too deeply": (
        '[{"role": "user", "content": "x", "more": ' + "[" * 300 + "]" * 300 + "}]",
        "line 2: message 1: is nested more than 200 levels deep",
    ),
    "an empty list": ("[]", "line 2: messages: there are none"),
}


@pytest.mark.parametrize(("line", "wanted"), LINES.values(), ids=LINES)
def test_a_broken_line_is_named(run, tmp_path, capsys, line, wanted):
    (tmp_path / "m.jsonl").write_text(json.dumps(HELLO) + "\n" + line + "\n")
    assert main(["generate", str(run), str(tmp_path / "m.jsonl"), "--chat", *BRIEF]) == 2
    out, errors = said(capsys)
    assert re.search(wanted, errors) and "Traceback" not in errors and not out


@pytest.fixture
def typing(monkeypatch):
    """Return a function that types lines at the terminal; an exception is what a key would raise."""

    def typed(*lines: Any) -> None:
        left = iter(lines)

        def read(prompt: str = "") -> str:
            line = next(left, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())

    return typed


def test_a_conversation_is_remembered_until_it_is_reset(run, capsys, typing, monkeypatch):
    seen: list[list[str]] = []
    original = ChatModel.stream

    def noted(self, messages, **settings):
        seen.append([message["role"] for message in messages])
        return original(self, messages, **settings)

    monkeypatch.setattr(ChatModel, "stream", noted)
    typing("Hello", "", "And", "/reset", "Again", "/system Be brief.", "Now", KeyboardInterrupt(), "/what", "More")
    assert main(["generate", str(run), "--chat", *BRIEF]) == 0
    user, assistant, system = "user", "assistant", "system"
    assert seen == [
        [user], [user, assistant, user], [user], [system, user], [system, user, assistant, user],
    ]  # fmt: skip
    assert "/what: no such command" in said(capsys)[1]


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(run, capsys, typing, monkeypatch):
    def interrupted(self, messages, **settings):
        seen.append(messages)
        yield "Half an"
        raise KeyboardInterrupt

    seen: list[Any] = []
    monkeypatch.setattr(ChatModel, "stream", interrupted)
    typing("Hello", "Go on")
    assert main(["generate", str(run), "--chat", *BRIEF]) == 0
    assert seen[1][1] == {"role": "assistant", "content": "Half an"}
    assert "(stopped)" in said(capsys)[1]


def test_a_message_that_is_too_long_is_not_remembered(run, capsys, typing, monkeypatch):
    monkeypatch.setattr(type(Generator.load(run).model), "max_length", 100)
    typing("door " * 500, "Hello")
    assert main(["generate", str(run), "--chat", *BRIEF]) == 0
    out, errors = said(capsys)
    assert "tokens, and the model reads" in errors and out.strip()


def test_options_of_conversations_want_conversations(run, capsys, tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    for option in (["--system", "x"], ["--chat-template", str(tmp_path / "t.jinja")]):
        assert main(["generate", str(run), "x", *option]) == 2
        assert "is for conversations: add --chat" in said(capsys)[1]
    assert main(["generate", str(run), "x", "--chat", "--special-tokens"]) == 2
    assert "--special-tokens: the chat template writes them" in said(capsys)[1]
    assert main(["generate", str(run), "x", "--chat", "--chat-template", str(tmp_path / "t.jinja"), *BRIEF]) == 0
    assert main(["generate", str(run), "x", "--chat", "--chat-template", str(tmp_path / "absent"), *BRIEF]) == 2
    assert "absent: cannot be read" in said(capsys)[1]


def test_a_model_without_a_template_says_so(world, capsys):
    template = world / "run" / "origin" / "chat_template.jinja"
    config = world / "run" / "origin" / "tokenizer_config.json"
    kept = template.read_text(), config.read_text()
    template.unlink()
    config.write_text(json.dumps({key: value for key, value in json.loads(kept[1]).items() if key != "chat_template"}))
    try:
        assert main(["generate", str(world / "run"), "x", "--chat"]) == 2
        assert "its model has no chat template" in said(capsys)[1]
    finally:
        template.write_text(kept[0])
        config.write_text(kept[1])


# ---- generation_config.json -----------------------------------------------------------------------------


STATED: dict[str, tuple[dict, Any]] = {
    "nothing": ({}, Greedy()),
    "greedy": ({"do_sample": False, "temperature": 0.5}, Greedy()),
    "sampling": ({"do_sample": True}, Sample(top_k=50)),
    "a temperature": (
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 0}, Sample(temperature=0.6, top_p=0.9)
    ),
    "neutral values": ({"do_sample": True, "top_p": 1.0, "typical_p": 1.0, "min_p": 0.0, "top_k": 3}, Sample(top_k=3)),
    "further shapes": (
        {"do_sample": True, "min_p": 0.1, "typical_p": 0.8}, Sample(top_k=50, min_p=0.1, typical=0.8)
    ),
    "beams": ({"num_beams": 3, "length_penalty": 0.5}, Beam(size=3, penalty=Average(alpha=0.5), stop="heuristic")),
    "beams to the end": ({"num_beams": 2, "early_stopping": "never"}, Beam(size=2, stop="certain")),
}  # fmt: skip


@pytest.mark.parametrize(("stated", "wanted"), STATED.values(), ids=STATED)
def test_the_search_of_an_imported_model_is_obeyed(run, settings, stated, wanted):
    settings(**stated)
    assert Generator.load(run).defaults.search == wanted


def test_the_rules_and_limits_of_an_imported_model_are_obeyed(run, settings):
    settings(
        repetition_penalty=1.1, no_repeat_ngram_size=3, min_new_tokens=2, max_new_tokens=5, stop_strings=["x", "y"],
        suppress_tokens=[9], bad_words_ids=[[10], [11, 12]], transformers_version="5", bos_token_id=1,
    )  # fmt: skip
    generator = Generator.load(run)
    found, tokenizer = generator.defaults, generator.tokenizer
    kinds = [type(rule).__name__ for rule in found.rules]
    assert kinds == ["RepetitionPenalty", "NoRepeat", "MinimumLength", "Forbidden"]
    assert found.stop == ("x", "y") and found.unused == ("bad_words_ids of several tokens (1)",)
    assert sorted(found.rules[3].tokens) == sorted(tokenizer.to_our_ids([9, 10]))  # pyright: ignore
    assert len(generator.generate(["door"])[0].continuations[0].tokens) <= 6


@torch.inference_mode()
def test_an_imported_model_answers_by_its_settings_as_transformers_does(world, settings):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(world / "folder").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "folder")
    stated = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "max_new_tokens": 12}
    plain = Generator.load(world / "run").generate(["The door is"], search=Greedy(), max_new_tokens=12)[0].text
    settings(**stated)
    never = [theirs.config.pad_token_id, theirs.config.bos_token_id]
    ids = tokenizer("The door is", return_tensors="pt").input_ids
    out = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), suppress_tokens=never, pad_token_id=0, do_sample=False, **stated
    )
    wanted = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).replace("\ufffd", "")
    assert Generator.load(world / "run").generate(["The door is"])[0].text == wanted != plain


def test_a_search_of_ones_own_leaves_the_models_settings_aside(run, settings):
    settings(repetition_penalty=5.0, do_sample=True, stop_strings=["e"])
    generator = Generator.load(run)
    own = Generator(generator.model, generator.tokenizer)
    chosen: dict[str, Any] = {"search": Greedy(), "max_new_tokens": 9}
    assert generator.generate(["The door"], **chosen) == own.generate(["The door"], **chosen)


def test_settings_that_are_given_leave_the_others_of_the_model(run, settings, capsys):
    settings(repetition_penalty=5.0, max_new_tokens=20)

    def written(*options: str) -> str:
        assert main(["generate", str(run), "The door is", *options]) == 0
        return said(capsys)[0]

    own = written()
    assert own != written("--search", "greedy", "--max-new-tokens", "20")
    assert written("--seed", "3") == own  # a seed alone makes no greedy model a sampler
    assert written("--temperature", "0") == own
    asked: dict[str, Any] = {"search": Sample(seed=3), "max_new_tokens": 20, "rules": [RepetitionPenalty(factor=5.0)]}
    drawn = Generator.load(run).generate(["The door is"], **asked)[0]
    assert written("--temperature", "1", "--seed", "3") == f"{drawn.prompt}{drawn.text}\n"


def test_a_rule_that_is_stated_replaces_its_own_kind():
    own = GenerationSettings(rules=(RepetitionPenalty(factor=5.0), NoRepeat(tokens=3)))
    assert own.with_rules([]).rules == own.rules
    assert own.with_rules([RepetitionPenalty(factor=2.0)]).rules == (NoRepeat(tokens=3), RepetitionPenalty(factor=2.0))
    assert own.with_rules([RepetitionPenalty(factor=1.0)]).rules == (NoRepeat(tokens=3),)


def test_the_command_line_says_what_it_obeys_and_what_not(run, settings, capsys):
    settings(do_sample=True, temperature=0.5, min_length=3, guidance_scale=1.5)
    assert main(["generate", str(run), "The door", "--max-new-tokens", "4"]) == 0
    line = said(capsys)[1]
    assert "sample temperature 0.5, top_k 50" in line.replace(" top_k", ", top_k")
    assert "not applied: min_length=3, guidance_scale=1.5" in line
    assert main(["generate", str(run), "The door", "--max-new-tokens", "4", "--top-p", "0.5"]) == 0
    assert main(["generate", str(run), "The door", *BRIEF]) == 0
    assert "generation_config" not in said(capsys)[1].splitlines()[-1:]


BROKEN = [
    {"do_sample": True, "temperature": "hot"}, {"num_beams": 0}, {"num_beams": "many"}, {"stop_strings": [3]},
    {"max_new_tokens": -1}, {"repetition_penalty": -2}, {"suppress_tokens": ["x"]},
    {"num_beams": 2, "length_penalty": "x"}, {"bad_words_ids": 3},
]  # fmt: skip


@pytest.mark.parametrize("stated", BROKEN, ids=map(str, BROKEN))
def test_a_broken_setting_is_named_with_its_file(run, settings, stated):
    settings(**stated)
    with pytest.raises(CheckpointError, match=r"generation_config\.json.*: mend the file"):
        Generator.load(run)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "[]", "\xff"], ids=["empty", "cut", "deep", "a list", "latin-1"]
)
def test_settings_that_are_no_mapping_in_json_are_named_with_their_file(run, settings, text):
    settings()
    (run / "origin" / "generation_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: (not JSON|expected a JSON mapping)"):
        Generator.load(run)


def test_import_notes_exactly_what_is_not_obeyed(world, tmp_path):
    import shutil

    from dragoman.interchange.generation import GENERATION_SETTINGS

    values: dict[str, Any] = {
        "stop_strings": ["x"],
        "bad_words_ids": [[8]],
        "suppress_tokens": [8],
        "early_stopping": "never",
    }
    for key in GENERATION_SETTINGS:
        folder = tmp_path / key
        shutil.copytree(world / "folder", folder)
        stated = (
            {"do_sample": True} if key not in ("num_beams", "length_penalty", "early_stopping") else {"num_beams": 2}
        )
        value = values.get(key, 0.5 if key in ("top_p", "min_p", "typical_p", "temperature", "length_penalty") else 2)
        (folder / "generation_config.json").write_text(json.dumps(stated | {key: value}))
        imported = import_checkpoint(folder, tmp_path / f"{key}-run")
        noted = any(f"{key}=" in note for note in import_notes(imported))
        found = read_generation_settings(imported.path, imported.tokenizers()[0])
        assert noted == (key not in OBEYED) == any(each.startswith(f"{key}=") for each in found.unused), key
