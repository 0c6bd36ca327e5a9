"""Bodies and answers of OpenAI's API, with the fields that its clients send."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Probability = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=1)]
TokenId = Annotated[int, Field(ge=0)]
Entry = TypeVar("Entry")
NotEmpty = Annotated[list[Entry], Field(min_length=1)]


class OpenAiBody(BaseModel):
    """Body whose unknown fields are ignored, as clients send fields for other servers too."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    model: str
    """Name of a model."""


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False
    """End the stream with the number of tokens."""


class GenerationBody(OpenAiBody):
    """Settings of a continuation that both endpoints have."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 always takes the likeliest token; without one, the model's own settings hold."""
    top_p: Probability | None = None
    """Draw from the fewest tokens that together have this probability."""
    top_k: Count | None = None
    """Draw from this many of the likeliest tokens; no field of OpenAI's."""
    min_p: Probability | None = None
    """Draw from tokens at least this many times as likely as the likeliest one; no field of OpenAI's."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Divide the logits of tokens that occurred by it; no field of OpenAI's."""
    n: Count | None = 1
    """Number of answers."""
    stop: str | list[str] | None = None
    """Texts before the first of which an answer ends."""
    seed: Seed | None = None
    """The same seed gives the same answer."""
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[dict[str, float] | None, WithJsonSchema({"type": ["object", "null"], "maxProperties": 0})] = (
        None
    )
    """Not supported: only an empty one is accepted."""
    user: str | None = None


class CompletionBody(GenerationBody):
    """A prompt to continue."""

    prompt: str | NotEmpty[str] | NotEmpty[TokenId] | NotEmpty[NotEmpty[TokenId]]
    """A text, a list of texts, or the same as token ids."""
    max_tokens: Count | None = 16
    """Most tokens of an answer."""
    echo: bool | None = False
    """Repeat the prompt before the answer."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Return the log-probabilities of the tokens of an answer, and of this many most probable ones."""
    best_of: Annotated[Count | None, WithJsonSchema({"type": "null"})] = None
    """Not supported unless it equals n."""
    suffix: Annotated[str | None, WithJsonSchema({"type": ["string", "null"], "maxLength": 0})] = None
    """Not supported: only an empty one is accepted."""


class ResponseFormat(BaseModel):
    """Format of an answer."""

    type: Literal["text"] = "text"


class ChatBody(GenerationBody):
    """A conversation to answer."""

    messages: NotEmpty[dict[str, Any]]
    """Messages with a role and a content."""
    max_tokens: Count | None = None
    """Most tokens of the answer."""
    max_completion_tokens: Count | None = None
    """The newer name of max_tokens."""
    logprobs: bool | None = False
    """Return the log-probabilities of the answer's tokens."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Also return those of this many most probable tokens in the place of each; needs ``logprobs``."""
    tools: list[dict[str, Any]] | None = None
    """JSON schemas of functions, shown to the model by its chat template."""
    tool_choice: Literal["none", "auto"] | None = None
    functions: Annotated[list[dict[str, Any]] | None, WithJsonSchema({"type": ["array", "null"], "maxItems": 0})] = None
    """The older name of tools, not supported: only an empty list is accepted."""
    function_call: Literal["none", "auto"] | None = None
    """The older name of tool_choice."""
    modalities: list[Literal["text"]] | None = None
    audio: Annotated[dict[str, Any] | None, WithJsonSchema({"type": ["object", "null"], "maxProperties": 0})] = None
    """Not supported: only an empty one is accepted."""
    web_search_options: Annotated[Any, WithJsonSchema({"type": "null"})] = None
    """Not supported."""
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables of the chat template; no field of OpenAI's."""


class EmbeddingBody(OpenAiBody):
    """Texts whose vectors are wanted."""

    input: str | NotEmpty[str]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Count | None = None
    """Not supported unless it is the model's own."""
    user: str | None = None


# ---- answers --------------------------------------------------------------------------------------------


class ModelEntry(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelEntry]


class Usage(BaseModel):
    """Number of tokens of a request."""

    prompt_tokens: int
    completion_tokens: int | None = None
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """Log-probabilities of an answer's tokens."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """An answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class CompletionAnswer(BaseModel):
    """Continuations of the prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ChatMessage(BaseModel):
    """Message of the model."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class TopLogprob(BaseModel):
    """Log-probability of one of the most probable tokens of a place."""

    token: str
    logprob: float
    bytes: list[int] | None
    """UTF-8 bytes; null for a mark, such as that of the end."""


class TokenLogprob(BaseModel):
    """Log-probability of a token."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Log-probabilities of an answer's tokens."""

    content: list[TokenLogprob]


class ChatChoice(BaseModel):
    """An answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"]


class ChatAnswer(BaseModel):
    """Answers to the conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class EmbeddingEntry(BaseModel):
    """Vector of a text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or the base64 of 32-bit floats."""


class EmbeddingAnswer(BaseModel):
    """Vectors of all texts."""

    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: Usage
