"""dragoman generate --chat: a conversation at the terminal, one message, or conversations from JSON lines."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.cli.argument import STDIN, is_file
from dragoman.cli.lines import write_lines
from dragoman.cli.live_input import line_batches
from dragoman.cli.terminal import progress_bar
from dragoman.errors import ConfigError, DataError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.chat import ChatModel
    from dragoman.decode.generator import Generation
    from dragoman.text.passages import Passages

HELP = "/reset begins anew, /system TEXT sets the system prompt, Ctrl-C stops an answer, Ctrl-D leaves"


@dataclasses.dataclass
class Chat:
    """Settings of ``generate --chat``."""

    model: "ChatModel"
    settings: dict[str, Any]
    """Settings of ``ChatModel.reply``."""
    system: str | None = None
    """System prompt that every conversation without one begins with."""
    passages: "Passages | None" = None
    """Passages that a user's last message is looked up in."""

    def begun(self) -> list[dict[str, Any]]:
        """Return the messages that a conversation begins with."""
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def completed(self, messages: list[Any]) -> list[Any]:
        """Return the messages, with the system prompt in front where they have none."""
        has_one = bool(messages) and isinstance(messages[0], dict) and messages[0].get("role") == "system"
        return self.looked_up(messages if has_one else [*self.begun(), *messages])

    def looked_up(self, messages: list[Any]) -> list[Any]:
        """Return the messages, with its passages in the last one where that is a user's."""
        last = messages[-1] if messages and isinstance(messages[-1], dict) else {}
        if self.passages is None or last.get("role") != "user" or not isinstance(last.get("content"), str):
            return messages
        return [*messages[:-1], last | {"content": self.passages.prompt(last["content"])}]


def is_conversation(given: str | None) -> bool:
    """Return whether a person is to type: nothing is given, and standard input is a terminal."""
    return given in (None, STDIN) and sys.stdin.isatty()


# ---- at a terminal --------------------------------------------------------------------------------------


def converse(chat: Chat) -> None:
    """Talk with a person: a message a line, until the end of the input."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # editing and history of what is typed

    print(f"Type a message and press Enter; {HELP}.", file=sys.stderr)
    messages = chat.begun()
    for typed in _typed():
        if typed.startswith("/"):
            messages = _commanded(chat, typed, messages)
        elif typed.strip():
            messages = _answered(chat, [*messages, {"role": "user", "content": typed}])
    print(file=sys.stderr)


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D leaves)", file=sys.stderr)


def _commanded(chat: Chat, typed: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    command, _, rest = typed.partition(" ")
    if command == "/reset":
        return chat.begun()
    if command == "/system":
        chat.system = rest.strip() or None
        return chat.begun()
    print(f"{command}: no such command; {HELP}", file=sys.stderr)
    return messages


def _answered(chat: Chat, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer the last message; return the conversation so far, without that message where it cannot be answered."""
    said: list[str] = []
    try:
        for piece in _pieces(chat, messages):
            said.append(piece)
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
    except DataError as error:
        print(f"dragoman: {error}; /reset begins anew", file=sys.stderr)
        return messages[:-1]
    return [*messages, {"role": "assistant", "content": "".join(said)}]


def _pieces(chat: Chat, messages: list[dict[str, Any]]) -> Iterator[str]:
    if chat.model.can_stream(chat.settings.get("search")):
        yield from chat.model.stream(chat.looked_up(messages), **chat.settings)
    else:
        yield chat.model.reply([chat.looked_up(messages)], **chat.settings)[0].text


# ---- messages as arguments and in files -----------------------------------------------------------------


def answer(chat: Chat, given: str | None, output: Path | None, *, as_json: bool) -> None:
    """Answer one message, or a conversation in each line of a file or of standard input.

    Raises:
        ConfigError: no file, and no message.
        DataError: a line that is no conversation; the message names the place.
    """
    if given is not None and given != STDIN and not is_file(given):
        written: Iterable[dict[str, Any]] = [{"messages": chat.completed([{"role": "user", "content": given}])}]
        found = _replies(chat, [list(written)])
    else:
        found = _replies(chat, _conversations(chat, given))
    write_lines(map(_as_json if as_json else _as_text, found), output)


def stream_answer(chat: Chat, message: str) -> None:
    """Print the answer to one message as it is made.

    Raises:
        ConfigError: a search whose text is not known until the end.
    """
    for piece in chat.model.stream(chat.completed([{"role": "user", "content": message}]), **chat.settings):
        print(piece, end="", flush=True)
    print()


def _replies(chat: Chat, batches: Iterable[list[dict[str, Any]]]) -> "Iterator[tuple[dict[str, Any], Generation]]":
    from dragoman.decode.prompt import EncodedPrompt

    for batch in batches:
        prompts: list[EncodedPrompt] = []
        for one in batch:
            where = one.pop("where", "")
            try:
                prompts.append(chat.model.prompt(**one))
            except DataError as error:
                raise DataError(f"{where}{error}") from None
        with progress_bar("answering", len(batch)) as progress:
            settings: dict[str, Any] = chat.settings | {"ends": chat.model.ends}
            yield from zip(batch, chat.model.generator.generate(prompts, **settings, progress=progress), strict=True)


KEYS = {"messages", "tools", "documents", "variables", "continue_final_message"}
"""Keys of a conversation in JSON lines, besides those that belong to its owner."""


def _conversations(chat: Chat, given: str | None) -> Iterator[list[dict[str, Any]]]:
    from dragoman.cli.lines import INSIST, input_lines

    name = "standard input" if given in (None, STDIN) else str(given)
    number = 0
    for lines in line_batches(input_lines(given, as_kind=INSIST)):
        batch = []
        for line in lines:
            number += 1
            if line.strip():
                batch.append(_conversation(chat, line, f"{name}: line {number}: "))
        if batch:
            yield batch


def _conversation(chat: Chat, line: str, where: str) -> dict[str, Any]:
    """Return the arguments of ``ChatModel.prompt`` in one line: a list of messages, or a mapping that has them.

    Raises:
        DataError: neither.
    """
    from dragoman.text.lines import parse_json

    try:
        plain = parse_json(line, where.removesuffix(": "))
    except DataError as error:
        raise DataError(f"{error}: write a list of messages in each line") from None
    if isinstance(plain, list):
        plain = {"messages": plain}
    if not isinstance(plain, dict) or not isinstance(plain.get("messages"), list):
        raise DataError(f"{where}a list of messages is expected, or a mapping with the key messages")
    found = {key: value for key, value in plain.items() if key in KEYS}
    return found | {"messages": chat.completed(plain["messages"]), "where": where}


def _as_text(found: "tuple[dict[str, Any], Generation]") -> str:
    return "\n".join(continuation.text for continuation in found[1].continuations)


def _as_json(found: "tuple[dict[str, Any], Generation]") -> str:
    from dragoman.decode.messages import with_continuation

    asked, generation = found
    messages, text = asked["messages"], generation.text
    if asked.get("continue_final_message"):
        answered = with_continuation(messages, text)
    else:
        answered = [*messages, {"role": "assistant", "content": text}]
    return json_text({"messages": answered} | dataclasses.asdict(generation))


def check_options(
    *,
    system: str | None,
    template: Path | None,
    chat: bool,
    special_tokens: bool,
    images: bool,
    as_kind: str | None,
) -> None:
    """Check that options of conversations are given with --chat, and others without.

    Raises:
        ConfigError: they are not.
    """
    for option, value in (("--system", system), ("--chat-template", template)):
        if value is not None and not chat:
            raise ConfigError(f"{option}: is for conversations: add --chat")
    if chat and as_kind is not None:
        raise ConfigError("--as: conversations are JSON lines: leave it out with --chat")
    if chat and images:
        raise ConfigError("--image: cannot be used with --chat: leave one of them out")
    if chat and special_tokens:
        raise ConfigError("--special-tokens: the chat template writes them; what is typed into a message stays text")
