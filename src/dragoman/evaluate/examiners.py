"""Who examines the runs of each task that reads: a further one is its file and its line here."""

from dragoman.evaluate.classification import ClassificationExaminer
from dragoman.evaluate.outcome import Examiner
from dragoman.evaluate.question_answering import AnsweringExaminer
from dragoman.evaluate.retrieval import RetrievalExaminer
from dragoman.evaluate.tagging import TaggingExaminer

EXAMINERS: dict[str, type[Examiner]] = {
    "classification": ClassificationExaminer,
    "contrastive": RetrievalExaminer,
    "question_answering": AnsweringExaminer,
    "tagging": TaggingExaminer,
}
