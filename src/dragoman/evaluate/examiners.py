"""Examiners by task: another task that reads adds its file and one line here."""

from dragoman.evaluate.captioning import CaptionExaminer
from dragoman.evaluate.classification import ClassificationExaminer
from dragoman.evaluate.outcome import Examiner
from dragoman.evaluate.question_answering import AnsweringExaminer
from dragoman.evaluate.retrieval import RetrievalExaminer
from dragoman.evaluate.tagging import TaggingExaminer

EXAMINERS: dict[str, type[Examiner]] = {
    "captioning": CaptionExaminer,
    "classification": ClassificationExaminer,
    "contrastive": RetrievalExaminer,
    "question_answering": AnsweringExaminer,
    "tagging": TaggingExaminer,
}
