#!/usr/bin/env python3
"""Makes tokenizer/*.json, small tokenizers of each family, and tokenizers.json: what Hugging Face's `tokenizers` makes of
some texts with them.  Needs `tokenizers` (0.23.3 was used).  Run in this folder: python3 make_tokenizers.py"""
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = "the river and carries stones of light slowly under seven 1984 café bridges while it sings it's we'll I'd".split()


def corpus():
    rng = random.Random(1)
    for _ in range(600):
        words = [rng.choice(WORDS) for _ in range(rng.randrange(1, 14))]
        yield " ".join(words).capitalize() + rng.choice([".", "!", ",\n", "...\n\n", "  "])


def byte_level(pre_tokenizer, normalizer=None, ignore_merges=False, specials=("<|endoftext|>",)):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def gpt2():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def neox():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (6, 4, 3, 2)])
    return tokenizer


def smollm():
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_level(pre_tokenizers.Sequence(steps), specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))


def llama3():
    steps = [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer = byte_level(
        pre_tokenizers.Sequence(steps), ignore_merges=True, specials=("<|begin_of_text|>", "<|end_of_text|>")
    )
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def llama2(metaspace):
    """Merges are trained on words that begin with the mark; the vocabulary is set out as sentencepiece does."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    lines = (text.replace("\n", "") for text in corpus())  # newlines are bytes, as in LLaMA's
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    names += [name for name in model["vocab"] if name not in names] + ["▁▁", "▁▁▁▁"]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [tuple(m) for m in model["merges"] if m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
    merges += [("▁", "▁"), ("▁▁", "▁▁")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def odd():
    """What the families do not use: unknown characters, marks within and at the end of words, added tokens of all kinds."""
    vocab = {name: i for i, name in enumerate("[UNK] a b c ##a ##b ##c a. ##b. ##c. ab ##bc. abc.".split())}
    merges = [("a", "##b"), ("##b", "##c."), ("ab", "##c.")]
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            merges,
            unk_token="[UNK]",
            fuse_unk=False,
            continuing_subword_prefix="##",
            end_of_word_suffix=".",
        )
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens(
        [
            AddedToken("WORD", single_word=True, normalized=False),
            AddedToken("left", lstrip=True, normalized=False),
            AddedToken("right", rstrip=True, normalized=False),
            AddedToken("Both", lstrip=True, rstrip=True, normalized=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.RobertaProcessing(("b", 2), ("a", 1))
    return tokenizer


DECODERS = [
    None,
    decoders.Fuse(),
    decoders.Metaspace(prepend_scheme="never"),
    decoders.Sequence([decoders.Strip("a", 1, 0), decoders.Replace("b", "B▁")]),
    decoders.Sequence([decoders.Replace(Regex("[bc]+"), "-"), decoders.Fuse(), decoders.Strip("a", 3, 1)]),
    decoders.Sequence([decoders.Fuse(), decoders.Strip("c", 0, 2)]),
    decoders.Sequence([decoders.Fuse(), decoders.Replace("a##b", "<0x41>"), decoders.ByteFallback()]),
    decoders.Sequence([decoders.ByteLevel(), decoders.Strip("[", 1, 0), decoders.Replace("#", "")]),
]

TEXTS = [
    "",
    " ",
    "  ",
    "the river",
    " the river",
    "The river carries stones of light, slowly;\n\n it's 1984 and we'LL sing.",
    "a\nb\n\nc \n d\t e",
    "x  two   three    four     five      six        eight",
    "café cafe\u0301 ﬁ Ａ",
    "日本語 😀👍🏽 русский العربية",
    "<s>the</s> <unk> <|endoftext|>the<|begin_of_text|><|im_start|>user",
    "<0x0A><0xFF> ▁▁the▁",
    "12345 6 7.89 ²½ Ⅷ",
    "don't DON'T 'S 'ſ 'll've",
    "\u0001\u007f\u0085\u00a0\u1680\u180e\u2028\u3000\u200b",
    "the " * 40,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "slowly" * 30,
    "abc ABC ab. cab a\u00e9\u00e9b xyz",
    "WORD aWORD WORD_ (WORD) Both  left  b  right  c left",
    "line one\n" * 30,
]


def main():
    os.makedirs("tokenizer", exist_ok=True)
    made = {
        "gpt2": gpt2(),
        "neox": neox(),
        "smollm": smollm(),
        "llama3": llama3(),
        "llama2": llama2(False),
        "llama2_metaspace": llama2(True),
        "odd": odd(),
    }
    rng = random.Random(2)
    expected = []
    for name, tokenizer in made.items():
        tree = json.loads(tokenizer.to_str())
        if name == "gpt2":
            tree["model"]["merges"] = [" ".join(pair) for pair in tree["model"]["merges"]]  # as older files
            tree["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
        with open(f"tokenizer/{name}.json", "w") as file:
            json.dump(tree, file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
        cases = []
        for text in TEXTS:
            case = {"text": text}
            tokenizer.encode_special_tokens = True
            case["plain"] = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            case["special"] = tokenizer.encode(text, add_special_tokens=False).ids
            case["template"] = tokenizer.encode(text, add_special_tokens=True).ids
            cases.append(case)
        lists = [case["template"] for case in cases]
        size = tokenizer.get_vocab_size()
        lists += [[rng.randrange(size) for _ in range(rng.randrange(1, 20))] for _ in range(30)]
        decoded = [
            {
                "ids": ids,
                "text": tokenizer.decode(ids, skip_special_tokens=True),
                "all": tokenizer.decode(ids, skip_special_tokens=False),
            }
            for ids in lists
            if "\0" not in tokenizer.decode(ids, skip_special_tokens=False)  # C's JSON has none in strings
        ]
        expected.append({"tokenizer": name, "encode": cases, "decode": decoded})
    with_decoder = made["odd"]
    for decoder in DECODERS:
        with_decoder.decoder = decoder
        tree = json.loads(with_decoder.to_str())["decoder"]
        size = with_decoder.get_vocab_size()
        decoded = []
        for _ in range(40):
            ids = [rng.randrange(size) for _ in range(rng.randrange(3, 12))]
            try:
                text = with_decoder.decode(ids, skip_special_tokens=False)
            except BaseException:  # Strip panics where it would cut more than there is
                continue
            decoded.append({"ids": ids, "text": text, "all": text})
        expected.append({"tokenizer": "odd", "decoder": tree, "encode": [], "decode": decoded})
    with open("tokenizers.json", "w") as file:
        json.dump(expected, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
