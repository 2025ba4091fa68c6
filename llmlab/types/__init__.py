"""Plain data that every layer speaks: messages, sampling parameters, completions, chunks, metrics."""

from llmlab.types.completion import Choice, Chunk, Completion, Completions, FinishReason, ToolStep
from llmlab.types.images import IMAGE_FORMS, data_url, fetch_image, image_of
from llmlab.types.messages import ROLES, Message, Prompt, Role, ToolCall, with_object
from llmlab.types.metrics import Guidance, GuidanceStep, Probabilities, Speculation, Timings, TokenLogprob, Trace, Usage
from llmlab.types.parallel import Parallel
from llmlab.types.params import FORMATS, EngineName, Format, SamplingParams

__all__ = [
    "FORMATS",
    "IMAGE_FORMS",
    "ROLES",
    "Choice",
    "Chunk",
    "Completion",
    "Completions",
    "EngineName",
    "FinishReason",
    "Format",
    "Guidance",
    "GuidanceStep",
    "Message",
    "Parallel",
    "Probabilities",
    "Prompt",
    "Role",
    "SamplingParams",
    "Speculation",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "ToolStep",
    "Trace",
    "Usage",
    "data_url",
    "fetch_image",
    "image_of",
    "with_object",
]
