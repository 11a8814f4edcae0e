"""Penn Treebank tokens of captions: the tokenizer that published caption scores are made with.

Gives what the COCO caption code gives (Stanford's PTBTokenizer, lower case, punctuation
dropped). Written from that program's outputs alone: at each place the longest of the
patterns below is the next token.

It differs on purpose where the COCO code mixes up captions: a line separator inside a
caption is a space here, and a caption never depends on the one that happens to follow it.
"""

import re
from functools import lru_cache

# Tokens that the COCO code leaves out of captions.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Letters, without those outside the Basic Multilingual Plane; marks that stand on letters; soft hyphen.
_MARKS = (
    r"\u00AD\u02C2-\u02C5\u02D2-\u02DF\u02E5-\u036F\u0483-\u0487\u0591-\u05BD\u05BF\u05C1-\u05C7\u0615-\u061A"
    r"\u064B-\u065E\u0670\u06D6-\u06ED\u0711\u0730-\u074C\u0900-\u0903\u093C\u093E-\u0955\u0962-\u0963\u0981-\u0983"
    r"\u09BC-\u09CD\u0A01-\u0A03\u0A3C-\u0A4F\u0A81-\u0A83\u0ABC-\u0ACF\u0B82\u0BBE-\u0BCD\u0C01-\u0C03\u0C3E-\u0C56"
    r"\u0D3E-\u0D48\u0E31\u0E34-\u0E3A\u0E47-\u0E4E\u0EB1\u0EB4-\u0EBC\u0EC8-\u0ECD\u2010\u2011"
)
_NO_LETTERS = r"\u00B2\u00B3\u00B9\u00BC-\u00BE\u2070-\u2089\u2150-\u2182\u2460-\u24FF\u2776-\u2793"
# L a letter, W a letter or digit, Q an apostrophe, A what also passes for one inside a word.
L = rf"(?:[^\W\d_{_NO_LETTERS}\U00010000-\U0010FFFF]|[{_MARKS}])"
W = rf"(?:[^\W_{_NO_LETTERS}\U00010000-\U0010FFFF]|[{_MARKS}])"
Q = "['’\u0092]"
A = "['’\u0092`‘\u0091]"
# L and W with the entities that stand for an accented vowel; the letters after an apostrophe that are a token.
LE = rf"(?:{L}|&[aeiou](?:acute|grave|uml);)"
WE = rf"(?:{W}|&[aeiou](?:acute|grave|uml);)"
CLITIC = "(?:s|re|ve|ll|d|m)(?!(?-i:[A-Za-z]))"
# What may follow in a compound: "five-o'clock", "trompe-l'oeil", "jack-o'lantern".
PARTS = rf"(?:[-_](?:[dlo]{A}(?!{CLITIC}){L}{W}+|{W}+))*"

# Abbreviations within a sentence, such as titles, and those that may end one.
_ABBREVIATIONS = (
    "adj|adm|assoc|asst|atty|attys|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|dept|det|dr|drs|elec|ft|gen|gov"
    "|govs|hon|insp|jos|lt|maj|messrs|mlle|mme|mr|mrs|ms|msgr|mt|natl|pfc|ph|pres|prof|profs|pvt|rep|reps|rev"
    "|sen|sens|sgt|spc|st|supt|treas|vs"
)
_LAST_ABBREVIATIONS = (
    "al|ala|apr|ariz|assn|aug|bancorp|bhd|bldg|blvd|bros|calif|co|colo|conn|corp|cos|ct|dak|dec|esq|est|etc"
    "|ext|feb|fla|fri|ga|inc|ind|intl|jan|jr|jul|jun|kan|ky|ltd|mar|md|mich|minn|mo|mon|mont|neb|nev|nov|oct"
    "|okla|penn|plc|rd|rt|sep|sept|sq|sr|tel|tenn|thu|thurs|tue|tues|univ|va|vt|wed|wis|wyo"
)
_CAPITAL_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_BEFORE_NUMBERS = "art|ca|fig|figs|no|nos|op|pp|prop"
_FILES = (
    "bat|bmp|c|cgi|class|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|pps?|ppt|ps|py|sql"
    "|tar|txt|wav|xml|zip"
)
# A period after one letter ends the sentence before these, before a tag, and where the caption ends: behind nearly
# every caption the COCO code sees one that begins with such a word.
_STARTERS = (
    "A|After|An|As|At|But|He|Her|Here|However|If|In|It|Many|More|Now|Once|One|Other|Our|She|Since|So|Some|Such|That"
    "|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)

# The longest match is the token, the earlier pattern wins among equally long ones. (?-i:…) minds
# case, the rest does not. Repetitions are bounded where a long caption would cost quadratic time.
_PATTERNS = {
    "url": r"https?://[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    "site": r"(?-i:[a-z]+\.)+(?:com|net|org|edu)/[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    "host": r"(?!\d)(?:[^\s\"'`<>|.!?(){}\[\],;:/\\=^@_$-]+\.)+(?:com|net|org|edu)",
    "slash": r"(?:www\.)(?:[a-z0-9_-]+\.)+(?:com|net|org|edu)(?:/[^\s\"<>|().!?,]+)*/",
    "email": r"(?:mailto:)?(?-i:[A-Za-z0-9])[^\s\"<>|(){}@]*@[^\s\"<>|(){}.]+(?:\.[^\s\"<>|(){}.]+)*",
    "name": r"(?-i:@[A-Za-z_][A-Za-z0-9_]*)|@",
    "hashtag": rf"\#{L}+",
    "tag": r"</?[a-z][a-z0-9_:.@-]*(?:\s+[a-z][a-z0-9_:.-]*(?:\s*=\s*(?:'[^'>]*'|\"[^\">]*\"))?)*\s*/?\s*>"
    r"|<[!?][^<>]*>",
    "entity": r"&(?:amp|lt|gt|nbsp|mdash|ndash|(?-i:quot|apos));",
    "code": r"&(?:\#\d+|quot|apos);",
    "phone": r"\(\d{2,3}\)\ ?\d{3,4}[-\ ]\d{3,5}|\+?(?:\d{2,4}[-\ ])?\d{2,4}[-\ ]\d{3,4}[-\ ]\d{3,10}",
    "fraction": r"(?<![\d.,])\d{1,4}\ \d{1,4}/\d{1,4}",
    "filename": rf"[a-z0-9]+(?:[.,][a-z0-9]+){{0,20}}\.(?:{_FILES})(?!{W})",
    "company": r"(?-i:[A-Z]+(?:&(?:amp;)?[A-Z]+)+)",
    "acronym": rf"(?:{L}{{2,}}-)*{L}\.(?:{L}\.)+(?:-(?:(?:{L}\.)+|{W}+))*|(?:[a-z]\.)+(?:-{W}+)+",
    "initial": rf"[a-z]\.(?!\s*$|\s+(?-i:(?:{_STARTERS})(?!{W})|</?[A-Za-z][^<>]*>))",
    "abbreviation": rf"(?:ph\.d|{_ABBREVIATIONS}|{_LAST_ABBREVIATIONS})\.|(?-i:Pty|Mfg|mfg|pty)\.",
    "capital": rf"(?-i:(?:{_CAPITAL_ABBREVIATIONS})|(?:{_CAPITAL_ABBREVIATIONS.upper()}))\.",
    "numbered": rf"(?:{_BEFORE_NUMBERS})\.(?=\s*\d)",
    "listed": rf"{W}+(?:[-_.!]{W}+)*\.(?=[,;:])",
    "dotted": rf"(?!(?:{_LAST_ABBREVIATIONS}|(?-i:{_CAPITAL_ABBREVIATIONS}))\.{L}(?!{W}|[_-]|\.{L}|'{CLITIC}))"
    rf"{LE}{WE}*(?:[.!?]{LE}{WE}*)+",
    "apostrophe": rf"(?:(?-i:[A-HJ-MO-XZdl])|o){A}(?!{CLITIC}){L}{W}+{PARTS}|n{A}{L}{{2,}}|e{A}er|c'mon|s'mores"
    rf"|{L}+[aeiouy]{A}(?:[aeiou]|(?!(?:s|re|ve|ll|d|m)(?!{L}))(?-i:[A-Z])){L}*",
    "bracket": "-[lr][rcs]b-",
    "bitten": rf"(?:d|j|l|y(?={Q}{L})|ol|dunkin|somethin){Q}(?!s|re|ve|ll|d|m)",
    "hyphenated": rf"{W}+(?:[.,](?!\.\.){W}*){{0,20}}(?:-{W}+)+",
    "word": rf"{W}+{PARTS}",
    "accented": rf"{LE}{WE}*",
    "slashed": r"(?-i:[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})",
    "number": r"[-+]?(?:\d*(?:[.,:]\d+)+|\d+)",
    "vulgar": "[¼½¾⅓⅔]",
    "tis": r"'t(?=is|was)",
    "clitic": rf"'{CLITIC}|[’\u0092](?:s|re|ve|ll|d|m)|n{A}t{L}*",
    "slang": rf"{Q}n{Q}|{Q}(?:em|till?|cause)|'n(?=\s|$)|[’\u0092]n|{Q}[1-9]0s"
    rf"|{Q}\d\d(?=\s|~|$)",
    "smile": r"[<>]?[:;=]'?-?(?-i:[()\[\]{DdPpO|\\@])(?!(?-i:[A-Za-z0-9]))|[-^=<>~]_[-^=<>~]"
    r"|\([-^x=~<>][_.]?[-^x=~<>]\)|\([\^x=~<>]-[\^x=~<>`]\)",
    "language": r"c\+\+|[cf]\#",
    "money": r"(?-i:[A-Z]+)\$",
    "quotes": r"[`‘’‚‛“”„«»‹›\u0091-\u0094]{2}|''",
    "dots": r"\.{3,5}|\.(?:\s\.){2,4}",
    "dashes": r"-{2,4}",
    "asked": r"[?!]+",
    "run": r"\*+|_+|-{5,}|\#+|@+|<<|>>|\\\*",
    "one": r"[\x21-\x7E]|[\u0080\u0091-\u0094\u0096\u0097\u00A1-\u00A9\u00AB-\u00B9\u00BB-\u00BF\u00D7\u00F7"
    r"\u2013-\u2023\u2026\u2030-\u2042\u2044\u2070-\u208E\u20A0\u20A4\u20AC\u2100-\u214F\u2155-\u215E\u2190-\u2BFF"
    r"\u3001\u3002\u3012\u30FB\uFF01-\uFF65\uFFE0\uFFE1\uFFE5\uFFE6]",
}
_COMPILED = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS.items()]

# A word that a clitic cuts short: "don't" is "do" and "n't" though "don" would be longer, "gonna" is "gon" and "na".
_NEGATED = re.compile("[A-Za-z]*[A-MO-Za-mo-z][Nn]")
_NEGATION = re.compile(rf"{A}t", re.IGNORECASE)
_CUT = re.compile(
    rf"can(?=not(?!{W}))|(?:gon|wan)(?=na(?!{W}))|got(?=ta(?!{W}))|(?:gim|lem)(?=me(?!{W}))", re.IGNORECASE
)

_ROUND = {"(": "-lrb-", ")": "-rrb-"}
_BRACKETS = {**_ROUND, "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_QUOTES = {
    **{"‘": "`", "‛": "`", "\u0091": "`", "’": "'", "\u0092": "'", "‹": "`", "›": "'"},
    **{"“": "``", "\u0093": "``", "«": "``", "”": "''", "\u0094": "''", "»": "''", '"': "''"},
}
_SINGLE = {
    **_BRACKETS,
    **_QUOTES,
    **{"–": "--", "—": "--", "―": "--", "\u0096": "--", "\u0097": "--", "…": "...", "\u00ad": "-"},
    **{"€": "$", "\u0080": "$", "₠": "$", "¤": "$", "£": "#", "¢": "cents"},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
}
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": "''", "apos": "'", "nbsp": "", "mdash": "--", "ndash": "--"}
_SMILE = str.maketrans(_ROUND)
# A token never holds an ordinary space or a soft hyphen.
_OTHER = str.maketrans({**_BRACKETS, " ": "\u00a0", "\u00ad": None})

# Chunks between spaces whose tokens do not depend on their neighbours.
_PLAIN = re.compile(r"[A-Za-z'\",;?&/-]*(?:[A-Za-z]{3,}\.)?|\.")


def tokenize(caption: str) -> str:
    """Tokens of a caption joined by single spaces, lower case, without punctuation.

    Brackets stay as `-lrb-` and `-rrb-`, as in the COCO code. A token may hold a
    no-break space ("1 1/2"): `split()` takes it apart, `split(" ")` does not.
    """
    parts = []
    for chunk in caption.split():
        tokens = _plain(chunk)
        if tokens is None:
            return " ".join(_tokens(" ".join(caption.split())))
        if tokens:
            parts.append(tokens)
    return " ".join(parts)


@lru_cache(maxsize=1 << 16)
def _plain(chunk: str) -> str | None:
    """Tokens of a chunk between spaces, or None if they depend on what stands around it."""
    return " ".join(_tokens(chunk)) if _PLAIN.fullmatch(chunk) else None


def _tokens(text: str) -> list[str]:
    found = []
    at = 0
    while at < len(text):
        kind, end = _longest(text, at)
        if not kind:
            at += 1  # a space, or a character that the original drops, such as an emoji
            continue
        token = _written(kind, text[at:end])
        if token and token not in PUNCTUATION:
            found.append(token)
        at = end
    return found


def _longest(text: str, at: int) -> tuple[str, int]:
    """Kind and end of the token that starts here; no kind if none does."""
    kind, end = "", at
    for name, pattern in _COMPILED:
        match = pattern.match(text, at)
        if match and match.end() > end:
            kind, end = name, match.end()
    if kind == "word":
        if _NEGATED.fullmatch(text, at, end) and _NEGATION.match(text, end):
            end -= 1
        cut = _CUT.match(text, at)
        if cut and text[end : end + 1] not in ("-", "/"):
            end = cut.end()
    return kind, end


def _written(kind: str, token: str) -> str:
    """A token as the original prints it."""
    match kind:
        case "entity":
            return _ENTITIES[token[1:-1].lower()]
        case "one" | "vulgar":
            return _SINGLE.get(token, token).lower()
        case "quotes":
            return "".join(_QUOTES.get(mark, mark) for mark in token)
        case "dashes":
            return "--"
        case "dots":
            return "..."
        case "company":
            return token.replace("&amp;", "&").lower()
        case "clitic":
            return token.replace("’", "'").replace("\u0092", "'").lower()
        case "email" | "site" | "url":
            return token.lower()
        case "smile":
            return token.translate(_SMILE).lower()
        case _:
            return token.translate(_OTHER).lower()
