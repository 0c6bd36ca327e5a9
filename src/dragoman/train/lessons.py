"""The lesson of each task: a further one is its file and its line here."""

from dragoman.data.tasks import LanguageModelling, Translation
from dragoman.train.language_modelling import LanguageLesson
from dragoman.train.lesson import Lesson
from dragoman.train.recipe import RunConfig
from dragoman.train.translation import TranslationLesson

LESSONS: dict[type, type[Lesson]] = {
    Translation: TranslationLesson,
    LanguageModelling: LanguageLesson,
}


def lesson_for(cfg: RunConfig) -> type[Lesson]:
    return LESSONS[type(cfg.task)]
