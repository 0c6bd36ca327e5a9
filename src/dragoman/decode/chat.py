"""ChatModel: a language model that answers conversations, by the chat template that it came with."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dragoman.decode.arguments import check_integers, check_list
from dragoman.decode.chat_template import ChatTemplate, template_from_file
from dragoman.decode.generator import Generation, Generator
from dragoman.decode.messages import Message
from dragoman.decode.prompt import EncodedPrompt
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import can_stream
from dragoman.errors import ConfigError, DataError

Schemas = Sequence[Mapping[str, Any]]


class ChatModel:
    """A language model with its chat template."""

    def __init__(self, generator: Generator, template: ChatTemplate):
        self.generator, self.template = generator, template
        self.ends = template.ends(generator.tokenizer)
        """Tokens that end an answer by the template, besides those that end every text of the model."""

    def __repr__(self) -> str:
        return f"ChatModel({self.generator!r}, {self.template!r})"

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: str | int = "best",
        *,
        template: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> "ChatModel":
        """Load the language model of a run; the other arguments are those of ``Generator.load``.

        Args:
            template: file with a chat template, instead of the one that the run has.

        Raises:
            CheckpointError: as ``Generator.load``; or a run without a chat template.
            DataError: a template file that cannot be read.
            ConfigError: no such device or precision, or a template that is not Jinja.
        """
        found = ChatTemplate.load(run) if template is None else template_from_file(template, run)
        return cls(Generator.load(run, checkpoint, device=device, precision=precision), found)

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Schemas | None = None,
        documents: Schemas | None = None,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> EncodedPrompt:
        """Return a conversation as the model reads it; see ``ChatTemplate.encode``."""
        return self.template.encode(
            self.generator.tokenizer,
            messages,
            tools=tools,
            documents=documents,
            continue_final_message=continue_final_message,
            variables=variables,
        )

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        tools: Schemas | None = None,
        documents: Schemas | None = None,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """Answer each conversation: a list of messages that ends with a user's, or with a tool's result.

        Args:
            tools, documents, continue_final_message, variables: as in ``ChatTemplate.render``, for every conversation.
            settings: those of ``Generator.generate``, such as ``search``, ``max_new_tokens``, ``stop`` and ``seeds``.

        Raises:
            DataError: messages of the wrong form, or that the template refuses, or more than the model reads; the
                message names the conversation.
            ConfigError: as ``Generator.generate``.
        """
        given = {"tools": tools, "documents": documents, "variables": variables}
        prompts = []
        for number, messages in enumerate(check_list(conversations, "conversations", what="lists of messages"), 1):
            try:
                prompts.append(self.prompt(messages, continue_final_message=continue_final_message, **given))
            except DataError as error:
                raise DataError(f"conversation {number}: {error}") from None
        return self.generator.generate(prompts, **self._settings(settings, Generator.generate))

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Schemas | None = None,
        documents: Schemas | None = None,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Yield the answer to one conversation in pieces; ``settings`` are those of ``Generator.stream``.

        Raises:
            DataError, ConfigError: as ``reply``; or a search with several hypotheses.
        """
        given = {"tools": tools, "documents": documents, "variables": variables}
        prompt = self.prompt(messages, continue_final_message=continue_final_message, **given)
        return self.generator.stream(prompt, **self._settings(settings, Generator.stream))

    def can_stream(self, search: Any = None) -> bool:
        """Return whether ``stream`` can yield pieces under a search, by default the model's own."""
        return can_stream(search or self.generator.defaults.search or Sample())

    def _settings(self, settings: dict[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
        """Return the settings with the ends of the template.

        Raises:
            ConfigError: one that ``function`` does not have.
        """
        parameters = inspect.signature(function).parameters.values()
        known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        for name in settings:
            if name not in known:
                raise ConfigError(f"{name}: no such setting of an answer; known: {', '.join(known)}")
        ends = check_integers(settings.get("ends", ()), "ends", what="ids of tokens")
        return settings | {"ends": (*self.ends, *ends)}
