"""A language model of ours runs tasks of the evaluation harness of EleutherAI through its Python API."""

import json
import sys

import foreign_text
import pytest

from dragoman.decode.generator import Generator
from dragoman.errors import ConfigError
from dragoman.evaluate.harness import harness_model
from dragoman.evaluate.language_modelling import log_likelihoods
from dragoman.evaluate.multiple_choice import evaluate, likelihoods, question_of
from dragoman.interchange.importing import import_checkpoint

ROWS = [{"question": f"The {name} is", "choices": ["open", "closed", "a tree"], "answer": i % 3}
        for i, name in enumerate(["door", "light", "room", "window"])]  # fmt: skip
TASK = """
task: dragoman_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Generator:
    path = tmp_path_factory.mktemp("harness")
    foreign_text.make(foreign_text.Case("LLaMA", True), path / "folder")
    import_checkpoint(path / "folder", path / "run")
    return Generator.load(path / "run", precision="float32")


def test_the_likelihood_of_a_text_is_that_of_its_parts(generator):
    texts = ["The door is open.", "a", "The light is on. " * 30]
    whole = log_likelihoods(generator, texts)
    assert whole[:2] == pytest.approx(
        [each.log_prob for each in likelihoods(generator, [("", t) for t in texts[:2]])], abs=1e-3
    )
    assert whole[2] < whole[0] and log_likelihoods(generator, []) == [] and log_likelihoods(generator, [""]) == [0.0]


def test_without_the_harness_the_error_says_what_to_install(monkeypatch, generator):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ConfigError, match="need lm-eval: pip install lm-eval"):
        harness_model(generator)


@pytest.mark.filterwarnings("ignore")
def test_a_task_of_multiple_choice_gives_the_accuracy_that_we_count(generator, tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "choice.yaml").write_text(TASK.format(path=tmp_path / "rows.jsonl"))
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    found = lm_eval.simple_evaluate(model=harness_model(generator), tasks=["dragoman_choice"], task_manager=manager)
    ours = evaluate(generator, [question_of(row, "x") for row in ROWS]).scores["accuracy"].value
    assert 100 * found["results"]["dragoman_choice"]["acc,none"] == pytest.approx(ours)
