"""Skills of conversation: tool calls and small talk."""

from __future__ import annotations

import random
from typing import Any

from llmlab.zoo.training import skills_world, words, world
from llmlab.zoo.training.example import Dialog, Message, Tool, assistant, is_held_out, roughen, user

# tool: its parameters, and its possible descriptions
_TOOLS: dict[str, tuple[dict[str, str], list[str]]] = {
    "calculator": (
        {"expression": "string"},
        [
            "Evaluates an arithmetic expression.",
            "Calculates.",
            "Computes a result.",
            "Evaluate an arithmetic expression.",
            "Evaluate an arithmetic expression and return the result.",
        ],
    ),
    "get_weather": ({"city": "string"}, ["Tells the weather in a city.", "Get the weather.", "Current weather."]),
    "get_time": ({"city": "string"}, ["Tells the time in a city.", "Get the time.", "Current time."]),
    "lookup": ({"topic": "string"}, ["Looks up a topic.", "Search an encyclopedia.", "Finds articles."]),
}
_OPERATORS = {"+": ("plus", "+"), "-": ("minus", "-"), "*": ("times", "*"), "/": ("divided by", "/")}
_ASK_SUM = [
    "What is {e}?",
    "How much is {e}?",
    "Calculate {e}.",
    "Compute {e}.",
    "{e}",
    "{e} = ?",
    "What's {e}?",
    "Tell me {e}.",
    "Please work out {e}.",
    "Can you calculate {e}?",
    "I need the result of {e}.",
    "Use the calculator: {e}",
    "{e}, how much is that?",
]
_STORY_SUMS = {
    "+": [
        "I have {a} {i} and buy {b} more. How many are there?",
        "{n} has {a} {i} and gets {b} more. How many are there now?",
        "There are {a} {i} here and {b} {i} there. How many in all?",
        "Add {a} and {b}.",
    ],
    "-": [
        "I have {a} {i} and give away {b}. How many are left?",
        "{n} had {a} {i} and lost {b}. How many are left?",
        "Subtract {b} from {a}.",
        "Of {a} {i}, {b} are broken. How many are fine?",
    ],
    "*": [
        "There are {a} boxes with {b} {i} each. How many {i} are there?",
        "Multiply {a} by {b}.",
        "{n} buys {a} bags of {b} {i}. How many {i} is that?",
        "What is the product of {a} and {b}?",
    ],
    "/": ["Divide {a} by {b}.", "{a} {i} are shared by {b} people. How many does each get?"],
}


def schema(name: str, description: str) -> Tool:
    """Build the OpenAI-style schema of one of the corpus's tools.

    Args:
        name: The tool's name.
        description: Its description.

    Returns:
        The schema.
    """
    parameters = _TOOLS[name][0]
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": properties, "required": list(parameters)},
        },
    }


def _offer(rng: random.Random, needed: str) -> list[Tool]:
    names = [needed]
    if rng.random() < 0.45:
        others = [name for name in _TOOLS if name != needed]
        names += rng.sample(others, rng.choice([1, 1, 2, 3]))
        rng.shuffle(names)
    return [schema(name, rng.choice(_TOOLS[name][1])) for name in names]


def call(name: str, **arguments: Any) -> Message:
    """Make an assistant message that calls a tool.

    Args:
        name: The tool.
        arguments: Its arguments.

    Returns:
        The message, without content.
    """
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def _reply(content: str) -> Message:
    return {"role": "tool", "content": content}


def sum_of(rng: random.Random, held: bool) -> tuple[str, str, str]:
    """Choose a calculation; the key is (operands, operator).

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split.

    Returns:
        Question, expression and result.
    """
    while True:
        op = rng.choice("++--**/")
        a = rng.randint(0, 9) if rng.random() < 0.3 else rng.randint(10, 99)
        b = rng.randint(0, 9) if rng.random() < 0.4 else rng.randint(10, 99)
        if op == "/":
            b = max(b, 1)
            a = a // b * b
        if is_held_out(("tool", f"{a} {op} {b}")) == held:
            break
    if rng.random() < 0.35 and not (op == "-" and a < b):
        items = rng.choice(words.ORDER_ITEMS)
        question = rng.choice(_STORY_SUMS[op]).format(a=a, b=b, i=items, n=words.first_name(rng))
    else:
        word, sign = _OPERATORS[op]
        form = rng.random()
        text = f"{a} {word} {b}" if form < 0.4 else f"{a} {sign} {b}" if form < 0.8 else f"{a}{sign}{b}"
        question = rng.choice(_ASK_SUM).format(e=text)
        question = question[0].upper() + question[1:]
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]
    return question, f"{a} {op} {b}", str(result)


def tool(rng: random.Random, held: bool) -> Dialog:
    """Call the calculator, then answer from its result; occasionally another tool, or a question that needs none.

    Args:
        rng: The random number generator.
        held: Whether to draw from the held-out split, where it is always one calculation.

    Returns:
        The dialog.
    """
    chance = 0.0 if held else rng.random()
    system = rng.choice(skills_world.PLAIN_SYSTEMS) if rng.random() < 0.15 else ""
    if chance < 0.72:
        turns: list[Message] = []
        key: tuple[str, ...] = ()
        for _ in range(1 if held else rng.choice([1, 1, 2])):
            question, expression, result = sum_of(rng, held)
            key = ("tool", expression)
            turns += [
                user(question),
                call("calculator", expression=expression),
                _reply(result),
                assistant(f"{expression} is {result}."),
            ]
        return Dialog("tool", key, turns, system, _offer(rng, "calculator"))
    if chance < 0.90:
        return _other_tool(rng, system)
    # Tools are offered, but the question needs none.
    inner = rng.choice([skills_world.facts, small_talk])(rng)
    return Dialog("tool", inner.key, inner.turns, system, _offer(rng, rng.choice(list(_TOOLS))))


def _other_tool(rng: random.Random, system: str) -> Dialog:
    name = rng.choice(["get_weather", "get_time", "lookup"])
    place = words.city(rng)
    if name == "get_weather":
        ask = rng.choice(
            [
                "What is the weather in {c}?",
                "How is the weather in {c}?",
                "Is it raining in {c}?",
                "Do I need an umbrella in {c}?",
                "Tell me the weather in {c}.",
            ]
        ).format(c=place)
        weather = (
            rng.choice(["sunny", "rainy", "cloudy", "windy", "snowy", "foggy"]) + f", {rng.randint(-9, 35)} degrees"
        )
        turns = [user(ask), call(name, city=place), _reply(weather), assistant(f"The weather in {place}: {weather}.")]
    elif name == "get_time":
        ask = rng.choice(["What time is it in {c}?", "Tell me the time in {c}.", "How late is it in {c}?"]).format(
            c=place
        )
        time = f"{rng.randint(0, 23)}:{rng.randint(10, 59)}"
        turns = [user(ask), call(name, city=place), _reply(time), assistant(f"It is {time} in {place}.")]
    else:
        topic = rng.choice([*world.ANIMALS, *words.ITEMS, words.syllables(rng)])
        ask = rng.choice(["Look up {t}.", "Search for {t}.", "Look for articles about {t}.", "Find something on {t}."])
        found = f"{rng.randint(2, 90)} articles"
        turns = [
            user(ask.format(t=topic)),
            call(name, topic=topic),
            _reply(found),
            assistant(f"I found {found} about {topic}."),
        ]
    return Dialog("tool", ("other", name, place), turns, system, _offer(rng, name))


def no_tool(rng: random.Random) -> Dialog:
    """Ask for a calculation without tools: single digits are answered directly, the rest declined. Training only.

    Args:
        rng: The random number generator.

    Returns:
        The dialog.
    """
    while True:
        question, expression, result = sum_of(rng, held=False)
        a, op, b = expression.split()
        easy = len(a) == 1 and len(b) == 1 and op in "+-*"
        if easy or rng.random() < 0.3:
            break
    text = f"{expression} is {result}." if easy else "I need a calculator for that."
    return Dialog("no_tool", ("no_tool", expression), [user(question), assistant(text)])


_TALK: list[tuple[list[str], list[str]]] = [
    (
        ["Hello!", "Hi!", "Hey!", "Hello there!", "Good morning!", "Good evening!", "Hi there.", "Hello"],
        ["Hello! How can I help you?"],
    ),
    (
        ["How are you?", "How do you do?", "Are you fine?", "How is it going?", "Are you well today?"],
        ["I am fine, thank you. How can I help you?"],
    ),
    (
        [
            "Who are you?",
            "What are you?",
            "Tell me about yourself.",
            "What is your name?",
            "Are you a human?",
            "Are you a robot?",
        ],
        ["I am nano, a tiny language model."],
    ),
    (
        ["What can you do?", "How can you help me?", "What are you good at?", "Help!", "What do you know?"],
        ["I can answer simple questions, extract records, judge sentiment, use tools and tell short stories."],
    ),
    (["Thank you!", "Thanks!", "Thanks a lot.", "That helps, thank you.", "Great, thanks."], ["You are welcome!"]),
    (["Goodbye!", "Bye!", "See you.", "Good night!", "I have to go now."], ["Goodbye! Have a nice day."]),
    (["How old are you?", "When were you born?"], ["I am a program, so I have no age."]),
    (["Who made you?", "Who trained you?", "Where do you come from?"], ["I was trained as a part of llmlab."]),
    (
        ["How big are you?", "How many parameters do you have?"],
        ["I am very small, with about five million parameters."],
    ),
    (
        ["Tell me a joke.", "Make me laugh.", "Do you know a joke?"],
        ["Why did the hen cross the road? To get to the other side."],
    ),
    (["I am sad.", "I feel bad today.", "I am not happy."], ["I am sorry to hear that. I hope you feel better soon."]),
    (["I am happy.", "I feel great today.", "What a lovely day!"], ["That is good to hear!"]),
    (["How many days are in a week?", "How many days has a week?"], ["A week has 7 days."]),
    (["How many months are in a year?", "How many months has a year?"], ["A year has 12 months."]),
]
_UNTOLD = ["What is my name?", "Do you know my name?", "Who am I?", "What's my name?", "Tell me my name."]


def small_talk(rng: random.Random) -> Dialog:
    """Greetings, thanks, "who are you". Training only.

    Args:
        rng: The random number generator.

    Returns:
        The dialog.
    """
    questions, answers = rng.choice(_TALK)
    question = roughen(rng, rng.choice(questions))
    return Dialog("small_talk", ("small_talk", question), [user(question), assistant(rng.choice(answers))])


def persona(rng: random.Random) -> Dialog:
    """Ask for a name never mentioned, or for the assistant's name from the system prompt. Training only.

    Args:
        rng: The random number generator.

    Returns:
        The dialog.
    """
    if rng.random() < 0.5:
        return Dialog(
            "persona", ("persona", "untold"), [user(rng.choice(_UNTOLD)), assistant("You have not told me your name.")]
        )
    name = words.first_name(rng)
    prompt = rng.choice(
        ["You are {v}.", "Your name is {v}.", "You are {v}, a helpful assistant.", "You are called {v}."]
    )
    ask = rng.choice(["Who are you?", "What is your name?", "What are you called?", "Tell me your name."])
    return Dialog("persona", ("persona", name), [user(ask), assistant(f"I am {name}.")], prompt.format(v=name))
