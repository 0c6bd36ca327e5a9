"""Evaluators by task: another task that reads adds its file and one line here."""

from dragoman.evaluate.captioning import CaptionEvaluator
from dragoman.evaluate.classification import ClassificationEvaluator
from dragoman.evaluate.outcome import Evaluator
from dragoman.evaluate.question_answering import AnsweringEvaluator
from dragoman.evaluate.retrieval import RetrievalEvaluator
from dragoman.evaluate.tagging import TaggingEvaluator

EVALUATORS: dict[str, type[Evaluator]] = {
    "captioning": CaptionEvaluator,
    "classification": ClassificationEvaluator,
    "contrastive": RetrievalEvaluator,
    "question_answering": AnsweringEvaluator,
    "tagging": TaggingEvaluator,
}
