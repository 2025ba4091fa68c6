"""The cells of the notebook on which the chat's browser tests run."""

SETUP = """
import llmlab
from llmlab import zoo
from tests import scripted_engine as scripted
lab = llmlab.lab()
engine = scripted.add(lab, "echo", context=4096, template=(zoo.path("nano") / "chat_template.jinja").read_text())
engine.pace, engine.piece = 0.01, 6
texts = []
engine.say = lambda p, q: texts.pop(0) if texts else "Paris is the capital of France, on the Seine."

def weather(city: str, days: int = 1) -> str:
    "The weather in a city."
    return f"{city}: 12 degrees, rain for {days} days"

def send_mail(to: str) -> str:
    "Send a mail."
    raise ConnectionError("the mail server doesn't answer")

chat = llmlab.chat("echo", system="Be brief.", tools=[weather, send_mail])
chat
"""
CALLS = """
import json
call = lambda name, **given: json.dumps({"name": name, "arguments": given})
texts += [call("weather", city="Oslo", days=3) + chr(10) + call("send_mail", to="ada@example.org"),
          "In Oslo it is 12 degrees, and it will rain for three days. The mail couldn't be sent."]
"""
SLOW = "engine.pace = 0.05; texts += ['word ' * 400]"
OTHER = "other = scripted.add(lab, 'other'); other.piece = 6; plain = llmlab.chat(); plain"
FULL = """
engine.pace = 0
small = llmlab.chat("echo", overflow="drop", max_tokens=900)
for i in range(5): texts.append(f"{i} " * 600); small.send(f"Message {i}")
small
"""
CUT = """
chat2 = llmlab.chat("echo", schema={"type": "object"}, max_tokens=4)
model = lab.get("echo"); real = model.stream
model.stream = lambda said, **given: real(said, **{k: v for k, v in given.items() if k != "schema"})
texts.append('{"name": "Ada Lovelace", "born": 1815}'); chat2.send("Who wrote the first program?")
model.stream = real
chat2
"""
SEES = (
    "from llmlab.engines import vision; vision.refusal = lambda *_: None\npics = llmlab.chat('echo', height=260); pics"
)
FOLLOW = "print(plain.model, repr(plain.turns[-1]['facts']['model']))"
STATE = "print(chat.sampling, chat.overflow, repr(chat.system), [p.name for p in llmlab.prompts().list()])"
CELLS = [SETUP, CALLS, SLOW, OTHER, "lab.use('echo'); None", FOLLOW, FULL, CUT, SEES, STATE]
