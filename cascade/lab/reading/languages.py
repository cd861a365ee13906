"""In which language texts are: a guess by script and by stop words, good for a warning and no more."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SAMPLE = 2000  # texts that are looked at
_WORD = re.compile(r"[^\W\d_]+")
_MAX_CHARS = 1000  # of a text
_SCRIPTS = {
    "LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic", "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari", "BENGALI": "Bengali", "TAMIL": "Tamil", "THAI": "Thai", "HANGUL": "Korean",
    "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "CJK": "Chinese or Japanese", "ARMENIAN": "Armenian",
    "GEORGIAN": "Georgian",
}  # fmt: skip
# Frequent words that few of the other languages have.
_STOP_WORDS = {
    "English": "the and is of to my i you it for how what do does can this that with have not are was "
    "please on be",
    "German": "der die das und ist ich nicht ein eine mein meine wie zu mit auf für wir sie es auch kann "
    "wird bei den",
    "French": "le la les des et est je une mon ma pas pour que qui vous nous dans sur avec comment plus "
    "du au ne ce",
    "Spanish": "el los las y es una mi por para que cómo como con está puedo del se lo más pero yo qué su "
    "al muy",
    "Italian": "il gli e è una mio mia per che come con non sono della del di ho posso si più ma questo "
    "nel alla",
    "Portuguese": "o os e é uma meu minha por para que como com não está posso do da em eu se mais mas no na "
    "ao",
    "Dutch": "de het een en is ik niet mijn hoe van te met op voor wij zijn dat kan wordt bij naar ook "
    "maar aan",
    "Polish": "nie się jest mój moja jak że czy dla po ale tak mnie mam być przez który oraz jeszcze",
    "Swedish": "och är jag inte en ett min mitt hur att på för med vi det som kan av till har den om men",
    "Danish": "og er jeg ikke en et min mit hvordan at på for med vi det som kan af til har den om men hvad",
    "Finnish": "ja on ei en minun miten se että kun mutta olen voi tämä mitä oli ovat myös jos niin",
    "Czech": "je ne se že jak můj moje pro ale jsem si jako není jsou aby když který mám ještě",
    "Turkish": "ve bir bu için ne nasıl değil benim mi mı da de ile var yok çok ama gibi daha",
    "Indonesian": "dan yang di saya tidak ini itu dengan untuk bagaimana ada dari ke apa bisa adalah akan "
    "sudah",
}
_SETS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_MIN_SHOWN = 0.2  # of the texts must show a language at all; codes and names show none
_MIN_SHARE = 0.05  # of the texts whose language shows: fewer in another one are no finding


class Languages(NamedTuple):
    """How many of the `looked` texts show which language, most first; some are too short to show any."""

    looked: int
    counts: tuple[tuple[str, int], ...]

    @property
    def remark(self) -> str | None:
        """A warning of texts that are not English; None if there is nothing to say."""
        shown = sum(count for _, count in self.counts)
        foreign = [(name, count) for name, count in self.counts if name != "English"]
        others = sum(count for _, count in foreign)
        if shown < _MIN_SHOWN * self.looked or others < max(2, _MIN_SHARE * shown):
            return None
        parts = ", ".join(f"{count / shown:.0%} {name}" for name, count in self.counts[:3])
        return (
            f"not all English: of {shown} texts whose language shows (in {self.looked} looked at, by "
            f"script and frequent words) {parts}; the bundled encoder has learned "
            "English, so expect less of the others"
        )


def guess_languages(texts: Sequence[str]) -> Languages:
    """Look at up to `SAMPLE` texts, evenly spread over all."""
    step = max(1, len(texts) // SAMPLE)
    sample = texts[::step][:SAMPLE]
    found = Counter(language for text in sample if (language := guess_language(text)))
    return Languages(len(sample), tuple(sorted(found.items(), key=lambda item: (-item[1], item[0]))))


def guess_language(text: str) -> str | None:
    """Return the language (of a script that is not Latin, often only the script); None if nothing shows it.

    A text in Latin script needs two stop words of a language, and more of it than of any other.
    """
    words = _WORD.findall(text[:_MAX_CHARS].lower())
    script = _script("".join(words))
    if script != "Latin":
        return script
    counts = sorted(((sum(word in own for word in words), name) for name, own in _SETS.items()), reverse=True)
    (best, name), (second, _) = counts[:2]
    return name if best >= 2 and best > second else None


def _script(letters: str) -> str | None:
    """Return the script of most letters; kana among Chinese characters make them Japanese."""
    counts = Counter("LATIN" if letter < "\u0250" else _block(letter) for letter in letters)
    if not counts:
        return None
    if counts["HIRAGANA"] + counts["KATAKANA"] > 0.1 * counts["CJK"] > 0:
        return "Japanese"
    return _SCRIPTS.get(counts.most_common(1)[0][0], "another script")


def _block(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0]
