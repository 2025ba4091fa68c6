"""The provider `llmlab` of Inspect: `inspect eval TASK --model llmlab/nano` runs the model in Inspect's own process.

Inspect imports it through the entry point `inspect_ai` of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolFunction, ToolInfo

from llmlab._hooks import hooks
from llmlab.errors import BadInputError, UnsupportedError, unknown
from llmlab.session import Lab
from llmlab.tool_calls.tool import Tool
from llmlab.types import Completion

if TYPE_CHECKING:
    from llmlab.model import Model

# -M NAME=VALUE: how a model is loaded, and its adapter.
_LOAD = ("engine", "quant", "ctx", "max_concurrency", "extra")
_ARGUMENTS = (*_LOAD, "adapter", "think")
_SAMPLING = {
    "max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "seed": "seed",
    "stop_seqs": "stop", "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
    "num_choices": "n", "reasoning_tokens": "think",
}  # fmt: skip
_REFUSED = ("best_of", "prompt_logprobs", "modalities", "extra_body")
_REASONS: dict[str, Any] = {"stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls"}


@modelapi(name="llmlab")
class LlmLabAPI(ModelAPI):  # type: ignore[misc]
    """A model in this process: the loaded one of that name, else one that is loaded now.

    Args:
        model_name: what follows `llmlab/`: a loaded model's name, or what `llmlab.load` takes.
        config: Inspect's settings of the model.
        **arguments: engine, quant, ctx, max_concurrency and extra, as in `llmlab.load`; adapter and think, as in
            `Model.generate`.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        for name in arguments:
            if name not in _ARGUMENTS:
                raise unknown("argument of llmlab's models (-M)", name, _ARGUMENTS)
        given = {name: arguments[name] for name in _LOAD if arguments.get(name) is not None}
        self._own: Any = None
        self._think = arguments.get("think")
        self._model = self._found(model_name, given)
        self._adapter = self._attached(arguments.get("adapter"))

    def _found(self, name: str, given: dict[str, Any]) -> Model:
        shared = hooks.lab() if hooks.lab is not None else None
        loaded: Model | None = shared.models.get(name) if shared is not None else None
        if loaded is not None:
            if given:
                raise BadInputError(
                    f"{name} is loaded already, so -M {next(iter(given))}= has no effect.",
                    "Leave it out, or unload the model.",
                )
            return loaded
        own = Lab()
        self._own = own
        return own.load(name, **given)

    def _attached(self, spec: str | None) -> str | None:
        from llmlab.adapters.attached import parse

        if spec is None:
            return self._model.adapter
        for name, _ in parse(spec):
            if name not in self._model.adapters:
                self._model.add_adapter(name, name)
        return spec

    def close(self) -> None:
        """Unload the model if it was loaded for Inspect."""
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def max_connections(self) -> int:
        """As many samples at once as the model's batch holds."""
        return self._model.plan.max_concurrency

    def connection_key(self) -> str:
        """One limit per model."""
        return f"llmlab/{self.model_name}"

    async def count_text_tokens(self, text: str) -> int:
        """The model's own count."""
        return self._model.count_tokens(text)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a conversation; calls of tools are returned, and Inspect runs them."""
        options = self._options(config)
        if tools:
            options |= _tools(tools, tool_choice)
        done = await self._model.agenerate([_message(one) for one in input], adapter=self._adapter, **options)
        return _output(self.model_name, done)

    def _options(self, config: GenerateConfig) -> dict[str, Any]:
        refused = next((name for name in _REFUSED if getattr(config, name, None) is not None), None)
        if refused is not None:
            raise UnsupportedError(f"llmlab's provider of Inspect doesn't take {refused}.", "Leave it out.")
        options = {ours: value for name, ours in _SAMPLING.items() if (value := getattr(config, name)) is not None}
        if self._think is not None:
            options["think"] = self._think
        if config.logit_bias:
            options["logit_bias"] = {int(token): bias for token, bias in config.logit_bias.items()}
        if config.logprobs or config.top_logprobs is not None:
            options["logprobs"] = config.top_logprobs or 0
        if config.response_schema is not None:
            options["schema"] = config.response_schema.json_schema.model_dump(exclude_none=True, by_alias=True)
        return options


def _tools(tools: Sequence[ToolInfo], choice: ToolChoice) -> dict[str, Any]:
    made = [
        Tool(tool.name, tool.description, tool.parameters.model_dump(exclude_none=True, by_alias=True), _never)
        for tool in tools
    ]
    named = choice.name if isinstance(choice, ToolFunction) else "required" if choice == "any" else choice
    return {"tools": made, "tool_choice": named, "run_tools": False}


def _never(**_arguments: Any) -> None:
    """Inspect runs the tools."""


def _message(one: ChatMessage) -> dict[str, Any]:
    """A message of Inspect's as llmlab takes it."""
    parts = [one.content] if isinstance(one.content, str) else one.content
    texts, images, thoughts = [], [], []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, ContentText):
            texts.append(part.text)
        elif isinstance(part, ContentReasoning):
            thoughts.append(part.reasoning)
        elif isinstance(part, ContentImage):
            images.append({"type": "image_url", "image_url": {"url": part.image}})
        else:
            raise UnsupportedError(f"llmlab's models read no {type(part).__name__}.", "Use text and images.")
    text = "\n".join(texts)
    found: dict[str, Any] = {"role": one.role, "content": [{"type": "text", "text": text}, *images] if images else text}
    if thoughts:
        found["reasoning"] = "\n".join(thoughts)
    if isinstance(one, ChatMessageAssistant) and one.tool_calls:
        found["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.function, "arguments": call.arguments}}
            for call in one.tool_calls
        ]
    if isinstance(one, ChatMessageTool):
        found |= {"name": one.function, "tool_call_id": one.tool_call_id}
        if one.error is not None:
            found["content"] = one.error.message
    return found


def _output(name: str, done: Completion) -> ModelOutput:
    calls = [
        ToolCall(call.id, call.name, dict(call.arguments), parse_error=call.problem or None) for call in done.tool_calls
    ]
    choices = []
    for choice in done.choices:
        thought = choice.reasoning
        content: Any = [ContentReasoning(reasoning=thought), ContentText(text=choice.text)] if thought else choice.text
        message = ChatMessageAssistant(content=content, tool_calls=calls or None, model=name, source="generate")
        reason = "tool_calls" if calls else _REASONS.get(choice.finish_reason or "", "unknown")
        choices.append(ChatCompletionChoice(message=message, stop_reason=reason, logprobs=_logprobs(choice.logprobs)))
    usage = done.usage
    read = usage.cached_tokens or 0
    return ModelOutput(
        model=name,
        choices=choices,
        time=done.timings.total_s,
        usage=ModelUsage(
            input_tokens=usage.prompt_tokens - read,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            input_tokens_cache_read=read,
        ),
        metadata={"engine": done.engine, "quant": done.quant, "adapter": done.adapter},
    )


def _logprobs(tokens: Any) -> Logprobs | None:
    if tokens is None:
        return None
    return Logprobs(
        content=[
            Logprob(
                token=one.token,
                logprob=one.logprob,
                bytes=list(one.bytes),
                top_logprobs=[TopLogprob(token=text, logprob=value) for _id, text, value in one.top],
            )
            for one in tokens
        ]
    )
