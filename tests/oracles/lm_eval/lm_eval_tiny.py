#!/usr/bin/env python3
"""Makes tests/vectors/lm_eval_tiny: a tiny LLaMA with a tokenizer, made-up questions for each task, and what lm-eval says of them.

    lm_eval_tiny.py OUT PYTHON_0.4.10 PYTHON_0.4.8

The last two are interpreters with lm-eval 0.4.10 or later, and 0.4.8.  Needs torch, transformers, tokenizers for itself.
tests/test_cli_eval_tiny.sh reads the result: model/, data/ (for `softpick eval`), and VERSION-shotsK.json by lm_eval_run.py."""
import json
import os
import random
import subprocess
import sys
import tempfile

from lm_eval_compare import digest

HERE = os.path.dirname(os.path.abspath(__file__))
N = 8  # questions a task
WORDS = ("river bridge stone light seven garden winter letter copper island music window engine forest market silver thunder "
         "bottle candle doctor farmer pilot ocean desert bread salt glass paper wheel planet").split()
VERBS = "carries holds finds breaks sells watches follows lifts turns hides".split()


class Writer:
    """Sentences of made-up things, the same each time."""

    def __init__(self):
        self.random = random.Random(6)

    def word(self):
        return self.random.choice(WORDS)

    def phrase(self):
        return self.random.choice(["the {} and the {}", "a {} of {}", "some caf\u00e9 {} near the {}", "{}, {}"]).format(self.word(), self.word())

    def sentence(self):
        return f"The {self.word()} {self.random.choice(VERBS)} {self.phrase()}."

    def text(self, n):
        return " ".join(self.sentence() for _ in range(n))


def make_data(writer):
    """{file below data/original: documents}, in the shapes of lm_eval_data.py's input."""
    data = {}
    for name in ("arc_easy_test", "arc_challenge_test", "arc_easy_train", "arc_challenge_train"):
        data[name + ".jsonl"] = [{"id": f"{name}-{i}", "question": writer.sentence()[:-1] + "?",
                                  "choices": [writer.phrase() for _ in range(3 + i % 3)], "gold": i % 3} for i in range(N)]
    data["openbookqa_test_500.lf.jsonl"] = [{"query": writer.sentence()[:-1], "choices": [writer.phrase() for _ in range(4)],
                                             "gold": i % 4} for i in range(N)]
    data["hellaswag_val.jsonl"] = [{"activity_label": writer.word().capitalize(), "ctx": writer.text(2) + " the " + writer.word(),
                                    "endings": [writer.phrase() + "." for _ in range(4)], "label": (3 * i) % 4} for i in range(N)]
    data["piqa_valid.jsonl"] = [{"goal": writer.sentence(), "sol1": writer.sentence(), "sol2": writer.sentence() + " "} for _ in range(N)]
    data["sciq_test.jsonl"] = [{"question": writer.sentence()[:-1] + "?", "distractor1": writer.word(), "distractor2": writer.phrase(),
                                "distractor3": writer.word(), "correct_answer": writer.word(),
                                "support": ["", " \u00a0" + writer.text(3), writer.text(20)][i % 3]} for i in range(N)]
    data["lambada_openai_test.jsonl"] = [{"text": writer.text(3)[:-1]} for _ in range(N)]
    data["winogrande_xl_validation.jsonl"] = [{"sentence": f"{writer.sentence()[:-1]} because the _ {writer.phrase()} .",
                                               "option1": writer.word(), "option2": writer.word(), "answer": "12"[i % 2]}
                                              for i in range(N)]
    data["boolq_val.lf.jsonl"] = [{"query": f"Passage: {writer.text(2 + i)}\nQuestion: does {writer.sentence()[:-1].lower()}?",
                                   "choices": ["no", "yes"], "gold": (i * i) % 2} for i in range(N)]
    pages = [f" = {writer.word().capitalize()} = \n \n {writer.text(4).replace('.', ' .').replace(',', ' ,')} \" {writer.word()} \" \n"
             f" = = {writer.word()} = = \n {writer.text(30 * i + 2).replace('.', ' .')} 3 @.@ 5 @,@ 000 \n \n" for i in range(3)]
    return data, "".join(f"{i % 2}\n" for i in range(N)), " \n" + "".join(pages)


def write_data(folder, writer):
    data, labels, wiki = make_data(writer)
    for name, documents in data.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    for name, text in (("piqa_valid-labels.lst", labels), ("wikitext2_wiki.test.raw", wiki)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


def make_model(folder, writer):
    """A LLaMA of random weights large enough that its choices are clear, and a BPE with byte fallback as LLaMA's."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # for training: no piece reaches over a word's end
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special + [f"<0x{i:02X}>" for i in range(256)], show_progress=False)
    tokenizer.train_from_iterator([writer.text(3) for _ in range(400)], trainer)
    state = json.loads(tokenizer.to_str())
    state["pre_tokenizer"] = None
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]  # bytes are no special tokens
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                   "clean_up_tokenization_spaces": False}, file)
    torch.manual_seed(6)
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=24, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=160, bos_token_id=1,
                         eos_token_id=2, initializer_range=0.2, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)


def shorten(path):
    """Digests for texts, and nothing that changes from run to run."""
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    for samples in found["samples"].values():
        for sample in samples:
            sample["digest"] = digest(sample.pop("texts"))
    del found["seconds"], found["n-samples"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file)
        file.write("\n")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n\n")[1])
    out, new, old = sys.argv[1:]
    for name in ("model", "data"):
        os.makedirs(os.path.join(out, name), exist_ok=True)
    writer = Writer()
    make_model(os.path.join(out, "model"), writer)
    with tempfile.TemporaryDirectory() as work:
        write_data(work, writer)
        subprocess.run([sys.executable, os.path.join(HERE, "lm_eval_data.py"), work, work], check=True)
        subprocess.run(["cp", "-rT", os.path.join(work, "original"), os.path.join(out, "data")], check=True)
        choices = [f"{name}-original" for name in ("arc_easy", "arc_challenge", "hellaswag", "piqa", "sciq", "lambada_openai",
                                                   "winogrande", "openbookqa", "boolq")]
        for python, version in ((new, "0.4.10"), (old, "0.4.8")):
            for shots, tasks in ((0, choices + ["wikitext"]), (2, choices)):
                path = os.path.join(out, f"{version}-shots{shots}.json")
                subprocess.run([python, os.path.join(HERE, "lm_eval_run.py"), os.path.join(out, "model"), os.path.join(work, "hf"), path,
                                "--tasks", ",".join(tasks), "--num-fewshot", str(shots), "--bootstrap", "2000"], check=True)
                shorten(path)


if __name__ == "__main__":
    main()
