#!/usr/bin/env python3
"""Evaluation sets in the two shapes that the comparison with lm-eval needs.

usage: lm_eval_data.py DATA OUT

DATA holds the local files (arc_easy_test.jsonl, hellaswag_val.jsonl.zst, ...; names in FILES below, with .zst or .gz after them or not).  OUT gets
  hf/TASK_SPLIT.jsonl   what lm-eval reads: fields as in the data sets that its own tasks name
  original/...          the same questions in the files that the data sets' authors distribute, for `softpick eval --data`
For lm-eval the questions of original/ are the tasks TASK-original.  HellaSwag's local form has lost its two-part context and its
marks; they are made up there, so that every rule of preparation has something to do.  Training splits, of which few-shot
examples are drawn, are made of the first 300 questions where there is no file: examples may then be the question itself.
Needs Python and, for .zst files, the program zstd."""
import gzip
import json
import os
import subprocess
import sys

FILES = {
    ("arc_easy", "test"): "arc_easy_test.jsonl",
    ("arc_easy", "train"): "arc_easy_train.jsonl",
    ("arc_challenge", "test"): "arc_challenge_test.jsonl",
    ("arc_challenge", "train"): "arc_challenge_train.jsonl",
    ("hellaswag", "validation"): "hellaswag_val.jsonl",
    ("piqa", "validation"): "piqa_valid.jsonl",
    ("sciq", "test"): "sciq_test.jsonl",
    ("lambada_openai", "test"): "lambada_openai_test.jsonl",
    ("winogrande", "validation"): "winogrande_xl_validation.jsonl",
    ("openbookqa", "test"): "openbookqa_test_500.lf.jsonl",
    ("boolq", "validation"): "boolq_val.lf.jsonl",
    ("wikitext", "test"): "wikitext2_wiki.test.raw",
}


def read_text(path):
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    if os.path.exists(path + ".gz"):
        with gzip.open(path + ".gz", "rt", encoding="utf-8", newline="") as file:
            return file.read()
    return subprocess.run(["zstd", "-dcq", path + ".zst"], check=True, stdout=subprocess.PIPE).stdout.decode()


def read_lines(path):
    return [json.loads(line) for line in read_text(path).split("\n") if line]


def write_lines(path, documents):
    with open(path, "w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


def lettered(choices, index):
    """Every third question has digits for letters, as some of ARC's have."""
    labels = ["1", "2", "3", "4", "5"] if index % 3 == 2 else ["A", "B", "C", "D", "E"]
    return {"text": choices, "label": labels[: len(choices)]}


def questions_with_letters(documents, stem):
    """ARC's and OpenBookQA's fields from {question or query, choices, gold}."""
    out = []
    for index, document in enumerate(documents):
        choices = lettered(document["choices"], index)
        out.append({"id": document.get("id", str(index)), stem: document.get("question", document.get("query")),
                    "choices": choices, "answerKey": choices["label"][document["gold"]]})
    return out


def as_distributed(documents, stem):
    """The same as AI2's own files nest it."""
    return [{"id": document["id"],
             "question": {"stem": document[stem], "choices": [{"text": text, "label": label} for text, label in
                                                              zip(document["choices"]["text"], document["choices"]["label"])]},
             "answerKey": document["answerKey"]} for document in documents]


def hellaswag_plain(documents):
    return [{"activity_label": document["activity_label"], "ctx_a": document["ctx"], "ctx_b": "",
             "endings": document["endings"], "label": str(document["label"])} for document in documents]


def hellaswag_marked(documents):
    """Contexts cut in two, marks as in the WikiHow half, doubled spaces, a first letter that changes its length."""
    out = []
    for index, document in enumerate(documents):
        first, dot, second = document["ctx"].rpartition(". ")
        if not dot:
            first, second = document["ctx"], ""
        first, endings = first + dot.strip(), list(document["endings"])
        if index % 3 == 1:
            first = "[header] " + first.replace(". ", ". [title] ", 1) + " [step]  Next  "
            endings[1] += " [substeps] Take   care [title] of it "
        if index % 5 == 4:
            second = "\u00dfS\u0130 " + second.upper()
        out.append({"ind": index, "activity_label": document["activity_label"], "ctx_a": first, "ctx_b": second,
                    "ctx": (first + " " + second).strip(), "endings": endings, "label": str(document["label"])})
    return out


def boolq_fields(documents):
    out = []
    for index, document in enumerate(documents):
        passage, mark, question = document["query"].partition("\nQuestion: ")
        assert mark and passage.startswith("Passage: "), document["query"]
        out.append({"question": question.removesuffix("?"), "passage": passage.removeprefix("Passage: "), "idx": index,
                    "label": document["gold"]})
    return out


def wikitext_pages(text):
    """By the rule of EleutherAI/wikitext_document_level, written anew."""
    pages, page = [], []
    for line in text.split("\n"):
        closed = line.replace("= = =", "===").replace("= =", "==").strip()
        if closed.startswith("= ") and closed.endswith(" ="):
            if "\n".join(page).strip():
                pages.append("\n".join(page))
            page = []
        page.append(line)
    return [{"page": each} for each in pages + ["\n".join(page)]]


class Writer:
    """Puts documents where lm-eval and `softpick eval` look for them."""

    def __init__(self, out):
        self.hf, self.original = os.path.join(out, "hf"), os.path.join(out, "original")
        os.makedirs(self.hf, exist_ok=True)

    def write(self, path, text):
        path = os.path.join(self.original, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def lines(self, path, documents):
        self.write(path, "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))

    def for_lm_eval(self, task, split, documents):
        write_lines(os.path.join(self.hf, f"{task}_{split}.jsonl"), documents)


def distribute(writer, task, split, documents):
    """The documents, as lm-eval reads them, in the file that their authors give out."""
    train = split == "train"
    if task.startswith("arc_"):
        prefix = {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge"}[task]
        writer.lines(f"{prefix}-{split.capitalize()}.jsonl", as_distributed(documents, "question"))
    elif task == "openbookqa":
        writer.lines(f"openbookqa/{split}.jsonl", as_distributed(documents, "question_stem"))
    elif task == "hellaswag":
        writer.lines("hellaswag/hellaswag_train.jsonl" if train else "hellaswag/hellaswag_val.jsonl",
                     [{**document, "label": int(document["label"])} for document in documents])
    elif task == "piqa":
        name = "train" if train else "valid"
        writer.lines(f"piqa/{name}.jsonl", [{key: document[key] for key in ("goal", "sol1", "sol2")} for document in documents])
        writer.write(f"piqa/{name}-labels.lst", "".join(f"{document['label']}\n" for document in documents))
    elif task == "sciq":
        writer.write(f"sciq/{split}.json", json.dumps(documents, ensure_ascii=False, indent=1))
    elif task == "winogrande":
        writer.lines("winogrande_1.1/train_xl.jsonl" if train else "winogrande_1.1/dev.jsonl", documents)
    elif task == "boolq":
        writer.lines("BoolQ/train.jsonl" if train else "BoolQ/val.jsonl",
                     [{**document, "label": bool(document["label"])} for document in documents])
    elif task == "lambada_openai":
        writer.lines("lambada_test.jsonl", documents)


def convert_file(writer, data, task, split, name):
    source = os.path.join(data, name)
    if task == "wikitext":
        text = read_text(source)
        writer.for_lm_eval(task, split, wikitext_pages(text))
        writer.write("wiki.test.raw", text)
        return
    documents = read_lines(source)
    if task.startswith("arc_"):
        documents = questions_with_letters(documents, "question")
    elif task == "openbookqa":
        documents = questions_with_letters(documents, "question_stem")
    elif task == "boolq":
        documents = boolq_fields(documents)
    elif task == "piqa":
        labels = read_text(os.path.join(data, "piqa_valid-labels.lst")).split()
        documents = [{**document, "label": int(label)} for document, label in zip(documents, labels, strict=True)]
    original = hellaswag_marked(documents) if task == "hellaswag" else documents
    writer.for_lm_eval(task, split, hellaswag_plain(documents) if task == "hellaswag" else documents)
    writer.for_lm_eval(task + "-original", split, original)
    distribute(writer, task, split, original)
    if not task.startswith("arc_") and task != "lambada_openai":
        writer.for_lm_eval(task + "-original", "train", original[:300])
        distribute(writer, task, "train", original[:300])


def convert(data, out):
    writer = Writer(out)
    for (task, split), name in FILES.items():
        source = os.path.join(data, name)
        if any(os.path.exists(source + suffix) for suffix in ("", ".gz", ".zst")):
            convert_file(writer, data, task, split, name)
        else:
            print(f"{source}: not there, {task} {split} is left out", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    convert(sys.argv[1], sys.argv[2])
