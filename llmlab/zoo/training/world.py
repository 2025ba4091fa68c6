"""The small world of facts that the zoo's models know: countries, animals, planets, things, opposites."""

from __future__ import annotations

# country: capital, language, currency, continent
_COUNTRIES = """
France|Paris|French|euro|Europe
Germany|Berlin|German|euro|Europe
Spain|Madrid|Spanish|euro|Europe
Italy|Rome|Italian|euro|Europe
Portugal|Lisbon|Portuguese|euro|Europe
Austria|Vienna|German|euro|Europe
Greece|Athens|Greek|euro|Europe
Ireland|Dublin|English|euro|Europe
Finland|Helsinki|Finnish|euro|Europe
Estonia|Tallinn|Estonian|euro|Europe
Latvia|Riga|Latvian|euro|Europe
Lithuania|Vilnius|Lithuanian|euro|Europe
Slovakia|Bratislava|Slovak|euro|Europe
Slovenia|Ljubljana|Slovene|euro|Europe
Poland|Warsaw|Polish|zloty|Europe
Hungary|Budapest|Hungarian|forint|Europe
Romania|Bucharest|Romanian|leu|Europe
Sweden|Stockholm|Swedish|krona|Europe
Norway|Oslo|Norwegian|krone|Europe
Denmark|Copenhagen|Danish|krone|Europe
Iceland|Reykjavik|Icelandic|krona|Europe
Ukraine|Kyiv|Ukrainian|hryvnia|Europe
Serbia|Belgrade|Serbian|dinar|Europe
Albania|Tirana|Albanian|lek|Europe
England|London|English|pound|Europe
Russia|Moscow|Russian|ruble|Europe
Turkey|Ankara|Turkish|lira|Asia
Japan|Tokyo|Japanese|yen|Asia
China|Beijing|Chinese|yuan|Asia
India|New Delhi|Hindi|rupee|Asia
Nepal|Kathmandu|Nepali|rupee|Asia
Thailand|Bangkok|Thai|baht|Asia
Vietnam|Hanoi|Vietnamese|dong|Asia
Mongolia|Ulaanbaatar|Mongolian|tugrik|Asia
Iran|Tehran|Persian|rial|Asia
Iraq|Baghdad|Arabic|dinar|Asia
Jordan|Amman|Arabic|dinar|Asia
Israel|Jerusalem|Hebrew|shekel|Asia
Bangladesh|Dhaka|Bengali|taka|Asia
Cambodia|Phnom Penh|Khmer|riel|Asia
Georgia|Tbilisi|Georgian|lari|Asia
Armenia|Yerevan|Armenian|dram|Asia
Egypt|Cairo|Arabic|pound|Africa
Morocco|Rabat|Arabic|dirham|Africa
Tunisia|Tunis|Arabic|dinar|Africa
Algeria|Algiers|Arabic|dinar|Africa
Kenya|Nairobi|Swahili|shilling|Africa
Ethiopia|Addis Ababa|Amharic|birr|Africa
Ghana|Accra|English|cedi|Africa
Nigeria|Abuja|English|naira|Africa
Senegal|Dakar|French|franc|Africa
Angola|Luanda|Portuguese|kwanza|Africa
Brazil|Brasilia|Portuguese|real|South America
Argentina|Buenos Aires|Spanish|peso|South America
Chile|Santiago|Spanish|peso|South America
Peru|Lima|Spanish|sol|South America
Colombia|Bogota|Spanish|peso|South America
Uruguay|Montevideo|Spanish|peso|South America
Mexico|Mexico City|Spanish|peso|North America
Cuba|Havana|Spanish|peso|North America
Canada|Ottawa|English|dollar|North America
Jamaica|Kingston|English|dollar|North America
Australia|Canberra|English|dollar|Oceania
"""

# animal: its sound, legs, class, young, home
_ANIMALS = """
dog|barks|4|mammal|puppy|house
cat|meows|4|mammal|kitten|house
cow|moos|4|mammal|calf|farm
horse|neighs|4|mammal|foal|stable
sheep|bleats|4|mammal|lamb|farm
goat|bleats|4|mammal|kid|farm
pig|grunts|4|mammal|piglet|farm
donkey|brays|4|mammal|foal|stable
lion|roars|4|mammal|cub|savanna
tiger|roars|4|mammal|cub|jungle
bear|growls|4|mammal|cub|forest
wolf|howls|4|mammal|pup|forest
fox|yelps|4|mammal|kit|forest
elephant|trumpets|4|mammal|calf|savanna
mouse|squeaks|4|mammal|pup|field
rabbit|squeaks|4|mammal|kit|meadow
deer|bellows|4|mammal|fawn|forest
monkey|chatters|4|mammal|infant|jungle
camel|grunts|4|mammal|calf|desert
kangaroo|clicks|2|mammal|joey|bush
whale|sings|0|mammal|calf|ocean
dolphin|whistles|0|mammal|calf|ocean
seal|barks|0|mammal|pup|coast
bat|squeaks|2|mammal|pup|cave
duck|quacks|2|bird|duckling|pond
goose|honks|2|bird|gosling|pond
hen|clucks|2|bird|chick|farm
owl|hoots|2|bird|owlet|forest
crow|caws|2|bird|chick|field
eagle|screeches|2|bird|eaglet|mountains
pigeon|coos|2|bird|squab|city
sparrow|chirps|2|bird|chick|garden
swan|hisses|2|bird|cygnet|lake
penguin|brays|2|bird|chick|ice
frog|croaks|4|amphibian|tadpole|pond
snake|hisses|0|reptile|snakelet|desert
crocodile|bellows|4|reptile|hatchling|river
turtle|hisses|4|reptile|hatchling|ocean
bee|buzzes|6|insect|larva|hive
cricket|chirps|6|insect|nymph|meadow
mosquito|whines|6|insect|larva|swamp
fly|buzzes|6|insect|maggot|garden
"""

_PLANETS = (
    "Mercury|1|gray;Venus|2|yellow;Earth|3|blue;Mars|4|red;Jupiter|5|orange;Saturn|6|gold;Uranus|7|cyan;Neptune|8|blue"
)

_THINGS = """\
grass green;a banana yellow;a tomato red;the sky blue;snow white;coal black;a carrot orange;blood red;milk white
a lemon yellow;a strawberry red;a pea green;a pumpkin orange;chocolate brown;an elephant gray;a flamingo pink
a plum purple;the sea blue;the sun yellow;a cucumber green;a raven black;salt white;a fire truck red
an eggplant purple;wood brown;ash gray;a cherry red;rice white;a frog green;a brick red
"""

_OPPOSITES = """\
hot cold;big small;tall short;fast slow;light dark;happy sad;old new;rich poor;early late;wet dry;hard soft
open closed;full empty;clean dirty;loud quiet;strong weak;thick thin;high low;sweet bitter;near far;left right
up down;day night;summer winter;black white;true false;first last;young elderly;cheap expensive;easy difficult
"""

COUNTRIES: dict[str, dict[str, str]] = {
    row[0]: dict(zip(("capital", "language", "currency", "continent"), row[1:], strict=True))
    for row in (line.split("|") for line in _COUNTRIES.strip().splitlines())
}
ANIMALS: dict[str, dict[str, str]] = {
    row[0]: dict(zip(("sound", "legs", "class", "young", "home"), row[1:], strict=True))
    for row in (line.split("|") for line in _ANIMALS.strip().splitlines())
}
PLANETS: dict[str, dict[str, str]] = {
    row[0]: {"order": row[1], "color": row[2]} for row in (item.split("|") for item in _PLANETS.split(";"))
}
THINGS: dict[str, str] = {
    item.rsplit(" ", 1)[0]: item.rsplit(" ", 1)[1] for line in _THINGS.splitlines() for item in line.split(";")
}
OPPOSITES: dict[str, str] = {
    item.split()[0]: item.split()[1] for line in _OPPOSITES.splitlines() for item in line.split(";")
}

ORDINALS = ["", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]

# Questions by relation; {e} is the entity, {a} the entity with its article.
QUESTIONS: dict[str, list[str]] = {
    "capital": [
        "What is the capital of {e}?",
        "Which city is the capital of {e}?",
        "Tell me the capital of {e}.",
        "Name the capital of {e}.",
        "What's the capital city of {e}?",
        "{e}: what is its capital?",
        "Do you know the capital of {e}?",
        "I forgot the capital of {e}. What is it?",
        "Can you tell me what the capital of {e} is?",
        "Capital of {e}?",
    ],
    "language": [
        "What language do people speak in {e}?",
        "Which language is spoken in {e}?",
        "What is the language of {e}?",
        "Tell me the language of {e}.",
        "What do they speak in {e}?",
        "Name the main language of {e}.",
        "I am going to {e}. Which language should I learn?",
        "Language of {e}?",
    ],
    "currency": [
        "What is the currency of {e}?",
        "What money is used in {e}?",
        "Which currency does {e} use?",
        "Tell me the currency of {e}.",
        "How do people pay in {e}?",
        "Name the currency of {e}.",
        "I am going to {e}. Which currency do I need?",
        "Currency of {e}?",
    ],
    "continent": [
        "On which continent is {e}?",
        "What continent is {e} in?",
        "Where is {e}?",
        "Which continent is {e} part of?",
        "Tell me the continent of {e}.",
        "Name the continent {e} belongs to.",
        "In what part of the world is {e}?",
        "Continent of {e}?",
    ],
    "country": [
        "Which country has the capital {e}?",
        "{e} is the capital of which country?",
        "What country is {e} the capital of?",
        "Of which country is {e} the capital?",
        "Name the country whose capital is {e}.",
        "In which country is {e}?",
    ],
    "sound": [
        "What sound does {a} make?",
        "What noise does {a} make?",
        "How does {a} sound?",
        "Tell me the sound of {a}.",
        "What does {a} do to be heard?",
        "Which sound comes from {a}?",
    ],
    "legs": [
        "How many legs does {a} have?",
        "What number of legs has {a}?",
        "Tell me how many legs {a} has.",
        "Count the legs of {a}.",
        "On how many legs does {a} walk?",
        "{a}: how many legs?",
    ],
    "class": [
        "What kind of animal is {a}?",
        "Is {a} a mammal, a bird, a reptile, an amphibian or an insect?",
        "To which class of animals does {a} belong?",
        "What type of animal is {a}?",
        "Tell me the class of {a}.",
        "How would you classify {a}?",
    ],
    "young": [
        "What is a baby {e} called?",
        "What do you call a young {e}?",
        "What is the name for a baby {e}?",
        "Name the young of {a}.",
        "How is the young of {a} called?",
        "Tell me what a baby {e} is called.",
    ],
    "home": [
        "Where does {a} live?",
        "Where can I find {a}?",
        "What is the home of {a}?",
        "In what place does {a} live?",
        "Tell me where {a} lives.",
        "Name the home of {a}.",
    ],
    "order": [
        "Which planet from the sun is {e}?",
        "What is the position of {e} from the sun?",
        "Where in the order of planets is {e}?",
        "Tell me the place of {e} counted from the sun.",
        "Counted from the sun, which planet is {e}?",
    ],
    "color": [
        "What color is {e}?",
        "Which color does {e} have?",
        "What is the color of {e}?",
        "Tell me the color of {e}.",
        "Name the color of {e}.",
        "What colour is {e}?",
        "{e}: which color?",
    ],
    "opposite": [
        "What is the opposite of {e}?",
        "Name the opposite of {e}.",
        "Which word is the opposite of {e}?",
        "Tell me the opposite of {e}.",
        "What word means the opposite of {e}?",
        "Opposite of {e}?",
    ],
}

# The plain answer by relation; {v} is the value, {w} the value with its article.
ANSWERS: dict[str, str] = {
    "capital": "The capital of {e} is {v}.",
    "language": "People in {e} speak {v}.",
    "currency": "The currency of {e} is the {v}.",
    "continent": "{e} is in {v}.",
    "country": "{e} is the capital of {v}.",
    "sound": "A {e} {v}.",
    "legs": "A {e} has {v} legs.",
    "class": "A {e} is {w}.",
    "young": "A baby {e} is called {w}.",
    "home": "A {e} lives in the {v}.",
    "order": "{e} is the {v} planet from the sun.",
    "color": "{e} is {v}.",
    "opposite": "The opposite of {e} is {v}.",
}


def article(noun: str) -> str:
    """Put the English indefinite article before a noun.

    Args:
        noun: A noun or adjective.

    Returns:
        ``"a <noun>"`` or ``"an <noun>"``.
    """
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def facts() -> list[tuple[str, str, str]]:
    """List all facts.

    Returns:
        (entity, relation, value) triples in a fixed order.
    """
    out: list[tuple[str, str, str]] = []
    for table in (COUNTRIES, ANIMALS):
        out += [(entity, relation, value) for entity, row in table.items() for relation, value in row.items()]
    out += [(row["capital"], "country", country) for country, row in COUNTRIES.items()]
    out += [(planet, "order", ORDINALS[int(row["order"])]) for planet, row in PLANETS.items()]
    out += [(planet, "color", row["color"]) for planet, row in PLANETS.items()]
    out += [(thing, "color", color) for thing, color in THINGS.items()]
    out += [(word, "opposite", other) for word, other in OPPOSITES.items()]
    out += [(other, "opposite", word) for word, other in OPPOSITES.items()]
    return out


def question(entity: str, relation: str, template: int) -> str:
    """Phrase the question about one fact.

    Args:
        entity: The entity.
        relation: The relation.
        template: One of the relation's wordings.

    Returns:
        The question.
    """
    text = QUESTIONS[relation][template].format(e=entity, a=article(entity))
    return text[0].upper() + text[1:]


def answer(entity: str, relation: str, value: str) -> str:
    """Phrase the plain answer to a question about one fact.

    Args:
        entity: The entity.
        relation: The relation.
        value: The fact's value.

    Returns:
        A short sentence.
    """
    text = ANSWERS[relation].format(e=entity, v=value, w=article(value))
    if text.startswith("A ") and relation in ANIMALS["dog"]:
        text = article(text[2:])
    return text[0].upper() + text[1:]
