"""Captions that a hostile tester would try, by category, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SENTENCES = (
    "a man in a red shirt is riding a bike down the street",
    "Two dogs run through the snow .",
    "A little girl covered in paint sits in front of a painted rainbow with her hands in a bowl .",
    "there is a close up of a white plate with food on it",
    "People stand outside the store, waiting for the bus",
    "The boy's toy is on the dog's bed; nobody can't see it",
    "an image of the city at night",
    "a black-and-white photo of an old steam train",
    "Children play",
    "surfer",
)
_MARKS = ("!", "?", "...", "..", "....", ".", ",", ";", ":", "-", "--", "---", "----", "—", "–", "…", "?!", "!!!", ";;")
_QUOTES = ('"{}"', "'{}'", "“{}”", "‘{}’", "«{}»", "‹{}›", "``{}''", "`{}`", '"{}', "{}'", "„{}“", "「{}」", "''{}''")
_BRACKETS = ("({})", "[{}]", "{{{}}}", "<{}>", "(({}))", "([{}])", "({}", "{})", "[{}", "{}]", "({})[{}]", "( {} )")
_CONTRACTIONS = _words(
    "don't won't can't cannot isn't he's she'll they've we're I'd I'm it's let's y'all o'clock ma'am 'tis 'twas "
    "gonna wanna gotta gimme lemme ain't dog's dogs' James's 90's '90s 1990s' rock'n'roll rock'n'roll n't 's "
    "DON'T He'S shouldn't've mustn't d'you 'em 'cause ol' c'mon who's what're more'n 'n' nothin' goin' d'Or "
    "l'eau"
)
_ABBREVIATIONS = _words(
    "Mr. Mrs. Dr. St. Ave. Blvd. U.S. U.S.A. D.C. Ph.D. a.m. p.m. A.M. e.g. i.e. etc. vs. Inc. Co. Ltd. Jr. Sr. "
    "No. no. Jan. Feb. Sept. Mon. Tues. ft. in. lbs. lb. oz. approx. dept. Prof. Gen. Capt. Sgt. U.K. E.U. L.A. "
    "J.R.R. mt. Mt. fig. pp. est. min. max. temp. Calif. Tex. Mass. N.Y. Wash. Ore. Sen. Rev. Hon. Bros. B.C. "
    "A.D. R.I.P."
)
_UNITS = ("cm", "km", "mph", "kg", "ft", "%", "°", "°C", "in", "lbs", "px", "st", "th", "nd", "s", "x", "mm", "$", "€")
_MONEY = ("$5", "$1,000.50", "US$20", "C$5", "£3", "€10", "10€", "¥500", "50¢", "5 cents", "$", "A$", "$$$", "-$5")
_WEB = _words(
    "http://example.com/a.jpg https://example.org/a/b?c=d&e=f#g www.example.com example.com/path me@example.com "
    "first.last@mail.example.co.uk #dogs #1 #throwback_2019 @user @some_user photo.jpg IMG_1234.JPG file.txt "
    "a.html C:\\photos\\a.jpg /usr/bin ~/x <b>bold</b> <br/> <br> </p> &amp; &lt; &quot; &nbsp; &#39; &eacute; :) "
    ":-( ;) :D <3 ^_^ xD AT&T R&B M&Ms B&W Q&A C++ C# F# .NET node.js and/or w/ w/o b/c 24/7 km/h his/her @ # * "
    "** _ __ | ~ ^"
)
_SCRIPTS = _words(
    "犬が走る 一个男人 собака бежит كلب يركض כלב רץ कुत्ता दौड़ता สุนัขวิ่ง 개가 달린다 σκύλος café naïve façade über "
    "Ångström ﬁsh ﬂower Ｆｕｌｌ ｗｉｄｔｈ ｄｏｇ１ cafe\u0301 e\u0301te\u0301 n\u0303 Straße İstanbul ıssız ǅ ñandú "
    "Zoë ½cup H₂O x² 10² Ⅳ ① ª º µm Ωmega ™ © ® № ℃ ´ ¨ ¸ ¬ ¦ § ¶ † ‡ • · ‰ ′ ″ × ÷ ± ≤ ≠ ∞ √ → ← ★ "
    "♥ ♪ ☃ ☺ ✓ ✈ ▲ ■ 、 。 ！ ？"
)
_EMOJI = _words(
    "😀 😂 ❤\ufe0f 👍🏽 👨\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇩🇪 🐶 🐕\u200d🦺 ⚽ ☀\ufe0f 1\ufe0f⃣ "
    "🤷🏻\u200d♀\ufe0f 𝒹ℴℊ 𝐝𝐨𝐠 🅰\ufe0f 𓃠 😀😀😀 :dog: (^_^) ¯\\_(ツ)_/¯ 🏄\u200d♂\ufe0f #\ufe0f⃣"
)
_CONTROLS = (
    *("\t", "\x00", "\x01", "\x07", "\x08", "\x1b[0m", "\x1f", "\x7f", "\x80", "\x91", "\x92", "\x93", "\x94", "\x95"),
    *("\x96", "\x97", "\xa0", "\xad", "\u200b", "\u200c", "\u200d", "\u200e", "\u202a", "\u202e", "\u2060", "\ufeff"),
    *("\ufffd", "\ufffe", "\ue000", "\u3000", "\u2003", "\u2009", "\u202f", "\r", "\x0b", "\x0c", "\u2028", "\u2029"),
)


def strings(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` captions as (category, text); the same for the same seed. Some hold line separators."""
    chance = random.Random(seed)
    categories = list(_CATEGORIES)
    return [(kind, _CATEGORIES[kind](chance)) for kind in (categories[n % len(categories)] for n in range(count))]


def _inserted(chance: random.Random, pieces: list[str], glue: float = 0.3) -> str:
    """A sentence with the pieces put between its words, some of them glued to a word."""
    words = chance.choice(_SENTENCES).split()
    for piece in pieces:
        at = chance.randrange(len(words) + 1)
        if words and chance.random() < glue:
            at = min(at, len(words) - 1)
            words[at] = words[at] + piece if chance.random() < 0.5 else piece + words[at]
        else:
            words.insert(at, piece)
    return _cased(chance, " ".join(words))


def _cased(chance: random.Random, text: str) -> str:
    return chance.choice((str, str, str, str.upper, str.lower, str.title))(text)


def _some(chance: random.Random, pieces: tuple[str, ...], most: int = 3) -> list[str]:
    return [chance.choice(pieces) for _ in range(chance.randint(1, most))]


def _wrapped(chance: random.Random, frames: tuple[str, ...]) -> str:
    """A sentence, one or two stretches of which are in quotes or brackets."""
    words = chance.choice(_SENTENCES).split()
    for _ in range(chance.randint(1, 2)):
        start = chance.randrange(len(words))
        end = min(len(words), start + chance.randint(1, 3))
        inner = " ".join(words[start:end])
        frame = chance.choice(frames)
        words[start:end] = [frame.format(*[inner] * frame.replace("{{", "").count("{}"))]
    return _cased(chance, " ".join(words))


def _number(chance: random.Random) -> str:
    n, m = chance.randrange(2000), chance.randrange(60)
    return chance.choice(
        (
            *(f"{n}", f"{n}.{m}", f"{n:,}", f"{n:,}.{m}", f".{m}", f"-{n}", f"+{n}", f"{m}-{n}", f"{n}–{m}", f"{n}."),
            *(f"{m % 24}:{m:02d}", f"{m % 12 + 1}:{m:02d}pm", f"{m % 12 + 1} a.m.", f"{m % 12 + 1}/{m % 28 + 1}/{n}"),
            *(f"{m % 9}/{m % 7 + 2}", f"{m} {m % 9}/{m % 7 + 2}", f"{m}½", f"{m} ½", f"{m}%", f"{m} %", f"#{m}"),
            *(f"{m}{chance.choice(_UNITS)}", f"{m} {chance.choice(_UNITS)}", f"{m}x{n}", f"{m}'{m % 12}\"", f"{m}''"),
            *(f"v{m}.{m}.{n}", f"({n}) 555-{1000 + n}", f"555-{1000 + n}", f"+1 212 555 {1000 + n}", f"{n}-{m:02d}-01"),
            *(
                f"'{m:02d}",
                f"'{m:02d}s",
                f"{n}s",
                f"{n}'s",
                f"{m}th",
                f"{m}-year-old",
                f"{m}-{m % 9}",
                f"{n}k",
                f"1e{m}",
            ),
            *(f"{m}+{n}", f"{m}={n}", f"{m}*{n}", f"{n}_{m}", f"{n},{m}", f"{n} ,{m}", f"{m}:{n}:{m}", f"No. {m}"),
        )
    )


def _soup(chance: random.Random) -> str:
    """Pieces of every category, with and without spaces between them."""
    pools = (_MARKS, _CONTRACTIONS, _ABBREVIATIONS, _MONEY, _WEB, _SCRIPTS, _EMOJI, ("dog", "The", "a", "man", "I"))
    return "".join(
        (_number(chance) if chance.random() < 0.15 else chance.choice(chance.choice(pools)))
        + chance.choice(("", " ", " ", " "))
        for _ in range(chance.randint(2, 8))
    )


def _edited(chance: random.Random) -> str:
    """A sentence with a few characters dropped, doubled, exchanged or put in."""
    text = list(chance.choice(_SENTENCES))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        new = chance.choice("abzAZ09 '\"’.,-/&()!?;:_*#@$%+=")
        text[at : at + 1] = chance.choice(([], [text[at]] * 2, [new], [text[at], new]))
    return "".join(text)


def _long(chance: random.Random) -> str:
    words = [word for _ in range(40) for word in chance.choice(_SENTENCES).split()]
    return " ".join([*words[: chance.choice((60, 300))], *_some(chance, _CONTRACTIONS)])


def _hyphens(chance: random.Random) -> str:
    words = _some(chance, ["well", "known", "two", "t", "X", "ray", "3", "in", "law", "self", "ex", "co", "10", "é"], 4)
    return chance.choice(("-", "-", "–", "—", "--", " - ", "_", "/", "\u2010", "\u2011")).join(["up", *words])


def _nothing(chance: random.Random) -> str:
    return chance.choice(("", " ", "\t", "   ", ".", "...", "!", '""', "''", "-", "()", "\u200b", "\xa0", "😀", "?!"))


_CATEGORIES: dict[str, Callable[[random.Random], str]] = {
    "marks": lambda chance: _inserted(chance, _some(chance, _MARKS), 0.7),
    "quotes": lambda chance: _wrapped(chance, _QUOTES),
    "brackets": lambda chance: _wrapped(chance, _BRACKETS),
    "contractions": lambda chance: _inserted(
        chance, [word.replace("'", chance.choice("''’")) for word in _some(chance, _CONTRACTIONS)], 0
    ),
    "abbreviations": lambda chance: _inserted(chance, _some(chance, _ABBREVIATIONS), 0),
    "numbers": lambda chance: _inserted(chance, [_number(chance) for _ in range(chance.randint(1, 3))], 0.1),
    "money": lambda chance: _inserted(chance, _some(chance, _MONEY), 0.1),
    "web": lambda chance: _inserted(chance, _some(chance, _WEB), 0.2),
    "scripts": lambda chance: _inserted(chance, _some(chance, _SCRIPTS), 0.2),
    "emoji": lambda chance: _inserted(chance, _some(chance, _EMOJI)),
    "controls": lambda chance: _inserted(chance, _some(chance, _CONTROLS), 0.6),
    "hyphens": lambda chance: _inserted(chance, [_hyphens(chance)], 0),
    "edited": _edited,
    "soup": _soup,
    "long": _long,
    "nothing": _nothing,
}
