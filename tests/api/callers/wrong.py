"""Wrong calls: mypy must find each marked line, and no other. It is read by mypy alone, and never run."""

# ruff: noqa: B018

import llmlab

m = llmlab.load("nano")

llmlab.laod("nano")  # error: attr-defined
llmlab.load("nano", enigne="vllm")  # error: call-arg
llmlab.load("nano", ctx="long")  # error: arg-type
llmlab.load("nano", extra={"n_threads": [1]})  # error: dict-item
llmlab.load(3)  # error: arg-type
llmlab.Lab().load("nano", quantt="F16")  # error: call-arg

m.generate("x", temprature=0)  # error: call-overload
m.generate("x", temperature="hot")  # error: call-overload
m.generate(["x"], temprature=0)  # error: call-overload
m.generate(3)  # error: call-overload
m.generate("x", stop=3)  # error: call-overload
m.generate("x", tools=3)  # error: call-overload
m.generate(["x"]).text  # error: attr-defined
m.generate("x")[0]  # error: index
m.chat("x", temprature=0)  # error: call-arg
m.chat([{"role": "user", "content": "x"}], max_tokens="8")  # error: arg-type
m.chat(["x"])  # error: list-item
m.stream("x", temprature=0)  # error: call-arg
m.stream("x", seed="a")  # error: arg-type
m.agenerate("x", temprature=0)  # error: call-arg, unused-coroutine
m.astream("x", temprature=0)  # error: call-arg
m.compare(["a"], ["x"], adapter="b")  # error: call-arg
m.engine = "vllm"  # error: misc

llmlab.tune([], name="x", epoch=3)  # error: call-arg
llmlab.tune([], rank=3)  # error: call-arg
llmlab.training.commands.tune(llmlab.lab(), [], name="x", rank="8")  # error: arg-type
llmlab.compare_quants("nano", ["F16"], window="x")  # error: arg-type
llmlab.compare_quants("nano", ["F16"], engine="vllm")  # error: call-arg
llmlab.pull("nano", tag="F16")  # error: call-arg
llmlab.quantize("nano")  # error: call-arg
llmlab.advise("nano", needs=3)  # error: arg-type
llmlab.merge("pirate")  # error: call-arg
llmlab.chat(tempereture=0)  # error: call-arg
llmlab.arena("a", "b", blind="no")  # error: arg-type
llmlab.panel(height=3)  # error: call-arg
llmlab.loading.storage.shwo("nano")  # error: attr-defined
