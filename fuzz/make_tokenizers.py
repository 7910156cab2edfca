"""Writes the seeds of fuzz_tokenizer_json and fuzz_tokenizer_bin: small tokenizers of the families that people use.

    python3 fuzz/make_tokenizers.py fuzz/corpus

Needs tokenizers from PyPI.  Those of sentencepiece's fuzzer were trained by its spm_train on a few lines of text.
"""

import json
import pathlib
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")


def byte_level():
    """Some characters, two merges; words end, and digits stand alone."""
    letters = ["!", ",", "1", "9", "8", "4", "a", "c", "e", "h", "i", "n", "r", "s", "t", "v", "\u0120", "\u010a"]
    words = ["he", "the", "\u0120the", "ri", "er"]
    merges = [("h", "e"), ("t", "he"), ("\u0120", "the"), ("r", "i"), ("e", "r")]
    return {token: i for i, token in enumerate([*letters, *words])}, merges


def gpt2():
    tokenizer = Tokenizer(models.BPE(*byte_level()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def smollm():
    tokenizer = gpt2()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    tokenizer.add_tokens([AddedToken("river", single_word=True, lstrip=True), AddedToken("  ", rstrip=True, normalized=False)])
    return tokenizer


def llama3():
    tokenizer = Tokenizer(models.BPE(*byte_level(), ignore_merges=True))
    cut = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama2(metaspace):
    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "<0xE4>", "\u2581", "t", "h", "e", "r", "i", "he", "\u2581t", "\u2581the", "ri"]
    merges = [("h", "e"), ("\u2581", "t"), ("\u2581t", "he"), ("r", "i")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def others():
    """What is rare: other splitters and normalizers, suffixes."""
    vocabulary = {token: i for i, token in enumerate(["a", "b", "a</w>", "b</w>", "ab</w>", "[U]"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b</w>")], unk_token="[U]", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents(),
                                                 normalizers.Strip(), normalizers.Replace(Regex("b+"), "b"), normalizers.Nmt()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_next"),
                                                       pre_tokenizers.Split("a", "contiguous", invert=True), pre_tokenizers.BertPreTokenizer(),
                                                       pre_tokenizers.CharDelimiterSplit("|"), pre_tokenizers.WhitespaceSplit()])
    tokenizer.decoder = decoders.Metaspace("_", "always")
    return tokenizer


def llama2c(pieces):
    """The longest piece's bytes, then a score and a length before each piece."""
    raw = [piece.encode() for piece in pieces]
    out = struct.pack("<i", max(map(len, raw)))
    return out + b"".join(struct.pack("<fi", -float(i), len(piece)) + piece for i, piece in enumerate(raw))


def main(folder):
    to = pathlib.Path(folder)
    seeds = {"gpt2": gpt2(), "smollm": smollm(), "llama3": llama3(), "llama2": llama2(False), "metaspace": llama2(True), "others": others()}
    for name, tokenizer in seeds.items():
        (to / "tokenizer_json" / f"{name}.json").write_text(json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":")))
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), " t", "he", " the", " ", "t", "h", "e", "r", "1"]
    (to / "tokenizer_bin" / "whole.bin").write_bytes(llama2c(pieces))
    (to / "tokenizer_bin" / "few.bin").write_bytes(llama2c(pieces[:3] + pieces[259:]))


if __name__ == "__main__":
    main(sys.argv[1])
