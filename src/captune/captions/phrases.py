"""What models that chat write instead of a caption, or around it: refusals, phrases of a chat, thoughts, the prompt."""

import re

# At the beginning: elsewhere people in images may say such things.
_REFUSAL = re.compile(
    r"(i'?m sorry|i am sorry|sorry[,.]|i apologi[sz]e|as an ai\b|unfortunately,? i\b"
    r"|i(?: can(?:no|')t| can not|'m unable| am unable|'m not able| am not able| do not have| don't have| don't see)\b"
    r"|es tut mir leid|ich kann (?:leider )?(?:nicht|kein)|je suis désolée?|désolée?[,.]|je ne peux pas|lo siento"
    r"|no puedo|mi dispiace|non posso|desculpe|não posso)",
    re.IGNORECASE,
)
_CHAT = re.compile(
    r"(sure[,!.]|certainly[,!.]|of course[,!.]|absolutely[,!.]|okay[,!.]|ok[,!.]|here(?:'s| is| are| you go)\b.{0,60}?:"
    r"|(?:a |the |image |alt |short |possible |suggested )*(?:caption|description|alt text|title|answer)\s*:"
    r"|natürlich[,!.]|gerne[,!.]|voici\b.{0,60}?:|aquí (?:está|tienes)\b.{0,60}?:)",
    re.IGNORECASE | re.DOTALL,
)
_AFTER = re.compile(
    r"(let me know if|would you like me to|is there anything else|feel free to|i hope this helps)", re.IGNORECASE
)
_THOUGHT = re.compile(r"</?(?:think|thinking|reasoning|reflection)>|◁/?think▷", re.IGNORECASE)
# A prompt of fewer words can be in a caption by chance.
_WORDS_OF_PROMPT = 4


def refusal(text: str) -> str:
    """The words by which a model refuses to describe an image; "" for none."""
    found = _REFUSAL.match(_opening(text))
    return found[0] if found else ""


def chat_phrase(text: str) -> str:
    """Words to the person who asked, before a caption or behind it; "" for none."""
    found = _CHAT.match(_opening(text)) or _AFTER.search(text)
    return " ".join(found[0].split()) if found else ""


def thought(text: str) -> str:
    """A mark of thoughts that are in a caption; "" for none."""
    found = _THOUGHT.search(text)
    return found[0] if found else ""


def echo(text: str, prompt: str | None) -> str:
    """The prompt, where a caption repeats it; "" for none."""
    words = plain(prompt or "")
    return words if len(words.split()) >= _WORDS_OF_PROMPT and f" {words} " in f" {plain(text)} " else ""


def _opening(text: str) -> str:
    """A text without marks of quotation and Markdown before it, its apostrophes plain."""
    return text.lstrip(" \t\n\"'“”‘’*_#>`").replace("’", "'")


def plain(text: str) -> str:
    """The words of a text in lower case, without marks around them, a space between."""
    return " ".join(word for raw in text.casefold().split() if (word := raw.strip(".,;:!?\"'()“”")))
