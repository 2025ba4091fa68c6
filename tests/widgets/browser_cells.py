"""The cells of the notebook that the browser tests drive."""

SETUP = """
import llmlab, time
from tests import scripted_engine as scripted
lab = llmlab.lab()
engine = scripted.add(lab, "echo")
engine.pace, engine.piece = 0.01, 4
chat = llmlab.chat("echo")
chat
"""
EVIL = """
EVIL = '''<script>window.hacked = 1</script> <img src=x onerror="window.hacked=2"> <svg onload=window.hacked=3>
[a](javascript:window.hacked=4) [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>1</script>) ![d](https://e.org/x.png)
<a href="javascript:window.hacked=5">x</a> <iframe srcdoc="<script>parent.hacked=6</script>"></iframe>
</div></section></textarea><style>*{display:none}</style> **<b onclick=1>** `</code><script>window.hacked=7</script>`

| <img src=x onerror=window.hacked=8> | [t](vbscript:x) |
|---|---|
| <script>window.hacked=9</script> | \\u202e |

```"><script>window.hacked=10</script>
</code></pre><script>window.hacked=11</script>
```
''' + "*" * 3000 + "[" * 3000 + "`" * 3000 + "\\n\\n" + "a**b_[" * 20_000
engine.say = lambda prompt, params: EVIL
engine.pace, engine.piece = 0, 4000
scripted.add(lab, "<img src=x onerror=window.hacked=12>"); lab.use("echo")
chat.submit("<script>window.hacked=13</script>", files=[{"name": "<img src=x onerror=window.hacked=14>", "text": "x"}])
"""
FAST = """
WORDS = "".join(f"w{i:03d}" + ("\\n" if i % 40 == 39 else " ") for i in range(1000))
chat.sampling = {"max_tokens": 1000}
engine.say = lambda prompt, params: WORDS
engine.pace, engine.piece = 1 / 500, 5
sent = []
plain = chat._tell
chat._tell = lambda **m: (sent.append(m["do"]), plain(**m))[1]
fast = chat.submit("many", files=[])
"""
LONGER = """
chat._tell = plain; chat.sampling = {}; engine.pace, engine.piece = 0.01, 4
engine.say = lambda p, q: 'word ' * 300
chat
"""
BUSY = """
engine.pace, engine.say = 0.02, lambda p, q: 'word ' * 2000
turn = chat.submit('long')
turn.wait(30); print(turn.done)
"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
REAL = """
llmlab.lab().get('real').add_adapter('pirate', 'pirate')
talk = llmlab.chat('real', temperature=0, max_tokens=40)
talk
"""
COMPOSED = """
import ipywidgets
engine.pace, engine.say = 0.01, lambda p, q: 'composed answer ' * 200
one, two = llmlab.chat('echo', height=150), llmlab.chat('echo', height=150)
heard = []
one.observe(lambda change: heard.append(change['new']), 'running')
linked = ipywidgets.jslink((one, 'system'), (two, 'system'))
ipywidgets.Tab([ipywidgets.HBox([one, two]), llmlab.panel()], titles=['talks', 'bench'])
"""
RICH = r"""
RICH = r'''## Cost
It costs $5 or $10, so $x = 5$ and \(y^2\); nested *emph **strong***, [a link](https://e.org/a_(b)), `code`.

\[
\int_0^1 \frac{x^2}{1 + \sqrt{x}}\,dx
+ \sum_{n=1}^{\infty} \frac{1}{n^2} = \begin{pmatrix} a & b \\ c & d \end{pmatrix}
\]

- [x] done
- [ ] to do: \(a<b\)
  1. nested

> A quote with ~~old~~ new text.

| item | price | formula |
|:-----|------:|:-------:|
| a \| b | $5 | $e^{i\pi}$ |
| c | $10 | $$x$$ |

```python
def area(r: float) -> float:
    "A circle's."
    return 3.14159 * r ** 2  # not exact
```

مرحبا بالعالم، هذا نص من اليمين إلى اليسار.

- عنصر أول
- عنصر ثان
'''
engine.pace, engine.piece, engine.say = 0, 4000, lambda p, q: RICH
rich = llmlab.chat("echo", height=1600)
rich
"""
CELLS = [
    SETUP,
    EVIL,
    "chat.clear()" + FAST,
    "fast.result(); print(sent.count('delta'), len(fast.result().token_ids), fast.result().text == WORDS)",
    LONGER,
    "a = llmlab.arena('echo', 'echo', blind=True); engine.say = lambda p, q: f'answer with seed {q.params.seed}'; a",
    "engine.pace = 0; engine.say = lambda p, q: 'sure enough'\nlab.get('echo').generate('x', logprobs=2).inspect()",
    "llmlab.panel()",
    BUSY,
    "print(len(a.votes), a.votes.winner[0], chat.messages[0]['content'])",
    REAL,
    COMPOSED,
    "print(repr(two.system), heard[-1] == '', [m['role'] for m in one.messages])",
    "%load_ext llmlab\n%llm chat --resume",
    "llmlab.lab().get('real').generate('A story.', regex='(Paris|Rome)', temperature=0, logprobs=3).inspect()",
    # No engine is asked here: what is tried is that an image goes where it should once a model can see.
    "from llmlab.engines import vision; vision.refusal = lambda *_: None\npics = llmlab.chat('echo', height=260); pics",
    "print(len(pics._messages()[0].images), engine.prompts[-1][:60])",
    RICH,
    "got = lab.get('echo').generate('x')\nengine.pace, engine.piece, engine.say = 0.01, 4, lambda *_: 'w ' * 900\ngot",
]
WIDGET_CELLS = {
    "chat": 0,
    "arena": 5,
    "inspector": 6,
    "panel": 7,
    "busy": 8,
    "real": 10,
    "composed": 11,
    "resumed": 13,
    "masked": 14,
    "pictures": 15,
    "rich": 17,
    "answer": 18,
}
