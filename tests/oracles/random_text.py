"""Random Unicode strings, the same for the same seed; used by the oracles of tokenizers."""

import random
import sys

# what rules of tokenizers are about: spaces of all kinds, line ends, contractions, signs, joiners, marks
INTERESTING = (
    [chr(c) for c in (0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1F, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2003, 0x2009,
                      0x200B, 0x200C, 0x200D, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF, 0xFFFD, 0x2581)]
    + ["\r\n", "\n\n", "  ", "   ", " \n ", "    \n", "'s", "'S", "'\u017f", "'re", "'LL", "'Ve", "'m", "'D", "'t", "\u2019s"]
    + list("0123456789") + ["1984", "\u00b2", "\u00bd", "\u2167", "\u0664", "\u4e09", "\U0001d7d8", "\U00011de0"]
    + list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["\u3002", "\u00bf", "\u2014", "\u20ac", "+=", "..."]
    + ["e\u0301", "\u00e9", "\u0301", "\u0345", "\u0334", "\u1100\u1161\u11a8", "\uac01", "\ufb01", "\u00df", "\u0130",
       "\u212b", "\u2126", "\u0958", "\u0f43", "\u2adc", "\U0001d15e", "\uf900", "\u03c2", "\u01c5", "\u0149"]
    + ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f"]
    + ["the", "The", "river", " and", "HTTPServer", "\u041f\u0440\u0438\u0432\u0435\u0442", "\u4f60\u597d", "\u0e2a\u0e27\u0e31", "\u0627\u0644",
       "\u05e9\u05dc", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u3053\u3093", "\u30ab\u30bf", "\ud55c\uad6d"]
    + ["<s>", "</s>", "<unk>", "<|endoftext|>", "[INST]", "<0x41>"]
)


def any_point(draw):
    """A code point of any plane, half of them from the first; no surrogates."""
    while True:
        point = draw.randrange(0x10000) if draw.random() < 0.5 else draw.randrange(sys.maxunicode + 1)
        if not 0xD800 <= point < 0xE000:
            return chr(point)


def string(draw):
    """Up to 40 parts; which kinds of parts stand in a string differs from one to the next."""
    kinds = [draw.random() for _ in range(4)]
    parts = []
    for _ in range(draw.randrange(1, 40)):
        kind = draw.choices(range(4), kinds)[0]
        if kind == 0:
            parts.append(draw.choice(INTERESTING))
        elif kind == 1:
            parts.append(chr(draw.randrange(0x20, 0x7F)))
        elif kind == 2:
            parts.append(chr(draw.randrange(0x80, 0x3000)))
        else:
            parts.append(any_point(draw))
    return "".join(parts)


def strings(n, seed=1):
    draw = random.Random(seed)
    return [string(draw) for _ in range(n)]
