"""Chat templates: messages of a conversation to the text, and the ids, that a chat model was trained on.

A template is a program in Jinja that came with the model. What it renders equals ``apply_chat_template`` of
transformers. Its special tokens are read as such; those that somebody typed into a message stay text, so that nobody
who writes to a model can end a message or begin one of another role.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Container, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.checkpoint import RunDirectory, run_folder
from dragoman.decode.messages import Message, check_messages, check_schemas, check_variables, mapped
from dragoman.decode.origin import origin_folder
from dragoman.decode.prompt import EncodedPrompt
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.json_files import read_json
from dragoman.text.chat_template_files import DEFAULT, FILE, read_template_sources
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import SPECIALS

_WITH_TOOLS = "tool_use"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_BARRIERS = tuple(map(chr, range(0xE000, 0xE100)))
"""Characters for private use: one that no message has keeps a special token in a message from being read as one."""
_OPEN_END = "⟨the answer goes on here⟩ "
"""Text that marks where the last message ends, as long as the text is rendered; the space shows whether the template
strips a message."""


class ChatTemplate:
    """The chat template of a model, or several by name, and the special tokens that it may write."""

    def __init__(
        self, source: str | Mapping[str, str], tokens: Mapping[str, str] | None = None, where: str = "chat template"
    ):
        """
        Args:
            source: a template, or several by name: ``default`` is used, or ``tool_use`` where tools are given.
            tokens: special tokens as variables of the template, such as ``bos_token``.
            where: its file, for messages.
        """
        self.sources = {DEFAULT: source} if isinstance(source, str) else dict(source)
        self.tokens, self.where = dict(tokens or {}), where

    def __repr__(self) -> str:
        return f"ChatTemplate({self.where!r}, {', '.join(self.sources)})"

    @classmethod
    def load(cls, run: str | Path) -> "ChatTemplate":
        """Read the template of a run: its own ``chat_template.jinja``, or the one that it was imported with.

        Raises:
            CheckpointError: no such run, or one without a template.
        """
        if (found := find_chat_template(run)) is None:
            RunDirectory.open(run_folder(run))  # says so where there is no run at all
            raise CheckpointError(
                f"{run}: its model has no chat template, so it was not trained on conversations: give it a prompt to "
                f"continue, or put its template into the run as {FILE}"
            )
        return found

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: mappings with a ``role`` and a ``content``, and whatever else the template reads.
            tools: JSON schemas of functions that the model may call, passed to the template as they are.
            documents: texts to answer from, passed likewise.
            add_generation_prompt: end with what stands before an answer of the model.
            continue_final_message: leave the last message open, so that the model goes on with it; no generation
                prompt is added.
            variables: further variables of the template, such as ``enable_thinking``.

        Raises:
            DataError: no messages, one that is none, messages that the template refuses, or a choice that is neither
                True nor False.
            ConfigError: no Jinja, or a template that does what the sandbox forbids.
        """
        given = _Conversation.checked(messages, tools, documents)
        return self._render(given, (add_generation_prompt, continue_final_message, variables))

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        read_special_tokens: bool = False,
    ) -> EncodedPrompt:
        """Return the text of ``render`` with its ids; the template writes all special tokens, and none is added.

        Args:
            read_special_tokens: read special tokens that are spelt out in a message as tokens, as transformers does by
                default.

        Raises:
            DataError, ConfigError: as ``render``; or the template looks for a special token in a message and leaves it
                there, so that it could not stay text.
        """
        given = _Conversation.checked(messages, tools, documents)
        render = partial(self._render, how=(add_generation_prompt, continue_final_message, variables))
        text, reader = render(given), tokenizer.with_special_tokens()
        if read_special_tokens:
            return EncodedPrompt(text, tuple(reader.encode(text)))
        guard = _Guard(given, text, render, reader.special_spellings)
        return EncodedPrompt(text, tuple(reader.encode_without(guard.written(), guard.barrier)))

    def ends(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the special token that ends a message of the model, as the template writes one; none if there is none.

        Not every folder names it among the tokens that end a text.
        """
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "⟨answer⟩"}]
        try:
            _, found, after = self.render(said, add_generation_prompt=False).rpartition("⟨answer⟩")
        except DataError:
            return ()
        first = tokenizer.with_special_tokens().encode(after.lstrip())[:1] if found and after.strip() else []
        return tuple(token for token in first if token in tokenizer.marks)

    def _render(self, given: "_Conversation", how: tuple[bool, bool, Mapping[str, Any] | None]) -> str:
        from dragoman.decode.jinja import render

        add_generation_prompt, continue_final_message, variables = how
        for name, value in (
            ("add_generation_prompt", add_generation_prompt),
            ("continue_final_message", continue_final_message),
        ):
            if not isinstance(value, bool):
                raise DataError(f"{name}: true or false is expected, and this is {value!r:.40}")
        if continue_final_message:
            given, add_generation_prompt = given.left_open(), False
        said = self.tokens | check_variables(variables) | given.variables()
        said["add_generation_prompt"] = add_generation_prompt
        text = render(self._source(given), said, self.where)
        return _opened(text) if continue_final_message else text

    def _source(self, given: "_Conversation") -> str:
        wanted = _WITH_TOOLS if given.tools is not None and _WITH_TOOLS in self.sources else DEFAULT
        if wanted not in self.sources:
            raise ConfigError(f"{self.where}: has templates for {', '.join(self.sources)}, and none called {DEFAULT}")
        return self.sources[wanted]


@dataclasses.dataclass(frozen=True)
class _Conversation:
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    documents: list[dict[str, Any]] | None

    @classmethod
    def checked(cls, messages: Any, tools: Any, documents: Any) -> "_Conversation":
        """Return a conversation of plain data; raise DataError as ``ChatTemplate.render``."""
        return cls(check_messages(messages), check_schemas(tools, "tools"), check_schemas(documents, "documents"))

    def variables(self) -> dict[str, Any]:
        return {"messages": self.messages, "tools": self.tools, "documents": self.documents}

    def replaced(self, pattern: re.Pattern[str], new: Callable[["_Spelling"], str]) -> "_Conversation":
        """Return the conversation with each match of ``pattern`` in its texts replaced."""

        def part(number: int, value: Any) -> Any:
            return mapped(value, lambda text: pattern.sub(lambda found: new(_Spelling(number, found[0])), text))

        messages = [part(number, message) for number, message in enumerate(self.messages, 1)]
        return _Conversation(messages, part(0, self.tools), part(0, self.documents))

    def left_open(self) -> "_Conversation":
        """Return the conversation with a mark at the end of its last message.

        Raises:
            DataError: it has no text.
        """
        *before, last = self.messages
        content = last.get("content")
        if isinstance(content, str):
            content = content + _OPEN_END
        elif isinstance(content, list) and content and isinstance(content[-1].get("text"), str):
            content = [*content[:-1], content[-1] | {"text": content[-1]["text"] + _OPEN_END}]
        else:
            raise DataError(f"message {len(self.messages)}: has no text that could be continued")
        return dataclasses.replace(self, messages=[*before, last | {"content": content}])


def _opened(text: str) -> str:
    """Return the text up to where the last message ends.

    Raises:
        DataError: the template leaves that message out.
    """
    before, found, after = text.rpartition(_OPEN_END.rstrip())
    if not found:
        raise DataError("the last message cannot be continued: the chat template does not write all of it")
    return before if after.startswith(" ") else before.rstrip()


# ---- special tokens that somebody typed ------------------------------------------------------------


class _Spelling(NamedTuple):
    """Special token that a text of a conversation spells."""

    message: int
    """Number of the message, or 0 in tools and documents."""
    name: str


class _Guard:
    """A conversation in which the special tokens that somebody typed stay text: a barrier stands inside each of them.

    A template may look for a special token in a message, as for the end of its reasoning. Where a barrier would change
    what the template writes, that token stays whole, and must not remain in the text.
    """

    def __init__(
        self,
        given: _Conversation,
        text: str,
        render: Callable[[_Conversation], str],
        special: Sequence[str],
    ):
        """
        Args:
            text: the conversation as ``render`` writes it.
            special: the spellings of special tokens.

        Raises:
            DataError: a text with all characters that could be a barrier.
        """
        self.given, self.text, self.render, self.barrier = given, text, render, _barrier(text)
        self.names = sorted(filter(None, special), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.names)) or "(?!)")

    def written(self) -> str:
        """Return the text with its barriers.

        Raises:
            DataError: a special token would be read as one.
        """
        spelt: dict[_Spelling, None] = {}
        self.given.replaced(self.pattern, lambda one: spelt.setdefault(one) or one.name)
        if not spelt:
            return self.text
        if (found := self._with_barriers(spelt)) is not None:
            return found
        found, guarded = self.text, set[_Spelling]()
        for one in spelt:
            if (text := self._with_barriers({*guarded, one})) is not None:
                found, guarded = text, {*guarded, one}
        self._check_removed(spelt.keys() - guarded)
        return found

    def _with_barriers(self, guarded: Container[_Spelling]) -> str | None:
        """Return the text with barriers in these tokens; None where the template then writes another text."""
        try:
            found = self._rendered(
                lambda one: one.name[0] + self.barrier + one.name[1:] if one in guarded else one.name
            )
        except DataError:  # the template refuses the message
            return None
        return found if found.replace(self.barrier, "") == self.text else None

    def _check_removed(self, whole: Set[_Spelling]) -> None:
        """Refuse a conversation where one of these tokens remains in the text, or where the text around it closes up to
        another one: between barriers, it still stands there, and the other does not.

        Raises:
            DataError: it does.
        """
        text = self._rendered(lambda one: self.barrier + one.name + self.barrier if one in whole else one.name)
        changed = any(text.count(name) != self.text.count(name) for name in self.names)
        for message, name in sorted(whole):
            if changed or self.barrier + name + self.barrier in text:
                where = f"message {message}" if message else "tools or documents"
                raise DataError(
                    f"{where}: the chat template looks for {name!r} and leaves a special token there, which the model "
                    "would read as one: write it in another way"
                )

    def _rendered(self, new: Callable[[_Spelling], str]) -> str:
        return self.render(self.given.replaced(self.pattern, new)).replace(json.dumps(self.barrier)[1:-1], self.barrier)


def _barrier(text: str) -> str:
    """Return a character that ``text`` does not have."""
    free = next((barrier for barrier in _BARRIERS if barrier not in text), None)
    if free is None:
        raise DataError("messages: they hold each of 256 characters for private use: remove one of them")
    return free


# ---- where a template is found ---------------------------------------------------------------------


def find_chat_template(run: str | Path) -> ChatTemplate | None:
    """Return the chat template of a run; None if it has none.

    The order is that of transformers: files before tokenizer_config.json. A ``chat_template.jinja`` in the run itself
    comes before those.

    Raises:
        CheckpointError: a file that cannot be read.
    """
    origin = origin_folder(run)
    found = read_template_sources(origin.parent, origin)
    return found and ChatTemplate(found.sources, _special_tokens(origin), str(found.path))


def template_from_file(path: str | Path, run: str | Path) -> ChatTemplate:
    """Return the template in a file, for a run that has none or another one.

    Raises:
        DataError: a file that cannot be read.
    """
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return ChatTemplate(source, _special_tokens(origin_folder(run)), str(path))


_ANY_CLASS = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that have no special tokens but those that a folder names."""


def _special_tokens(origin: Path) -> dict[str, str]:
    """Return the special tokens as variables: as tokenizer_config.json names them, else as the tokenizer does."""
    stated = read_json(origin / "special_tokens_map.json") | read_json(origin / "tokenizer_config.json")
    if stated.get("tokenizer_class") not in _ANY_CLASS and not {"bos_token", "eos_token"} <= stated.keys():
        stated = _names_in_tokenizer(origin.parent) | stated
    named = {f"{role}_token": stated.get(f"{role}_token") for role in _ROLES}
    contents = {role: token.get("content") if isinstance(token, dict) else token for role, token in named.items()}
    return {role: token for role, token in contents.items() if isinstance(token, str)}


def _names_in_tokenizer(run: Path) -> dict[str, str]:
    """Return the original's names of beginning and end, or ours in a run that was trained here."""
    path = run / "tokenizer.json"
    template = Tokenizer.load(path).template if path.is_file() else None
    originals = {} if template is None else template.originals
    return {
        role: originals.get(ours, ours) for role, ours in zip(("bos_token", "eos_token"), SPECIALS[1:], strict=True)
    }
