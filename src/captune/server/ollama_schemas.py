"""What requests and responses of Ollama's API hold."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from captune.core.options import MOST_NEW_TOKENS, WordingOptions
from captune.server.chat_schemas import Stop, search_values
from captune.server.completions import ChatTurn
from captune.server.schemas import MAX_TEXT_LENGTH, Image

MAX_STOPS = 16
Images = Annotated[list[Image], Field(max_length=64)]


class OllamaOptions(BaseModel):
    """Options of the search by Ollama's names; captune's own may stand beside them, others are ignored."""

    model_config = ConfigDict(extra="allow")

    temperature: float | None = Field(None, ge=0, description="Above 0 the caption is sampled; 0: not.")
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = Field(None, description="`sample_seed`; below 0: none.")
    num_predict: int | None = Field(
        None, description="`max_new_tokens`; below 0: as many as there is room for.", examples=[30]
    )
    repeat_penalty: float | None = Field(None, ge=0.01, le=10, description="`repetition_penalty`.")
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="The caption ends before the first of these."
    )

    def generation_options(self) -> dict[str, Any]:
        """The options of this request alone; raises `ValidationError`."""
        predicted = self.num_predict
        own = {"top_k": self.top_k, "repetition_penalty": self.repeat_penalty}
        return search_values(
            {**(self.model_extra or {}), **{name: value for name, value in own.items() if value is not None}},
            most_tokens=MOST_NEW_TOKENS if predicted is not None and predicted < 0 else predicted,
            seed=self.seed if self.seed is not None and self.seed >= 0 else None,
            top_p=self.top_p,
            temperature=self.temperature,
        )

    def wording(self) -> dict[str, Any]:
        """The options of this request about a caption's text alone."""
        return {name: value for name, value in (self.model_extra or {}).items() if name in WordingOptions.model_fields}

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class _OllamaRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str = Field(description="A model by its name, also with `:latest`.", max_length=500)
    stream: bool | None = Field(None, description="False: one answer instead of a line for each piece.")
    options: OllamaOptions | None = None
    format: str | dict[str, Any] | None = Field(None, description="Empty: captions are text.")
    keep_alive: float | str | None = Field(None, description="Read, and ignored.")


class GenerateRequest(_OllamaRequest):
    """One image, and what is asked about it, if anything. Without both nothing is captioned: the model is loaded."""

    prompt: str | None = Field(None, max_length=MAX_TEXT_LENGTH)
    system: str | None = Field(None, max_length=MAX_TEXT_LENGTH)
    images: Images | None = None

    @property
    def turns(self) -> list[ChatTurn]:
        system = [ChatTurn("system", self.system)] if self.system else []
        return [*system, ChatTurn("user", self.prompt or "", self.images or ())]

    @property
    def is_empty(self) -> bool:
        """Whether it is there to load the model alone."""
        return not self.images and not self.prompt


class OllamaMessage(BaseModel):
    """A message of a chat."""

    role: str = Field(max_length=50)
    content: str | None = None
    images: Images | None = None


class OllamaChatRequest(_OllamaRequest):
    """A conversation about one image, that of the user's last message that has one."""

    messages: list[OllamaMessage] = Field(default=[], max_length=1000)

    @property
    def turns(self) -> list[ChatTurn]:
        return [ChatTurn(each.role, each.content or "", each.images or ()) for each in self.messages]

    @property
    def is_empty(self) -> bool:
        """Whether it is there to load the model alone."""
        return not self.messages


class ShowRequest(BaseModel):
    """A model, as `model` or, as earlier versions of Ollama call it, `name`."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(None, max_length=500)
    name: str | None = Field(None, max_length=500)


class OllamaAnswer(BaseModel):
    """A line of an answer: a text, or the last with `done`, why it ended, and figures in nanoseconds and tokens.

    `response` is of /api/generate, `message` of /api/chat. `load_duration` is the wait for the model,
    `prompt_eval_duration` reading the image, `eval_duration` writing the caption, the wait for a batch included.
    """

    model: str
    created_at: str
    response: str | None = None
    message: dict[str, Any] | None = None
    done: bool
    done_reason: str | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class ModelDetails(BaseModel):
    """What kind of model it is; empty is what captune does not say."""

    parent_model: str = ""
    format: str = "captune"
    family: str
    families: list[str]
    parameter_size: str = ""
    quantization_level: str = ""


class ListedModel(BaseModel):
    """A captioner that is served; `digest` is made of its name and where it comes from, `size` are bytes of weights."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class ListedModels(BaseModel):
    """The captioners that are served."""

    models: list[ListedModel]


class ShownModel(BaseModel):
    """A captioner that is served."""

    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str] = ["completion", "vision"]
    modified_at: str


class Version(BaseModel):
    """captune's version."""

    version: str
