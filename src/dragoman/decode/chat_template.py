"""Chat templates: messages of a conversation to the text, and the ids, that a chat model was trained on.

A template is a program in Jinja that came with the model. What it renders equals ``apply_chat_template`` of
transformers. Its special tokens are read as such; those that somebody typed into a message stay text, so that nobody
who writes to a model can end a message or begin one of another role.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
            DataError: no messages, one that is none, or messages that the template refuses.
            ConfigError: no Jinja, or a template that does what the sandbox forbids.
        """
        given = _Conversation.checked(messages, tools, documents)
        return self._render(given, add_generation_prompt, continue_final_message, variables)

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
            DataError, ConfigError: as ``render``.
        """
        given = _Conversation.checked(messages, tools, documents)
        how = add_generation_prompt, continue_final_message, variables
        text, reader = self._render(given, *how), tokenizer.with_special_tokens()
        barrier = _barrier(text)
        guarded = given if read_special_tokens else given.guarded(reader, barrier)
        if guarded == given:
            return EncodedPrompt(text, tuple(reader.encode(text)))
        rendered = self._render(guarded, *how).replace(json.dumps(barrier)[1:-1], barrier)
        return EncodedPrompt(text, tuple(reader.encode_without(rendered, barrier)))

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

    def _render(
        self,
        given: "_Conversation",
        add_generation_prompt: bool,
        continue_final_message: bool,
        variables: Mapping[str, Any] | None,
    ) -> str:
        from dragoman.decode.jinja import render

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

    def guarded(self, tokenizer: Tokenizer, barrier: str) -> "_Conversation":
        """Return the conversation with a barrier inside each special token that a text of it spells."""
        names = sorted(filter(None, tokenizer.special_spellings), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, names)))

        def guard(text: str) -> str:
            return pattern.sub(lambda found: found[0][0] + barrier + found[0][1:], text)

        return _Conversation(*(mapped(part, guard) for part in (self.messages, self.tools, self.documents)))

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
