"""Uses of the public names that a type checker must understand in its strictest mode; nothing here is run."""

import threading
from pathlib import Path

from dragoman import (
    Answerer,
    Candidate,
    ChatModel,
    ChatTemplate,
    Classifier,
    Embedder,
    Evaluation,
    Generation,
    Generator,
    LanguageModelEvaluation,
    Run,
    Tagger,
    Translation,
    Translator,
    attention_weights,
    calibrate,
    encoder_states,
    evaluate,
    export,
    import_checkpoint,
    load,
    resume,
    train,
    verify,
)
from dragoman.decode.search.beam import Beam
from dragoman.train.events import Event, StepsReported

seen: list[int] = []


def watch(event: Event) -> None:
    if isinstance(event, StepsReported):
        seen.append(event.step)


def use(folder: Path, stop: threading.Event) -> None:
    run: Run = train([("a", "b")], preset="auto", minutes=1.5, overrides={"train.seed": 2}, on_event=watch, stop=stop)
    run = resume(run, steps=10)
    translator: Translator = run.translator(device="cpu")
    found: list[Translation] = translator.translate(["a"], nbest=3, alignments=True, search=Beam(size=4, nbest=3))
    best: Candidate = found[0].candidates[0]
    text: str = best.text + found[0].text
    links: tuple[tuple[int, int], ...] | None = best.alignment
    generator: Generator = run.generator()
    generations: list[Generation] = generator.generate([text], max_new_tokens=4, stop=["x"])
    pieces: list[str] = list(generator.stream(generations[0].text))
    chat: ChatModel = ChatModel.load(folder)
    answer: str = chat.reply([[{"role": "user", "content": "x"}]])[0].text
    template: ChatTemplate = ChatTemplate.load(run.path)
    rendered: str = template.render([{"role": "user", "content": answer}], add_generation_prompt=False)
    model = load(run)
    if isinstance(model, Classifier):
        label: str = model.classify([rendered])[0].label
        pieces.append(label)
    elif isinstance(model, Tagger):
        labels: tuple[str, ...] = model.tag([["a", "b"]])[0].labels
        pieces.extend(labels)
    elif isinstance(model, Answerer):
        start: int | None = model.ask([("context", "question")])[0].start
        pieces.append(str(start))
    elif isinstance(model, Embedder):
        width: int = model.embed(["a"]).shape[1]
        pieces.append(str(width))
    scores = evaluate(run, [("a", "b")], beam=1)
    if isinstance(scores, Evaluation | LanguageModelEvaluation):
        value: float = scores.scores["chrf"].value
        seen.append(round(value))
    good: float = calibrate(run).good
    passed: bool = verify(run).passed
    files: tuple[str, ...] = export(run, "huggingface", folder).files
    imported: Run = import_checkpoint(folder)
    shape: tuple[int, ...] = encoder_states(imported, ["a"])[0].states.shape
    aligned: tuple[int, ...] = attention_weights(run, "a", "b").alignment.shape
    seen.extend([*shape, *aligned, len(files), round(good), int(passed), len(links or ())])
