"""The lesson of each task: a further one is its file and its line here."""

from dragoman.data.tasks import (
    Classification,
    Contrastive,
    Denoising,
    LanguageModelling,
    MaskedLanguageModelling,
    QuestionAnswering,
    Tagging,
    Translation,
)
from dragoman.train.lessons.classification import ClassificationLesson
from dragoman.train.lessons.contrastive import ContrastiveLesson
from dragoman.train.lessons.language_modelling import LanguageLesson
from dragoman.train.lessons.lesson import Lesson
from dragoman.train.lessons.pretraining import DenoisingLesson, MaskedLesson
from dragoman.train.lessons.question_answering import AnsweringLesson
from dragoman.train.lessons.tagging import TaggingLesson
from dragoman.train.lessons.translation import TranslationLesson
from dragoman.train.recipe import RunConfig

LESSONS: dict[type, type[Lesson]] = {
    Classification: ClassificationLesson,
    Contrastive: ContrastiveLesson,
    Denoising: DenoisingLesson,
    LanguageModelling: LanguageLesson,
    MaskedLanguageModelling: MaskedLesson,
    QuestionAnswering: AnsweringLesson,
    Tagging: TaggingLesson,
    Translation: TranslationLesson,
}


def lesson_for(cfg: RunConfig) -> type[Lesson]:
    return LESSONS[type(cfg.task)]
