"""The lesson of each task: a further one is its file and its line here."""

from dragoman.data.tasks import Classification, LanguageModelling, Translation
from dragoman.train.classification import ClassificationLesson
from dragoman.train.language_modelling import LanguageLesson
from dragoman.train.lesson import Lesson
from dragoman.train.recipe import RunConfig
from dragoman.train.translation import TranslationLesson

LESSONS: dict[type, type[Lesson]] = {
    Translation: TranslationLesson,
    LanguageModelling: LanguageLesson,
    Classification: ClassificationLesson,
}


def lesson_for(cfg: RunConfig) -> type[Lesson]:
    return LESSONS[type(cfg.task)]
