"""The small world the nano model talks about: its words, and what follows, opposes or belongs to what."""

from __future__ import annotations

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety"}

MAX_NUMBER = 30
"""The largest number anyone says."""

MAX_WRITTEN = 99
"""The largest number of the text-only sums."""


def number_words(number: int) -> str:
    """0..99 as words: 21 is `twenty one`."""
    if number < len(_UNITS):
        return _UNITS[number]
    tens, unit = number // 10 * 10, number % 10
    return _TENS[tens] + (f" {_UNITS[unit]}" if unit else "")


DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february march april may june july august september october november december".split()
LETTERS = list("abcdefghijklmnopqrstuvwxyz")

CAPITALS = {
    "france": "paris",
    "germany": "berlin",
    "italy": "rome",
    "spain": "madrid",
    "portugal": "lisbon",
    "greece": "athens",
    "norway": "oslo",
    "sweden": "stockholm",
    "finland": "helsinki",
    "denmark": "copenhagen",
    "poland": "warsaw",
    "austria": "vienna",
    "hungary": "budapest",
    "ireland": "dublin",
    "russia": "moscow",
    "turkey": "ankara",
    "egypt": "cairo",
    "kenya": "nairobi",
    "japan": "tokyo",
    "china": "beijing",
    "cuba": "havana",
    "canada": "ottawa",
    "peru": "lima",
    "england": "london",
    "belgium": "brussels",
}

_OPPOSITE_PAIRS = (
    "hot cold, big small, up down, left right, black white, day night, open closed, full empty, happy sad, fast slow, "
    "old young, hard soft, light dark, loud quiet, wet dry, near far, high low, early late, strong weak, first last"
)
OPPOSITES: dict[str, str] = {}
for _pair in _OPPOSITE_PAIRS.split(", "):
    _one, _other = _pair.split()
    OPPOSITES[_one], OPPOSITES[_other] = _other, _one

SPELLED = (
    "cat dog sun cup hat bed pen box car bus fish bird tree book milk ball door hand moon star "
    "ship boat rain snow fire king ring lamp duck frog goat bear lion map key egg leg arm cake nest"
).split()

# The parts of speech of the phrases to repeat. A phrase keeps to a small grammar, so that a recogniser hears likely English.
ADJECTIVES = (
    "big small old young happy sad fast slow strong quiet loud hungry clever brave funny gentle lazy little famous friendly "
    "lucky lovely sleepy busy strange pretty tiny giant simple perfect golden silver modern dirty clean heavy empty fancy"
).split()
COLOURS = "red blue green yellow purple orange brown white black pink".split()
ACTORS = (
    "cat dog bird fish horse monkey rabbit tiger lion bear wolf fox duck frog goat cow pig mouse elephant turtle "
    "teacher doctor farmer driver singer dancer painter captain pilot soldier king queen baby boy girl woman man student"
).split()
THINGS = (
    "house car bus train table chair window garden river mountain forest island bridge castle tower village city market kitchen "
    "basket bottle button candle carpet cup hat box book pencil paper letter picture piano guitar violin drum flower apple banana "
    "cherry lemon melon tomato potato carrot onion pepper bread butter cheese cookie honey sugar coffee water juice jacket "
    "sweater pocket mirror pillow blanket ladder hammer needle engine wagon rocket balloon ticket camera computer telephone radio "
    "umbrella ship boat lamp ring key door tree ball star cake nest cloud shadow road"
).split()
ACTIONS = "sings runs sleeps jumps waits works dances swims laughs smiles eats reads plays talks walks travels listens".split()
PLURALS = (
    "cats dogs birds horses apples bananas books bottles boxes cars trees stars houses tickets flowers candles boats rings "
    "children women cookies lemons rabbits pencils windows chairs letters buttons balloons islands"
).split()
COUNTS = [number_words(number) for number in range(2, 13)]

PHRASE_FORMS: tuple[tuple[list[str], ...], ...] = (
    (ADJECTIVES, ACTORS + THINGS),
    (COLOURS, ACTORS + THINGS),
    (COUNTS, PLURALS),
    (ADJECTIVES, ACTORS, ACTIONS),
    (COLOURS, ACTORS, ACTIONS),
    (ADJECTIVES, COLOURS, THINGS),
)
"""The shapes of a phrase to repeat: one word from each list, in order."""

PROPER = {*DAYS, *MONTHS, *CAPITALS, *CAPITALS.values()}
"""Words written with a capital wherever they stand."""
