"""The lesson of each task: a further one is its file and its line here."""

from dragoman.data.tasks import Classification, Denoising, LanguageModelling, MaskedLanguageModelling, Translation
from dragoman.train.lessons.classification import ClassificationLesson
from dragoman.train.lessons.language_modelling import LanguageLesson
from dragoman.train.lessons.lesson import Lesson
from dragoman.train.lessons.pretraining import DenoisingLesson, MaskedLesson
from dragoman.train.lessons.translation import TranslationLesson
from dragoman.train.recipe import RunConfig

LESSONS: dict[type, type[Lesson]] = {
    Translation: TranslationLesson,
    LanguageModelling: LanguageLesson,
    Classification: ClassificationLesson,
    Denoising: DenoisingLesson,
    MaskedLanguageModelling: MaskedLesson,
}


def lesson_for(cfg: RunConfig) -> type[Lesson]:
    return LESSONS[type(cfg.task)]
