"""OpenAI's API: its own client works unchanged, and gets what the model says alone."""

import json
import shutil
from pathlib import Path

import httpx
import openai
import pytest
import torch
from serving import import_chat, running, train_tiny
from test_towers import run_config, trained, write_pairs

from dragoman.decode.chat import ChatModel
from dragoman.decode.generator import Generator
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.search.greedy import Greedy
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.limits import Limits
from dragoman.serve.service import Service
from dragoman.text.tokens.tokenizer import EOS, PROMPT_FRAME

HELLO = [{"role": "user", "content": "The door is open."}]
PROMPTS = ["The light", "A door is", "The"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return import_chat(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    runs = {"chat": run, "en-es": train_tiny(tmp_path_factory.getbasetemp())}
    with running(ServerContext(Service.load(runs), limits=Limits(new_tokens=64))) as url:
        yield url


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def generator(run) -> Generator:
    return Generator.load(run)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["chat", "en-es"]
    assert client.models.retrieve("chat").id == "chat"
    with pytest.raises(openai.NotFoundError, match="the model 'gpt-9' is not served here; there are: chat, en-es"):
        client.models.retrieve("gpt-9")


def test_prompts_are_continued_as_by_the_generator(client, generator):
    found = client.completions.create(model="chat", prompt=PROMPTS, temperature=0, max_tokens=12)
    alone = generator.generate(PROMPTS, search=Greedy(), max_new_tokens=12)
    assert [choice.text for choice in found.choices] == [one.text for one in alone]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.usage.completion_tokens <= 3 * 12


def test_ids_are_read_as_the_text_that_they_spell(client, generator):
    ids = generator.tokenizer.encode(PROMPTS[0])
    asked = {"model": "chat", "temperature": 0, "max_tokens": 8}
    framed = [client.completions.create(prompt=prompt, **asked).choices[0].text for prompt in (ids, [ids])]
    assert framed[0] == framed[1]


def test_a_stream_spells_the_whole_answer(client):
    asked = {"model": "chat", "prompt": PROMPTS[:2], "max_tokens": 10, "n": 2, "seed": 7, "temperature": 0.9}
    whole = client.completions.create(**asked)
    texts, reasons = {}, {}
    usage = None
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage == whole.usage


def test_a_seed_repeats_its_answers_and_answers_differ(client):
    asked = {"model": "chat", "prompt": "The", "max_tokens": 20, "n": 4, "temperature": 1.5}
    first, again, other = (
        [choice.text for choice in client.completions.create(**asked, seed=seed).choices] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 1
    free = [client.completions.create(**asked).choices[0].text for _ in range(4)]
    assert len(set(free)) > 1


def test_where_a_request_says_nothing_the_settings_of_the_model_hold(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    stated = {"do_sample": False, "repetition_penalty": 5.0}
    (tmp_path / "run" / "origin" / "generation_config.json").write_text(json.dumps(stated))
    own = Generator.load(tmp_path / "run")
    held, plain = (own.generate(["The light"], search=s, max_new_tokens=20)[0].text for s in (None, Greedy()))
    assert held != plain
    with running(ServerContext(Service.load({"chat": tmp_path / "run"}))) as url:

        def asked(**more) -> str:
            more |= {"model": "chat", "prompt": "The light", "max_tokens": 20}
            return httpx.post(f"{url}/v1/completions", json=more).json()["choices"][0]["text"]

        assert asked() == asked(seed=1) == asked(seed=2) == asked(temperature=0) == held
        assert asked(presence_penalty=0) == held
        assert asked(repetition_penalty=1.0) == plain
        assert asked(temperature=0, repetition_penalty=1.0) == plain


def test_stop_texts_end_an_answer_and_are_left_out(client):
    asked = {"model": "chat", "prompt": "The light", "max_tokens": 30, "temperature": 0}
    whole = client.completions.create(**asked).choices[0]
    stop = whole.text[3:5]
    found = client.completions.create(**asked, stop=stop).choices[0]
    assert found.text == whole.text.split(stop)[0] and found.finish_reason == "stop"
    assert client.completions.create(**asked | {"max_tokens": 3}).choices[0].finish_reason == "length"


def test_log_probabilities_are_those_of_the_tokens_of_the_text(client, generator):
    asked = {"model": "chat", "prompt": "The light", "max_tokens": 12, "temperature": 0}
    choice = client.completions.create(**asked, logprobs=1).choices[0]
    logs = choice.logprobs
    assert len(logs.tokens) == len(logs.token_logprobs) == len(logs.text_offset) == 12
    alone = generator.generate(["The light"], search=Greedy(), max_new_tokens=12)[0].continuations[0]
    torch.testing.assert_close(torch.tensor(logs.token_logprobs), torch.tensor(alone.token_log_probs[:12]))


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.3, "seed": 5}])
def test_the_most_probable_tokens_stand_beside_each_chosen_one(client, sampling):
    asked = {"model": "chat", "prompt": ["The light", "A"], "max_tokens": 9, **sampling}
    plain = client.completions.create(**asked, logprobs=0).choices
    for choice, without in zip(client.completions.create(**asked, logprobs=5).choices, plain, strict=True):
        logs = choice.logprobs
        assert choice.text == without.text and logs.tokens == without.logprobs.tokens
        assert logs.token_logprobs == pytest.approx(without.logprobs.token_logprobs, abs=1e-5)
        assert [len(top) for top in without.logprobs.top_logprobs] == [1] * len(logs.tokens)
        for token, log_prob, top in zip(logs.tokens, logs.token_logprobs, logs.top_logprobs, strict=True):
            assert 5 <= len(top) <= 6 and top[token] == pytest.approx(log_prob, abs=1e-5)
            assert "seed" in sampling or log_prob == max(top.values())


def test_the_most_probable_tokens_are_those_of_the_model(client, generator):
    asked = {"model": "chat", "prompt": "The light", "max_tokens": 9, "temperature": 0}
    logs = client.completions.create(**asked, logprobs=5).choices[0].logprobs
    tokenizer, chosen = generator.tokenizer, generator.generate(["The light"], search=Greedy(), max_new_tokens=9)[0]
    read = list(tokenizer.frame(PROMPT_FRAME).around(tokenizer.encode("The light")))
    ids = torch.tensor([[*read, *chosen.continuations[0].tokens]])
    with torch.inference_mode(), generator.model.without_dropout():
        expected = generator.model(ids)[0, len(read) - 1 :].log_softmax(-1)[:, EOS:].topk(5).values
    for top, values in zip(logs.top_logprobs, expected.tolist(), strict=False):
        assert sorted(top.values(), reverse=True) == pytest.approx(values, abs=0.02)  # served in bfloat16


def test_a_conversation_has_the_most_probable_tokens_whole_and_streamed(client):
    asked = {"model": "chat", "messages": HELLO, "seed": 3, "max_tokens": 12, "logprobs": True, "top_logprobs": 20}
    whole = client.chat.completions.create(**asked, n=2)
    parts = {0: [], 1: []}
    for chunk in client.chat.completions.create(**asked, n=2, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.logprobs.content if choice.logprobs else []
    for choice in whole.choices:
        content = choice.logprobs.content
        assert [(one.token, one.top_logprobs) for one in parts[choice.index]] == [
            (one.token, one.top_logprobs) for one in content
        ]
        for one in content:
            assert len(one.top_logprobs) == 20
            values = [other.logprob for other in one.top_logprobs]
            assert values == sorted(values, reverse=True) and max(values) >= one.logprob
            assert all(other.bytes is None or bytes(other.bytes).decode(errors="replace") for other in one.top_logprobs)
    alone = client.chat.completions.create(**asked | {"top_logprobs": None}, n=2).choices
    assert [choice.message.content for choice in alone] == [choice.message.content for choice in whole.choices]
    assert all(not one.top_logprobs for choice in alone for one in choice.logprobs.content)


def test_an_echo_repeats_the_prompt(client):
    asked = {"model": "chat", "prompt": ["The light", "A"], "max_tokens": 5, "temperature": 0}
    plain, echoed = (client.completions.create(**asked, echo=echo).choices for echo in (False, True))
    assert [choice.text for choice in echoed] == [f"{p}{c.text}" for p, c in zip(asked["prompt"], plain, strict=True)]


def test_a_conversation_is_answered_as_by_the_chat_model(client, run):
    alone = ChatModel.load(run).reply([HELLO], search=Greedy(), max_new_tokens=16)[0]
    asked = {"model": "chat", "messages": HELLO, "temperature": 0, "max_tokens": 16}
    found = client.chat.completions.create(**asked)
    assert found.choices[0].message.content == alone.text
    assert found.choices[0].message.role == "assistant"
    newer = client.chat.completions.create(
        **{k: v for k, v in asked.items() if k != "max_tokens"}, max_completion_tokens=16
    )
    assert newer.choices[0].message.content == alone.text


def test_a_conversation_is_streamed_with_log_probabilities(client):
    asked = {"model": "chat", "messages": HELLO, "seed": 3, "max_tokens": 16, "logprobs": True}
    whole = client.chat.completions.create(**asked).choices[0]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    assert chunks[0].delta.role == "assistant"
    assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].finish_reason == whole.finish_reason
    logs = [one.logprob for chunk in chunks if chunk.logprobs for one in chunk.logprobs.content]
    torch.testing.assert_close(torch.tensor(logs), torch.tensor([one.logprob for one in whole.logprobs.content]))
    assert b"".join(bytes(one.bytes) for one in whole.logprobs.content).decode(errors="ignore").strip()


def test_a_conversation_may_go_on(client):
    talk = [{"role": "system", "content": "Be short."}, *HELLO, {"role": "assistant", "content": "Yes."}, *HELLO]
    parts = [{"role": "user", "content": [{"type": "text", "text": "The door is open."}]}]
    for messages in (talk, parts):
        found = client.chat.completions.create(model="chat", messages=messages, max_tokens=4)
        assert found.usage.prompt_tokens > 4


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"messages": []}, "message"),
        ({"messages": [{"role": "user"}]}, "message 1"),
        ({"messages": [{"content": "a"}]}, "message 1"),
        ({"logit_bias": {"5": 1}}, "logit_bias: not supported"),
        ({"top_logprobs": 3}, "top_logprobs: is for log-probabilities: send logprobs as true with it"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs: must be less than or equal to 20"),
        ({"temperature": 3}, "temperature: must be less than or equal to 2"),
        ({"n": 1000}, "n: at most 20"),
        ({"max_tokens": 10**6}, "max_tokens: at most 64"),
        ({"stop": [""]}, "stop: at most"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"tools": ["weather"]}, "tools.0: expected an object"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "message 1"),
        ({"functions": [{"name": "weather", "parameters": {}}]}, "functions: not supported by this server"),
        ({"functions": [], "function_call": {"name": "weather"}}, "function_call: "),
        ({"modalities": ["text", "audio"]}, "modalities.1: must be 'text'"),
        ({"audio": {"voice": "a", "format": "wav"}}, "audio: not supported"),
        ({"web_search_options": {}}, "web_search_options: not supported"),
        ({"model": "en-es"}, "the model 'en-es' is for the task translate"),
    ],
)
def test_a_wrong_request_gets_one_sentence_in_openais_form(client, more, says):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "chat", "messages": HELLO, "max_tokens": 4} | more)
    error = caught.value.body
    assert says in error["message"] and "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


def test_an_error_of_a_template_names_the_model_and_no_file_of_the_server(client, run):
    call = {"id": "a", "type": "function", "function": {"name": "b", "arguments": "{}"}}
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=messages, max_tokens=4)
    said = caught.value.body["message"]
    assert said.startswith("the chat template of the model 'chat': cannot write these messages") and "/" not in said


def test_an_error_before_a_stream_is_a_status(server):
    asked = {"model": "chat", "messages": [{"role": "user", "content": "word " * 30_000}], "stream": True}
    for more, status in (({}, 413), ({"model": "gpt-9"}, 404), ({"messages": []}, 400)):
        response = httpx.post(f"{server}/v1/chat/completions", json=asked | more)
        assert response.status_code == status and response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("asked", [{}, {"logprobs": 1}, {"stream": True}], ids=["whole", "logprobs", "stream"])
def test_a_request_has_one_place_however_many_answers_it_wants(run, asked):
    service = Service.load({"chat": run}, queue=1)
    asked = {"model": "chat", "prompt": ["The", "A"], "n": 2, "max_tokens": 3} | asked
    with running(ServerContext(service)) as url:
        for _ in range(2):
            assert httpx.post(f"{url}/v1/completions", json=asked, timeout=30).status_code == 200
        service.requests += 1  # another runs
        refused = httpx.post(f"{url}/v1/completions", json=asked, timeout=30)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1


def test_events_are_separated_and_end_with_done(server):
    asked = {"model": "chat", "prompt": "The", "max_tokens": 4, "stream": True}
    response = httpx.post(f"{server}/v1/completions", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = response.text.split("\n\n")
    assert done == "data: [DONE]" and rest == ""
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events)


# ---- vectors --------------------------------------------------------------------------------------------

ASKED = ["red house dog", "big cat", "", "\U0001f600 a"]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Run of two towers that has learned for some steps, and a client of a server of it."""
    path = tmp_path_factory.mktemp("vectors")
    trained(run_config(write_pairs(path / "pairs.tsv"), steps=4), path / "run")
    service = Service.load({"vectors": path / "run"})
    with running(ServerContext(service)) as url:
        yield path / "run", openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    service.close()


def test_vectors_are_those_of_the_embedder_as_numbers_and_as_base64(vectors):
    run, client = vectors
    alone = Embedder.load(run).embed(ASKED)
    for more in ({}, {"encoding_format": "float"}, {"dimensions": alone.shape[1]}):  # base64 where nothing is said
        found = client.embeddings.create(model="vectors", input=ASKED, **more)
        assert [one.index for one in found.data] == [0, 1, 2, 3] and found.model == "vectors"
        torch.testing.assert_close(torch.tensor([one.embedding for one in found.data]), alone, atol=1e-5, rtol=1e-4)
        assert found.usage.total_tokens == found.usage.prompt_tokens > 0
    [single] = client.embeddings.create(model="vectors", input=ASKED[0]).data
    torch.testing.assert_close(torch.tensor(single.embedding), alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"input": []}, "input: must not be an empty list"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": 7}, "input: expected text"),
        ({"dimensions": 5}, "dimensions: not supported"),
        ({"dimensions": 0}, "dimensions: must be greater than or equal to 1"),
        ({"encoding_format": "int8"}, "encoding_format: must be 'float' or 'base64'"),
        ({"input": "word " * 30_000}, "150,000 characters: a request may have 100,000"),
    ],
)
def test_a_wrong_request_for_vectors_gets_one_sentence(vectors, more, says):
    with pytest.raises(openai.APIStatusError) as caught:
        vectors[1].embeddings.create(**{"model": "vectors", "input": "a"} | more)
    assert caught.value.status_code in (400, 413)
    assert says in caught.value.body["message"] and "\n" not in caught.value.body["message"]


def test_a_model_that_writes_makes_no_vectors(client, vectors):
    with pytest.raises(openai.BadRequestError, match="'chat' is for the task generate, and makes no vectors of texts"):
        client.embeddings.create(model="chat", input="a")
    with pytest.raises(openai.BadRequestError, match="'vectors' is for the task embed, and continues no text"):
        vectors[1].completions.create(model="vectors", prompt="a")
