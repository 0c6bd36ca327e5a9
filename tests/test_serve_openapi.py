"""The OpenAPI description is true: what is sent by it, right or wrong, gets the statuses and answers that it states."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import import_chat, running, train_tiny

from dragoman.serve.http.app import ENDPOINTS
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.limits import Limits
from dragoman.serve.service import Service

EXAMPLES = 4
"""Requests of each kind to each endpoint; benchmarks/serve_faults.py sends 500."""
EVERY = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
LIMITS = Limits(characters=60, texts=3, body_bytes=10_000, file_bytes=1000, candidates=2, new_tokens=8)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    service = Service.load({"en-es": train_tiny(base), "chat": import_chat(base)})
    with running(ServerContext(service, limits=LIMITS)) as url:
        yield url
    service.close()


@pytest.fixture(scope="module")
def description(server):
    return schemathesis.openapi.from_url(f"{server}/openapi.json")


SENT = [
    (endpoint, mode)
    for endpoint in ENDPOINTS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or endpoint.reads_body  # nothing can be wrong with the others
]


@pytest.mark.parametrize(("endpoint", "mode"), SENT, ids=[f"{e.method} {e.path} {mode.value}" for e, mode in SENT])
def test_every_answer_is_one_that_the_description_states(description, endpoint, mode):
    requests = description[endpoint.path][endpoint.method].as_strategy(generation_mode=mode)

    @settings(EVERY, phases=[Phase.generate])
    @given(requests)
    def send(case):
        # a text may be valid and too long for this server, or in a language that it does not know
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    send()


def test_every_endpoint_is_described_and_shown_on_a_page_that_needs_nothing_from_elsewhere(server):
    described = httpx.get(f"{server}/openapi.json").json()
    assert described == httpx.get(f"{server}/spec").json() and described["openapi"].startswith("3.1")
    page = httpx.get(f"{server}/docs")
    for endpoint in ENDPOINTS:
        assert endpoint.method.lower() in described["paths"][endpoint.path]
        assert f"<code>{endpoint.path}</code>" in page.text
    assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_every_json_answer_has_a_schema(server):
    described = httpx.get(f"{server}/openapi.json").json()
    for endpoint in ENDPOINTS:
        responses = described["paths"][endpoint.path][endpoint.method.lower()]["responses"]
        for kind, content in responses[str(endpoint.status)]["content"].items():
            assert content["schema"], f"{endpoint.method} {endpoint.path}: {kind}"
    languages = described["components"]["schemas"]["LanguagesAnswer"]
    assert languages["type"] == "array" and languages["items"]["$ref"].endswith("/LanguageAnswer")


def test_each_operation_states_the_statuses_that_it_can_answer_with(server):
    paths = httpx.get(f"{server}/openapi.json").json()["paths"]
    stated = {path: set(next(iter(methods.values()))["responses"]) for path, methods in paths.items()}
    assert stated["/health"] == {"200", "503"}
    assert stated["/api/models"] == {"200", "401", "429", "503"}
    assert stated["/translate"] == {"200", "400", "403", "408", "413", "415", "429", "501", "503"}
    assert stated["/v1/embeddings"] == {"200", "400", "401", "404", "408", "413", "415", "429", "503"}
    assert {"409", "422", "429"} < stated["/api/files/{id}/result"]
