# ruff: noqa: SIM905 - split strings keep long word lists readable
"""Word lists of the corpus, and names from random syllables so that copying generalizes."""

from __future__ import annotations

import random

FIRST = (
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paula Quinn Rosa Sam Tina Uma "
    "Victor Wendy Xavier Yara Zoe Alice Bob Carol Dan Eva Frank Gina Hugo Iris Jonas Kira Lukas Mia Noah Olga "
    "Peter Ruth Simon Tom Ursula Vera Walter Yusuf Zara Amir Bella Carlos Diana Elif Fatima George Hana Ivan Julia "
    "Karim Lena Marco Nora Omar Priya Rafael Sofia Tariq Ravi Mei Kenji Aiko Chen Ling Ahmed Layla Pedro Lucia "
    "Diego Ines Pierre Chloe Louis Marie Hans Greta Otto Heidi Lars Astrid Nils Freya Olaf Sven Ingrid John Mary "
    "James Linda Robert Susan Michael Karen Paul Laura Mark Sarah Steven Emily Kevin Amy Brian Lisa Eric Helen "
    "Adam Rachel Max Stella Tim Sandra Joe Monica"
).split()
LAST = (
    "Keller Smith Jones Brown Taylor Wilson Davies Evans Thomas Roberts Walker Wright Hall Green Adams Baker Clark "
    "Cooper Fisher Gray Hill Hughes King Lee Martin Moore Parker Reed Scott Turner Ward White Young Meyer Schmidt "
    "Weber Wagner Becker Hoffmann Koch Bauer Richter Klein Wolf Dubois Moreau Laurent Simon Michel Garcia Leroy "
    "Roux Rossi Russo Ferrari Bianchi Romano Ricci Lopez Perez Sanchez Ramirez Torres Flores Rivera Silva Santos "
    "Costa Pereira Novak Kowalski Nowak Horvat Nagy Popov Ivanov Petrov Hansen Olsen Larsen Berg Lund Dahl Singh "
    "Patel Kumar Sharma Khan Ali Hassan Chen Wang Li Zhang Liu Tanaka Sato Suzuki Yamada Kim Park Choi Nguyen Tran "
    "Okafor Mensah Diallo Abebe"
).split()
CITIES = (
    "Lyon|Paris|Berlin|Munich|Hamburg|Vienna|Zurich|Geneva|Rome|Milan|Turin|Naples|Madrid|Seville|Valencia|Lisbon|"
    "Porto|London|Leeds|Bristol|Oxford|York|Dublin|Cork|Glasgow|Oslo|Bergen|Malmo|Stockholm|Helsinki|Warsaw|Krakow|"
    "Prague|Brno|Budapest|Athens|Istanbul|Ankara|Cairo|Tunis|Nairobi|Accra|Lagos|Dakar|Boston|Chicago|Denver|"
    "Austin|Seattle|Miami|Toronto|Montreal|Lima|Quito|Bogota|Santiago|Tokyo|Osaka|Kyoto|Seoul|Beijing|Shanghai|"
    "Delhi|Mumbai|Hanoi|Bangkok|Sydney|Perth|New York|San Diego|Los Angeles|Cape Town|Buenos Aires|Hong Kong"
).split("|")
JOBS = (
    "nurse|teacher|baker|doctor|lawyer|farmer|pilot|plumber|painter|singer|writer|driver|cook|waiter|dentist|"
    "engineer|gardener|carpenter|electrician|librarian|journalist|photographer|architect|mechanic|butcher|tailor|"
    "barber|actor|chemist|biologist|programmer|accountant|translator|musician|fisherman|postman|firefighter|"
    "police officer|bus driver|vet|judge|clerk|cashier|designer|florist|jeweler|optician|pharmacist|sailor|surgeon"
).split("|")
ITEMS = (
    "lamp|chair|table|book|pen|notebook|bicycle|helmet|jacket|shirt|hat|pair of shoes|bag|watch|phone|laptop|"
    "keyboard|mouse|screen|camera|guitar|piano|violin|drum|ball|racket|tent|backpack|bottle|cup|plate|knife|spoon|"
    "pot|pan|kettle|toaster|oven|fridge|sofa|bed|pillow|blanket|carpet|mirror|clock|vase|candle|umbrella|scarf|"
    "glove|ring|necklace|puzzle|kite|doll"
).split("|")
ORDER_ITEMS = (
    "lamps|chairs|tables|books|pens|notebooks|bicycles|helmets|jackets|shirts|hats|bags|watches|phones|laptops|keyboards|"
    "screens|cameras|guitars|balls|tents|backpacks|bottles|cups|plates|knives|spoons|pots|pans|kettles|toasters|sofas|"
    "pillows|blankets|carpets|mirrors|clocks|vases|candles|umbrellas|scarves|gloves|rings|puzzles|kites|dolls"
).split("|")
EVENTS = (
    "Jazz Concert|Book Fair|Science Day|Chess Night|Film Festival|Art Show|Summer Party|Winter Ball|City Run|"
    "Food Market|Dance Class|Yoga Course|Math Contest|Poetry Evening|Garden Tour|Music Week|Robot Workshop|"
    "Tech Meeting|Wine Tasting|Flower Show|Open Day|Spring Picnic|Theater Night|Bike Race|Swim Camp|Cooking Class|"
    "Photo Walk|Quiz Night"
).split("|")
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COLORS = "red blue green yellow orange purple pink brown black white gray gold silver turquoise".split()

_START = "b d f g h k l m n p r s t v z br dr gr kr tr st sh ch th kl pl fl".split()
_VOWEL = "a e i o u a e i o u ai ei oa ia".split()
_END = ["", "", "", "n", "l", "r", "s", "m", "k", "t", "nd", "x"]


def syllables(rng: random.Random, low: int = 2, high: int = 3) -> str:
    """Make up a capitalized word.

    Args:
        rng: The random number generator.
        low: Minimum number of syllables.
        high: Maximum number of syllables.

    Returns:
        A word such as ``"Tarovik"``.
    """
    parts = [rng.choice(_START) + rng.choice(_VOWEL) for _ in range(rng.randint(low, high))]
    return ("".join(parts) + rng.choice(_END)).capitalize()


def first_name(rng: random.Random) -> str:
    """Pick a first name, one in four made up.

    Args:
        rng: The random number generator.

    Returns:
        The name.
    """
    return syllables(rng) if rng.random() < 0.25 else rng.choice(FIRST)


def last_name(rng: random.Random) -> str:
    """Pick a last name, one in five made up.

    Args:
        rng: The random number generator.

    Returns:
        The name.
    """
    return syllables(rng) if rng.random() < 0.2 else rng.choice(LAST)


def city(rng: random.Random) -> str:
    """Pick a city, one in eight made up.

    Args:
        rng: The random number generator.

    Returns:
        The city's name.
    """
    return syllables(rng) if rng.random() < 0.12 else rng.choice(CITIES)
