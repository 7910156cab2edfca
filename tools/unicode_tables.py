"""Writes src/text/unicode_tables.c and unicode_categories.c: what Hugging Face's tokenizers knows about each code point.

    python3 tools/unicode_tables.py src/text

Needs tokenizers==0.23.3 and unicodedata2==17.0.0 from PyPI.  The first is what is asked: its parts follow different
versions of Unicode, and a tokenizer.json means what it makes of the file.  Takes about two minutes.
"""

import sys

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

VERSION = "0.23.3"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf").split()
SCRIPTS = ("Arabic", "Cyrillic", "Devanagari", "Greek", "Han", "Hangul", "Hebrew", "Hiragana", "Katakana", "Latin", "Thai")


def members(pattern):
    """Code points that the regular expression matches."""
    keep = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for i in range(0, len(POINTS), 4096):
        text = "".join(map(chr, POINTS[i : i + 4096]))
        for piece, _ in keep.pre_tokenize_str(text):
            found.update(map(ord, piece))
    return found


def cut_out(splitter):
    """Code points that do not stay in one piece with the letters around them."""
    return {c for c in POINTS if len(splitter.pre_tokenize_str("a" + chr(c) + "a")) != 1}


def reordered(c, form):
    """Is it a combining mark to this normalizer?  Then it changes places with a mark of the least or the highest class."""
    return any(form.normalize_str(pair) == pair[::-1] for pair in (chr(c) + "\u0334", "\u0345" + chr(c)))


def inert():
    """Code points that Unicode 17 normalizes or composes and this library, being older, leaves as they are."""
    form, composed = normalizers.NFKD(), normalizers.NFC()
    found = set()
    for c in POINTS:
        text = chr(c)
        if unicodedata2.normalize("NFKD", text) != text and form.normalize_str(text) == text:
            found.add(c)
        pair = unicodedata2.normalize("NFD", text)
        if unicodedata2.combining(text) and pair == text and not reordered(c, form):
            found.add(c)
        if len(pair) == 2 and unicodedata2.normalize("NFC", pair) == text and composed.normalize_str(pair) != text:
            found.add(ord(pair[0]))
    return found


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def lowercase():
    """Runs [first, last, step, distance] of the mapping; one code point maps to two and is left to the code."""
    form = normalizers.Lowercase()
    runs = []
    for c in POINTS:
        low = form.normalize_str(chr(c))
        if len(low) != 1:
            assert c == 0x130 and low == "i\u0307", hex(c)
            continue
        far = ord(low) - c
        if far == 0:
            continue
        if runs and runs[-1][3] == far and c - runs[-1][1] in (1, 2) and runs[-1][2] in (0, c - runs[-1][1]):
            runs[-1][1:3] = [c, c - runs[-1][1]]
        else:
            runs.append([c, c, 0, far])
    return [[first, last, step or 1, far] for first, last, step, far in runs]


def filled(items):
    """Lines of up to 120 characters."""
    lines = ["   "]
    for item in items:
        if len(lines[-1]) + 1 + len(item) > 120:
            lines.append("   ")
        lines[-1] += " " + item
    return "\n".join(lines)


def array(kind, name, items):
    return f"{kind} {name}[] = {{\n{filled(items)}\n}};\n"


def counted(kind, name, items):
    """A public array and its number of items."""
    count = f"const int64_t sp_n_{name} = sizeof sp_{name} / sizeof *sp_{name};\n"
    return array(f"const {kind}", f"sp_{name}", items) + count


def write(path, parts):
    head = f"/* Made by tools/unicode_tables.py from tokenizers {VERSION}; unicode_set.c tells what is what. */\n"
    with open(path, "w", encoding="ascii") as file:
        file.write(head + '#include "text/unicode_tables.h"\n\n/* clang-format off */\n\n' + "\n".join(parts))


def main(folder):
    if tokenizers.__version__ != VERSION:
        sys.exit(f"tokenizers {tokenizers.__version__} is installed, the tables are those of {VERSION}")
    of = {name: members(rf"\p{{{name}}}") for name in CATEGORIES}

    def union(kinds):
        return set().union(*(points for name, points in of.items() if name[0] in kinds or name in kinds))

    alphabetic = members(r"\p{Alphabetic}")
    word = union(["L", "M", "Nd", "Nl", "Pc"])
    marks = union("M")
    named = [(f"script_{name.lower()}", members(rf"\p{{{name}}}")) for name in SCRIPTS]
    named += [
        ("other_alphabetic", alphabetic - union(["L", "Nl"])),
        ("space", members(r"\s")),
        ("class_punct", members("[[:punct:]]") ^ union("P")),
        ("other_word", members(r"\w") ^ word),
        ("class_word", members(r"[\w]") ^ word),  # not the same: superscript digits and fractions of Latin-1
        ("rust_word", (set(POINTS) - cut_out(pre_tokenizers.Whitespace())) ^ word),
        ("rust_numeric", cut_out(pre_tokenizers.Digits(True)) ^ union("N")),
        ("rust_punctuation", cut_out(pre_tokenizers.Punctuation("isolated")) ^ union("P")),
        ("rust_mark", {c for c in POINTS if normalizers.StripAccents().normalize_str(chr(c)) == ""} ^ marks),
        ("inert", inert()),
    ]
    categories = sorted((a, b, name) for name in CATEGORIES for a, b in ranges(of[name]))
    items = [f"IN({name.upper()},{a:#x},{b:#x})," for a, b, name in categories]
    macro = "#define IN(category, first, last) {first, last, SP_CATEGORY_##category}\n"
    write(f"{folder}/unicode_categories.c", [macro, counted("sp_category_range", "category_ranges", items)])

    items = [f"{{{a:#x}, {b:#x}, {step}, {far}}}," for a, b, step, far in lowercase()]
    parts = [counted("sp_case_run", "lowercase_runs", items)]
    for name, points in named:
        parts.append(array("static const sp_code_range", name, [f"{{{a:#x}, {b:#x}}}," for a, b in ranges(points)]))
    parts.append("#define LISTED(set) {#set, (set), sizeof(set) / sizeof *(set)}\n")
    parts.append(counted("sp_listed_set", "listed_sets", [f"LISTED({name})," for name, _ in named]))
    write(f"{folder}/unicode_tables.c", parts)


if __name__ == "__main__":
    main(sys.argv[1])
