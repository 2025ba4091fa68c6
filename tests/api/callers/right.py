"""What users type: it must pass `mypy --strict`. It is read by mypy alone, and never run."""

# ruff: noqa: B018

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import llmlab
from llmlab import Chunk, Completion, Message, Model, SamplingParams
from llmlab.options import GenerateOptions, SamplingOptions


@dataclass
class Person:
    name: str
    age: int


class Row(TypedDict):
    name: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def note(phase: str, fraction: float | None) -> None:
    print(phase, fraction)


# -- loading -------------------------------------------------------------------------------------
m: Model = llmlab.load("nano", engine="llamacpp", quant="Q4_K_M", ctx=1024, name="small", progress=note)
llmlab.load("nano", extra={"n_threads": 1, "flash_attn": "on", "use_mmap": False}, draft="ngram", from_="bartowski")
lab = llmlab.Lab()
lab.load("nano", engine="vllm", tp=2, max_concurrency=16, force=True)
lab.switch_quant("awq", name="nano", progress=note)
names: list[str] = lab.unload(everything=True)
current: Model | None = lab.current

# -- one prompt ----------------------------------------------------------------------------------
r: Completion = m.generate("hi", max_tokens=64, adapter="pirate", schema=Person)
text: str = r.text
ids: tuple[int, ...] = r.token_ids
tokens: int = r.usage.completion_tokens
speed: float | None = r.timings.tokens_per_s
m.generate("hi", schema={"type": "object"}, complete=True)
m.generate("hi", schema=Row, temperature=None)
m.generate("hi", type=list[int], seed=1, stop="END")
m.generate("hi", type=Literal["a", "b"], stop=["a", "b"], n=2, logprobs=5, top_k=0, top_p=0.9, min_p=0)
m.generate("hi", type=int | None, regex=None, adapter=None)
m.generate("hi", choice=["a", "b"], raw=True, ignore_eos=False)
m.generate(
    "hi", tools=[add, len], tool_choice="auto", max_steps=3, strict=True, approve=lambda call: call.name == "add"
)
m.generate("hi", params=SamplingParams(temperature=0), max_tokens=8)
m.generate("hi", guide=llmlab.guided.make(regex="[0-9]{3}"))
one: Completion = m.generate([{"role": "user", "content": "hi"}], system="Be brief.")
two: Completion = m.generate([Message("user", "hi"), {"role": "assistant", "content": "yes"}, Message("user", "go")])

# -- many ----------------------------------------------------------------------------------------
many: list[Completion] = m.generate(["a", "b"], temperature=0, adapter=["pirate", None], regex=["a", None])
prompts = [f"Say {i}." for i in range(10)]
texts: list[str] = [done.text for done in m.generate(prompts, choice=[["a"], ["b"]])]
talks: list[Completion] = m.generate([[{"role": "user", "content": "hi"}], [Message("user", "ho")]])

# -- others --------------------------------------------------------------------------------------
answer: Completion = m.chat([{"role": "user", "content": "hi"}], temperature=0.5, tools=[add])
for chunk in m.stream("hi", max_tokens=3):
    piece: str = chunk.text
options: GenerateOptions = {"temperature": 0, "max_tokens": 8}
sampling: SamplingOptions = {"seed": 3}
m.stream("hi", **options).cancel()
m.chat("hi", **sampling)
m.generate("hi", **options)


async def main() -> list[Chunk]:
    await m.agenerate("hi", temperature=0)
    await asyncio.gather(*(m.agenerate(prompt) for prompt in prompts))
    return [chunk async for chunk in m.astream("hi", seed=1)]


m.add_adapter("pirate", Path("adapters/pirate"))
m.compare([None, "pirate"], prompts, metric=len, max_tokens=8).means["pirate"]
m.count_tokens("hi") + len(m.tokenize("hi", special=False))
m.score([1, 2, 3]).shape
m.unload()

# -- measuring, getting, making ------------------------------------------------------------------
llmlab.compare_quants("nano", ["F16", "Q4_K_M"], windows=2, speed=False, ctx=512).frame
llmlab.measure.bench(m, concurrency=[1, 2], rounds=1).plot()
llmlab.pull("nano", quant="Q8_0", engine="llamacpp").path.exists()
llmlab.quantize(Path("model"), "Q4_K_M", imatrix="text").bytes
llmlab.remove("nano", quant="Q8_0") + 1
llmlab.tune([{"prompt": "a", "completion": "b"}], name="x", rank=4, epochs=0.5, lr=1e-3, progress=None).loss
llmlab.merge("pirate:0.5", name="merged", model=m).path
llmlab.advise("nano", concurrency=4, hardware="gpu:24", needs=["lora", "guided"]).command
llmlab.run_notebooks("a.ipynb", Path("b.ipynb"), parameters={"ENGINE": "vllm"}, junit="out.xml").ok
llmlab.record("speed", 3.5, "tokens/s")
llmlab.records("a.ipynb").frame
llmlab.runs(3, search="hi")
llmlab.loading.storage.show("nano").context_length
llmlab.files.tags.names("vllm")[0]
[one.bytes for one in llmlab.hub.cache.on_disk()]
llmlab.zoo.calculator("1 + 1")
llmlab.types.data_url(b"")

# -- widgets -------------------------------------------------------------------------------------
chat = llmlab.chat(m.name, temperature=0, system="Be brief.", resume=True, height=300)
chat.send("hi").text
llmlab.arena("a", "b", blind=True, max_tokens=8).votes
llmlab.arena(columns=[{"model": "a", "temperature": 0}, {"adapter": "pirate"}])
llmlab.panel(lab=lab).refresh()

try:
    llmlab.load("nanno")
except llmlab.LlmLabError as error:
    print(error.message, error.hint)
