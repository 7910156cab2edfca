#!/usr/bin/env python3
"""Evaluation sets in the two shapes that the comparison with lm-eval needs.

usage: lm_eval_data.py DATA OUT

DATA holds the local files (arc_easy_test.jsonl, hellaswag_val.jsonl.zst, ...; names in FILES below, .zst or not).  OUT gets
  hf/TASK_SPLIT.jsonl   what lm-eval reads: fields as in the data sets that its own tasks name
  original/...          the same questions in the files that the data sets' authors distribute, for `softpick eval --data`
HellaSwag's local form has lost its two-part context and its marks; they are made up in the original form, so that every rule of
preparation has something to do, and lm-eval reads it as the task hellaswag-original.
Needs Python and, for .zst files, the program zstd."""
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


def convert(data, out):
    hf, original = os.path.join(out, "hf"), os.path.join(out, "original")
    os.makedirs(hf, exist_ok=True)
    for folder in ("openbookqa", "hellaswag", "piqa", "sciq", "winogrande_1.1", "BoolQ"):
        os.makedirs(os.path.join(original, folder), exist_ok=True)
    for (task, split), name in FILES.items():
        source = os.path.join(data, name)
        if not (os.path.exists(source) or os.path.exists(source + ".zst")):
            print(f"{source}: not there, {task} {split} is left out", file=sys.stderr)
            continue
        target = os.path.join(hf, f"{task}_{split}.jsonl")
        if task == "wikitext":
            text = read_text(source)
            write_lines(target, wikitext_pages(text))
            with open(os.path.join(original, "wiki.test.raw"), "w", encoding="utf-8", newline="") as file:
                file.write(text)
            continue
        documents = read_lines(source)
        if task.startswith("arc_"):
            documents = questions_with_letters(documents, "question")
            prefix = {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge"}[task]
            suffix = split.capitalize()
            write_lines(os.path.join(original, f"{prefix}-{suffix}.jsonl"), as_distributed(documents, "question"))
        elif task == "openbookqa":
            documents = questions_with_letters(documents, "question_stem")
            write_lines(os.path.join(original, "openbookqa/test.jsonl"), as_distributed(documents, "question_stem"))
        elif task == "hellaswag":
            marked = hellaswag_marked(documents)
            write_lines(os.path.join(hf, "hellaswag-original_validation.jsonl"), marked)
            write_lines(os.path.join(original, "hellaswag/hellaswag_val.jsonl"),
                        [{**document, "label": int(document["label"])} for document in marked])
            documents = hellaswag_plain(documents)
        elif task == "piqa":
            labels = read_text(os.path.join(data, "piqa_valid-labels.lst")).split()
            write_lines(os.path.join(original, "piqa/valid.jsonl"), documents)
            with open(os.path.join(original, "piqa/valid-labels.lst"), "w", encoding="utf-8") as file:
                file.write("\n".join(labels) + "\n")
            documents = [{**document, "label": int(label)} for document, label in zip(documents, labels, strict=True)]
        elif task == "sciq":
            with open(os.path.join(original, "sciq/test.json"), "w", encoding="utf-8") as file:
                json.dump(documents, file, ensure_ascii=False, indent=1)
        elif task == "winogrande":
            write_lines(os.path.join(original, "winogrande_1.1/dev.jsonl"), documents)
        elif task == "boolq":
            documents = boolq_fields(documents)
            write_lines(os.path.join(original, "BoolQ/val.jsonl"),
                        [{**each, "label": bool(each["label"])} for each in documents])
        elif task == "lambada_openai":
            write_lines(os.path.join(original, "lambada_test.jsonl"), documents)
        write_lines(target, documents)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    convert(sys.argv[1], sys.argv[2])
