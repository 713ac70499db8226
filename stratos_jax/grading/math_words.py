"""Words that stand in answers: units, numbers, fixed phrases and the small words around them.

In: nothing. Out: tables and look-ups over lower-case words; no parsing happens here.
"""

import functools
import re
from fractions import Fraction

# name -> (factor, base dimensions); the base names are m, kg, s, A, K, mol, cd, USD and, for angles and %, none at all.
_BASE: dict[str, tuple[str, str]] = {
    "m": ("1", "m"), "km": ("1000", "m"), "cm": ("1/100", "m"), "mm": ("1/1000", "m"), "nm": ("1/1000000000", "m"),
    "um": ("1/1000000", "m"), "dm": ("1/10", "m"),
    "in": ("127/5000", "m"), "ft": ("381/1250", "m"), "yd": ("1143/1250", "m"), "mi": ("201168/125", "m"),
    "g": ("1/1000", "kg"), "kg": ("1", "kg"), "mg": ("1/1000000", "kg"), "lb": ("45359237/100000000", "kg"),
    "oz": ("45359237/1600000000", "kg"), "ton": ("1000", "kg"),
    "s": ("1", "s"), "ms": ("1/1000", "s"), "min": ("60", "s"), "h": ("3600", "s"), "day": ("86400", "s"),
    "week": ("604800", "s"), "ns": ("1/1000000000", "s"),
    "A": ("1", "A"), "mA": ("1/1000", "A"), "K": ("1", "K"), "mol": ("1", "mol"), "cd": ("1", "cd"),
    "N": ("1", "kg m s-2"), "kN": ("1000", "kg m s-2"), "J": ("1", "kg m2 s-2"), "kJ": ("1000", "kg m2 s-2"),
    "MJ": ("1000000", "kg m2 s-2"), "W": ("1", "kg m2 s-3"), "kW": ("1000", "kg m2 s-3"), "Pa": ("1", "kg m-1 s-2"),
    "kPa": ("1000", "kg m-1 s-2"), "MPa": ("1000000", "kg m-1 s-2"), "Hz": ("1", "s-1"), "kHz": ("1000", "s-1"),
    "MHz": ("1000000", "s-1"), "C": ("1", "A s"), "V": ("1", "kg m2 s-3 A-1"), "kV": ("1000", "kg m2 s-3 A-1"),
    "ohm": ("1", "kg m2 s-3 A-2"), "F": ("1", "kg-1 m-2 s4 A2"), "T": ("1", "kg s-2 A-1"), "Wb": ("1", "kg m2 s-2 A-1"),
    "eV": ("1602176634/10000000000000000000000000000", "kg m2 s-2"), "L": ("1/1000", "m3"), "mL": ("1/1000000", "m3"),
    "mph": ("201168/450000", "m s-1"), "kph": ("5/18", "m s-1"), "erg": ("1/10000000", "kg m2 s-2"),
    "USD": ("1", "USD"), "cent": ("1/100", "USD"), "rad": ("1", ""), "EUR": ("1", "EUR"), "GBP": ("1", "GBP"),
    "year": ("1", "year"), "month": ("1/12", "year"), "gal": ("1", "gal"), "unit": ("1", "unit"), "acre": ("1", "acre"),
    "degF": ("1", "degF"), "degC": ("1", "degC"),
}  # fmt: skip
_SPELLED = {
    "m": "meter metre", "km": "kilometer kilometre", "cm": "centimeter centimetre", "mm": "millimeter millimetre",
    "nm": "nanometer", "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram gramme gm",
    "kg": "kilogram kgs", "mg": "milligram", "lb": "pound lbs", "oz": "ounce", "ton": "tonne", "s": "second sec secs",
    "ms": "millisecond", "min": "minute mins", "h": "hour hr hrs", "L": "liter litre l", "mL": "milliliter ml",
    "N": "newton", "J": "joule", "W": "watt", "Pa": "pascal", "Hz": "hertz", "V": "volt", "A": "ampere amp",
    "K": "kelvin", "C": "coulomb", "ohm": "Ω", "USD": "dollar usd bucks", "cent": "cents ¢", "rad": "radian",
    "year": "yr yrs", "gal": "gallon", "mol": "mole", "dm": "decimeter", "EUR": "euro", "GBP": "gbp", "um": "micron",
    "kph": "kmph", "unit": "units",
}  # fmt: skip
UNITS: dict[str, str] = {name: name for name in _BASE}
for _name, _words in _SPELLED.items():
    for _word in _words.split():
        UNITS[_word] = _name
        UNITS.setdefault(_word + "s", _name)
for _name in ("day", "week", "month", "mile", "ton", "acre"):
    UNITS[_name + "s"] = UNITS.get(_name, _name)


@functools.cache
def unit(word: str) -> str | None:
    """The canonical name of a unit; long names in any case, short ones as they are written."""
    if word in UNITS:
        return UNITS[word]
    return UNITS.get(word.lower()) if len(word) > 3 else None


def unit_parts(name: str) -> tuple[str, dict[str, int]]:
    """Factor and powers of the base dimensions of a canonical unit."""
    factor, dimensions = _BASE[name]
    powers = {}
    for part in dimensions.split():
        match = re.fullmatch(r"([A-Za-z]+?)(-?\d+)?", part)
        assert match
        powers[match.group(1)] = int(match.group(2) or 1)
    return factor, powers


NUMBERS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
NUMBERS |= {w: 10 * (i + 2) for i, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "googol": 10**100,
}
BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
         "eleven": 11, "twelve": 12, "sixteen": 16, "hex": 16, "bin": 2, "dec": 10, "oct": 8}  # fmt: skip


ORDER_ASKED = re.compile(
    r"\b(?:in (?:increasing|decreasing|ascending|descending|alphabetical|that|this|the given|numerical) order|"
    r"respectively|in order|left to right|"
    r"from (?:least|greatest|smallest|largest|lowest|highest|shortest|longest|first))\b"
)
PARTS = {"half": 2, "halves": 2, "quarter": 4, "fourth": 4} | {
    word: 3 + i for i, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split())
}

BASE_WORDS = {
    value: word for word, value in BASES.items() if len(word) > 3 or value < 11 and word not in ("bin", "dec", "oct")
}


def number_words(words: list[str]) -> int | Fraction | None:
    """Value of "twenty-one", "three hundred and five", "two thirds"; None if any word is not part of a number."""
    words = [part for word in words for part in word.split("-")]
    if len(words) > 3 and words[-3:] == ["and", "a", "half"]:
        whole = number_words(words[:-3])
        return whole + Fraction(1, 2) if whole is not None else None
    if len(words) > 1 and (parts := PARTS.get(words[-1]) or PARTS.get(words[-1].removesuffix("s"))):
        above = 1 if words[0] in ("a", "an") and len(words) == 2 else number_words(words[:-1])
        return Fraction(above, parts) if isinstance(above, int) and 0 < above < 20 else None
    total = current = 0
    if not words or words[0] == "and" or words[-1] == "and":
        return None
    for word in words:
        if word in NUMBERS:
            if current % 100 and not (current % 100 >= 20 and NUMBERS[word] < 10 and current % 10 == 0):
                return None  # "six seven" is no number
            current += NUMBERS[word]
        elif word == "hundred":
            current = (current or 1) * 100
        elif word in SCALES:
            total, current = total + (current or 1) * SCALES[word], 0
        elif word != "and":
            return None
    return total + current


# Whole answers that are words; what is left after the small words are dropped is looked up here.
PHRASES = {
    "EMPTY": "no solution|no solutions|none|no real solution|no real solutions|empty set|there is no solution|"
    "there are no solutions|no such number|no such numbers|no such integer|no such integers|no values|"
    "no value|no integer solutions|no integer solution|not possible|impossible|no such function|"
    "no such functions|no such function exists|no such functions exist|no such integers exist|no such triples|"
    "no such pairs|no such number exists|no such numbers exist|no real roots|no roots|no answer|"
    "no solution exists|no solutions exist|there are none|there are no such numbers|the empty set|"
    "there are no real solutions|no real numbers|no integers|no real number|no real values",
    "REALS": "all real numbers|all reals|any real number|every real number|real numbers|the real numbers|"
    "all real values|any real value|for all real numbers|all real|reals|the set of real numbers|all values|"
    "the set of all real numbers|all real x|all x|all real numbers x",
    "INTEGERS": "all integers|any integer|every integer|integers|the integers|the set of integers|set of integers|"
    "the set of all integers|all integer values",
    "NATURALS": "all positive integers|every positive integer|any positive integer|positive integers|"
    "all natural numbers|natural numbers|the positive integers|the natural numbers|the set of positive integers|"
    "all positive integer values",
    "NONNEGATIVE_INTEGERS": "all nonnegative integers|all non-negative integers|nonnegative integers|"
    "non-negative integers|every nonnegative integer|any nonnegative integer|every non-negative integer",
    "RATIONALS": "all rational numbers|rational numbers|all rationals|the rational numbers|any rational number",
    "POSITIVE_REALS": "all positive real numbers|all positive reals|positive real numbers|positive reals|"
    "any positive real number",
    "NEGATIVE_REALS": "all negative real numbers|all negative reals|negative real numbers|negative reals",
    "NONNEGATIVE_REALS": "all nonnegative real numbers|all non-negative real numbers|all nonnegative reals|"
    "all non-negative reals|nonnegative real numbers",
    "NONPOSITIVE_REALS": "all nonpositive real numbers|all non-positive real numbers|nonpositive real numbers|"
    "all nonpositive reals|all non-positive reals|nonpositive reals|non-positive real numbers",
    "COMPLEX": "all complex numbers|complex numbers",
    "PRIMES": "all primes|all prime numbers|prime numbers|primes|any prime|every prime|any prime number",
    "EVENS": "all even integers|even integers|all even numbers|even numbers|any even integer",
    "ODDS": "all odd integers|odd integers|all odd numbers|odd numbers|any odd integer",
    "INFINITY": "infinity|positive infinity|diverges to infinity|infinite|+infinity",
    "MINUS_INFINITY": "negative infinity|minus infinity|diverges to negative infinity|-infinity",
    "INFINITELY_MANY": "infinitely many|infinitely many solutions|there are infinitely many|infinite solutions|"
    "there are infinitely many solutions|infinitely many values|infinite number of solutions|"
    "an infinite number of solutions|infinitely many such numbers|infinitely many integers",
    "UNDEFINED": "undefined|does not exist|dne|not defined|doesn't exist|the limit does not exist|limit does not exist|"
    "is undefined|it is undefined|it does not exist",
    "TRUE": "true",
    "FALSE": "false",
    "YES": "yes|yes it is|yes it does|yes they are|yes there is|yes it exists|yes we can|yes it can|yes he can|"
    "yes she can|yes they can|yes it is possible|it is possible|possible",
    "NO": "no|no it is not|no it isn't|no it does not|no they are not|no there is not|no it cannot|no it can't|"
    "no we cannot|no it is not possible|it is not possible",
}
PHRASE_OF = {phrase: name for name, phrases in PHRASES.items() for phrase in phrases.split("|")}

# A word of this kind changes what the words around it mean: such prose is never passed over.
DANGER = frozenset(
    "not no never none neither nor without except between besides non minus plus least most more less fewer greater "
    "smaller larger over under above below about all every any times half twice double fraction inverse "
    "reciprocal negative square squared cube cubed root factorial either unless before after false impossible "
    "cannot can't isn't".split()
)
STOP = frozenset("a an the".split())
SMALL_WORDS = frozenset(
    "and or the is are no yes not all odd any for if of in to by with where when only at least most on as we it "
    "per mod red one two six ten ways way apples dne true false even none square cubic base east west max min "
    "has have can sum area pm am due both each cents days hours men an nor day hr hrs year".split()
)
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch asin acos atan "
    "arcsinh arccosh arctanh asinh acosh atanh log ln lg exp sqrt cbrt abs floor ceil gcd lcm max min det sgn cis "
    "lim operatorname Re Im arg binom gamma".split()
)
GREEK = frozenset(
    "pi alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell".split()
)


def stem(word: str) -> str:
    """A noun without its plural, in lower case."""
    word = word.lower()
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
