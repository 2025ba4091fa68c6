"""Plain data that every layer speaks: messages, sampling parameters, completions, chunks, metrics."""

from llmlab.types.completion import Choice, Chunk, Completion, FinishReason, ToolStep
from llmlab.types.messages import IMAGE_FORMS, ROLES, Message, Prompt, Role, ToolCall, data_url, image_of, with_object
from llmlab.types.metrics import Guidance, GuidanceStep, Speculation, Timings, TokenLogprob, Usage
from llmlab.types.params import FORMATS, EngineName, Format, SamplingParams

__all__ = [
    "FORMATS",
    "IMAGE_FORMS",
    "ROLES",
    "Choice",
    "Chunk",
    "Completion",
    "EngineName",
    "FinishReason",
    "Format",
    "Guidance",
    "GuidanceStep",
    "Message",
    "Prompt",
    "Role",
    "SamplingParams",
    "Speculation",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "ToolStep",
    "Usage",
    "data_url",
    "image_of",
    "with_object",
]
