"""Normalizers and splitters of a tokenizer.json against those of Hugging Face's tokenizers, one component at a time.

    python3 tests/oracles/text_components.py BUILD [N]
    python3 tests/oracles/text_components.py --golden tests/vectors/text_components.json

BUILD is a build folder with libsp_inside.a; N random strings (default 100000) go through each component, and so does every
code point between letters.  Needs tokenizers==0.23.3 from PyPI, a C compiler and pkg-config.  Exit code: 0 they agree, 1 not.
--golden writes what tests/test_text_splitter.c and test_text_normalizer.c read: a few strings and what becomes of them.
"""

import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

import tokenizers
from tokenizers import Tokenizer, models

import random_text

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = "|".join([CASED, CASED.replace("]*[", "]+[", 1).replace("]+(?i", "]*(?i", 1), r"\p{N}{1,3}",
                  r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"])
PATTERNS = [
    GPT2, LLAMA3, LLAMA3.replace("{1,3}", ""), GPT4O, r"[\r\n]", r"\s?[A-Za-z\u00b5\u00c0-\u00d6]+", r"\s?\p{P}+", r"\s+$", r"^\s+",
    r"[一-龥\u0800-一가-\ud7ff]+", r"\p{N}", r"\d{1,3}(?=(?:\d{3})*\b)", r"\b\w", r"\B", r"\w+", r"[\p{Han}]+",
    r"[^\p{Han}&&[^\p{P}a-z]]+", r"(?<=\s)\S", r"(?<!\p{L})\p{L}", r"a*", r"(?:ab?){2}?", r"\p{N}{1,2}+", r"x{,2}y", r"\s*?\n",
    r"\p{L}++'", r"(?>\p{L}+)s", r"(?m:.+)", r".+", r"[[:punct:]]", r"[[:alpha:][:digit:]]+", r"[[:^space:]]", r"\h+",
    r"(?i)[a-z]+", r"(?i:[^k])", r"(?i:'(?:s|re)|the)", r"\p{^Lu}\P{Ll}", r"\Athe|river\z", r"\p{Alphabetic}+", r"[-a\]]", r"\x{e9}|\x41|\u00df",
    " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", "[0-9][0-9][0-9]",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
    CASED.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]") + r"|[\p{Han}]+",
    r"[\w&&[^\d]]+", r"[\s\S]{3}", r"(the|river)+?", r"(?:)", r"\p{Latin}+|\p{Hiragana}|\p{Katakana}|\p{Hangul}+",
]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def metaspace(scheme, cut=True):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def replace(kind, pattern, content):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


DIGITS = {"type": "Digits", "individual_digits": True}
SPLITTERS = (
    [split({"Regex": pattern}) for pattern in PATTERNS]
    + [split({"Regex": pattern}, behavior, invert) for pattern in (r"\s", r"\p{L}*", r"[0-9]{1,2}") for behavior in BEHAVIORS
       for invert in (False, True)]
    + [split({"String": word}, behavior) for word in (" ", "the", "\u2581", ".") for behavior in BEHAVIORS]
    + [{"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS]
    + [{"type": name} for name in ("Whitespace", "WhitespaceSplit", "Punctuation", "BertPreTokenizer")]
    + [DIGITS, {**DIGITS, "individual_digits": False}, {"type": "CharDelimiterSplit", "delimiter": "e"}]
    + [metaspace(scheme, cut) for scheme in ("first", "always", "never") for cut in (True, False)]
    + [byte_level(prefix, regex) for prefix in (True, False) for regex in (True, False)]
    + [sequence("pretokenizers", *parts) for parts in (
        [DIGITS, byte_level()], [DIGITS, byte_level(True)], [split({"Regex": LLAMA3}), byte_level(False, False)],
        [{"type": "WhitespaceSplit"}, metaspace("first")], [{"type": "Whitespace"}, metaspace("always")],
        [split({"String": "e"}, "MergedWithNext"), {"type": "Punctuation"}, DIGITS], [metaspace("always"), split({"String": "\u2581"})], [])]
)
NORMALIZERS = (
    [{"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")]
    + [{"type": "Strip", "strip_left": left, "strip_right": right} for left in (True, False) for right in (True, False)]
    + [{"type": "Prepend", "prepend": "\u2581"}, replace("String", " ", "\u2581"), replace("Regex", r"\s+", " "),
       replace("Regex", r"[0-9]*", "#"), replace("String", "the", ""), replace("Regex", r"(?<=e)\s", "")]
    + [sequence("normalizers", *parts) for parts in (
        [{"type": "Prepend", "prepend": "\u2581"}, replace("String", " ", "\u2581")],
        [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Strip", "strip_left": True, "strip_right": True}],
        [{"type": "Nmt"}, {"type": "NFKC"}, replace("Regex", " {2,}", " ")], [])]
)


def byte_characters():
    """The characters by which ByteLevel writes bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {**{chr(b): b for b in plain}, **{chr(0x100 + i): b for i, b in enumerate(others)}}


BYTES = byte_characters()


def theirs(kind, component, texts):
    whole = json.loads(Tokenizer(models.BPE()).to_str())
    whole["pre_tokenizer" if kind == "splitter" else "normalizer"] = component
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    if kind == "normalizer":
        return [[tokenizer.normalizer.normalize_str(text).encode()] for text in texts]
    answers = [[piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text) if piece] for text in texts]
    if "ByteLevel" in json.dumps(component):
        return [[bytes(BYTES[c] for c in piece) for piece in pieces] for pieces in answers]
    return [[piece.encode() for piece in pieces] for pieces in answers]


def ours(program, kind, component, texts):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(component, file)
        file.flush()
        asked = b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))
        done = subprocess.run([program, kind, file.name], input=asked, capture_output=True)
    if done.returncode != 0:
        return done.stderr.decode().strip()
    answers, at, out = [], 0, done.stdout
    while at < len(out):
        (n,) = struct.unpack_from("<I", out, at)
        at += 4
        pieces = []
        for _ in range(n):
            (length,) = struct.unpack_from("<I", out, at)
            pieces.append(out[at + 4 : at + 4 + length])
            at += 4 + length
        answers.append(pieces)
    return answers


def check(program, kind, component, texts):
    name = json.dumps(component, ensure_ascii=False)
    name = name if len(name) < 110 else name[:107] + "..."
    start = time.perf_counter()
    expected = theirs(kind, component, texts)
    between = time.perf_counter()
    found = ours(program, kind, component, texts)
    times = f"theirs {between - start:.2f} s, ours {time.perf_counter() - between:.2f} s"
    if isinstance(found, str):
        print(f"REFUSED {name}: {found}")
        return 1
    wrong = [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]
    print(f"{'DIFFERS' if wrong else 'equal  '} {kind} {name}: {len(texts)} texts, {times}", flush=True)
    for i in wrong[:3]:
        print(f"    {texts[i]!r}\n    theirs {[p.decode(errors='replace') for p in expected[i]]!r}\n"
              f"    ours   {[p.decode(errors='replace') for p in found[i]]!r}")
    if wrong:
        print(f"    and {max(len(wrong) - 3, 0)} more")
    return 1 if wrong else 0


def build(folder, to):
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "jansson", "sentencepiece", "libpcre2-8", "libutf8proc", "libzstd",
                            "zlib"], capture_output=True, text=True, check=True).stdout.split()
    command = ["c++", "-x", "c", str(HERE / "text_components.c"), "-x", "none", f"-I{ROOT}/include", f"-I{ROOT}/src", "-o", to,
               f"{folder}/libsp_inside.a", *flags, "-ldnnl", "-lpng", "-lgomp", "-lm", "-lpthread", "-ldl"]
    subprocess.run(command, check=True)


def write_golden(path):
    texts = ["", "  ", "\n", " The river\n\n  carries 1984 stones, isn't it?\r\n"] + random_text.strings(400, seed=7)[::40]
    cases = []
    for kind, components in (("normalizer", NORMALIZERS), ("splitter", SPLITTERS)):
        for component in components:
            answers = [[piece.decode() for piece in pieces] for pieces in theirs(kind, component, texts)]
            cases.append({"kind": kind, "component": component, "pieces": answers})
    with open(path, "w", encoding="utf-8") as file:
        head = json.dumps({"from": f"tokenizers {tokenizers.__version__}", "texts": texts})[:-1]
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        file.write(head + ', "cases": [\n' + lines + "\n]}\n")


def main(folder, n="100000"):
    if folder == "--golden":
        return write_golden(n)
    texts = random_text.strings(int(n))
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts += ["a" + "a".join(points[i : i + 64]) + "a" for i in range(0, len(points), 64)] + ["", " ", "  ", "\n"]
    with tempfile.TemporaryDirectory() as there:
        program = f"{there}/text_components"
        build(folder, program)
        failed = sum(check(program, "normalizer", component, texts) for component in NORMALIZERS)
        failed += sum(check(program, "splitter", component, texts) for component in SPLITTERS)
    print(f"{failed} of {len(NORMALIZERS) + len(SPLITTERS)} components differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
