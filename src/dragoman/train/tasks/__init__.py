"""Task data of each task. To add a task, add its file and its line here."""

from dragoman.data.tasks import (
    CaptioningTask,
    ClassificationTask,
    ContrastiveTask,
    DenoisingTask,
    LanguageModellingTask,
    MaskedLanguageModellingTask,
    QuestionAnsweringTask,
    TaggingTask,
    TranslationTask,
)
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.captioning import CaptioningTaskData
from dragoman.train.tasks.classification import ClassificationTaskData
from dragoman.train.tasks.contrastive import ContrastiveTaskData
from dragoman.train.tasks.language_modelling import LanguageModellingTaskData
from dragoman.train.tasks.pretraining import DenoisingTaskData, MaskedLanguageTaskData
from dragoman.train.tasks.question_answering import QuestionAnsweringTaskData
from dragoman.train.tasks.tagging import TaggingTaskData
from dragoman.train.tasks.task_data import TaskData
from dragoman.train.tasks.translation import TranslationTaskData

TASK_DATA: dict[type, type[TaskData]] = {
    CaptioningTask: CaptioningTaskData,
    ClassificationTask: ClassificationTaskData,
    ContrastiveTask: ContrastiveTaskData,
    DenoisingTask: DenoisingTaskData,
    LanguageModellingTask: LanguageModellingTaskData,
    MaskedLanguageModellingTask: MaskedLanguageTaskData,
    QuestionAnsweringTask: QuestionAnsweringTaskData,
    TaggingTask: TaggingTaskData,
    TranslationTask: TranslationTaskData,
}


def task_data_for(cfg: RunConfig) -> type[TaskData]:
    """Return the class that prepares and batches the data of the configured task."""
    return TASK_DATA[type(cfg.task)]
