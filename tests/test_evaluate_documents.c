/* Documents out of data files: the forms in which they are given out, files that are broken, and templates. */
#include "evaluate_support.h"

#include "evaluate/prompt.h"
#include "evaluate/python_letters.h"

/* Writes `text` as the file `name`; the task's first document asks this. */
static void check_form(const char *task, const char *name, const char *text, const char *contexts,
                       const char *continuations, int64_t gold) {
    sp_documents documents;
    put_text(name, text);
    assert_ok(read_task(&documents, task));
    assert_int_equal(documents.n, 1);
    check_question(&documents.items[0], contexts, continuations, gold);
    sp_documents_clear(&documents);
    unlink(at(name));
}

static void make_folder(const char *name) { assert_ok(sp_folder_make(at(name))); }

static void forms_of_arc_are_read(void **state) {
    (void)state;
    check_form("arc_easy", "arc_easy_test.jsonl", "{\"question\":\"Q?\",\"choices\":[\"a\",\"b\"],\"gold\":1}\n",
               "Question: Q?\nAnswer:", "a|b", 1);
    check_form("arc_easy", "arc_easy_test.jsonl",
               "{\"question\":\"Q?\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"1\",\"2\"]},\"answerKey\":\"2\"}",
               "Question: Q?\nAnswer:", "a|b", 1);
    check_form("arc_challenge", "ARC-Challenge-Test.jsonl",
               "\n{\"id\":\"x\",\"question\":{\"stem\":\"Q?\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
               "{\"text\":\"b\",\"label\":\"B\"}]},\"answerKey\":\"B\"}\r\n\n",
               "Question: Q?\nAnswer:", "a|b", 1);
}

static void forms_of_openbookqa_are_read(void **state) {
    (void)state;
    check_form(
        "openbookqa", "openbookqa_test.jsonl",
        "{\"question_stem\":\"Q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\" B\"}",
        "Q", "a|b", 1);
    check_form("openbookqa", "openbookqa_test.jsonl",
               "{\"question\":{\"stem\":\"Q\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"}]},\"answerKey\":\"A\"}",
               "Q", "a", 0);
    check_form("openbookqa", "openbookqa_test_500.lf.jsonl", "{\"query\":\"Q\",\"choices\":[\"a\",\"b\"],\"gold\":1}",
               "Q", "a|b", 1);
}

static void forms_of_boolq_are_read(void **state) {
    (void)state;
    const char *asked = "P\nQuestion: is it?\nAnswer:";
    make_folder("boolq");
    check_form("boolq", "boolq_val.jsonl", "{\"passage\":\"P\",\"question\":\"is it\",\"label\":1}", asked, "no|yes",
               1);
    check_form("boolq", "boolq_val.jsonl", "{\"passage\":\"P\",\"question\":\"is it\",\"label\":false}", asked,
               "no|yes", 0);
    check_form("boolq", "boolq/dev.jsonl", "{\"passage\":\"P\",\"question\":\"is it\",\"answer\":true}", asked,
               "no|yes", 1);
    check_form("boolq", "boolq_val.lf.jsonl",
               "{\"query\":\"Passage: P\\nQuestion: is it?\",\"choices\":[\"no\",\"yes\"],\"gold\":1}", asked, "no|yes",
               1);
}

static void a_list_in_one_piece_is_read(void **state) {
    (void)state;
    make_folder("sciq");
    check_form("sciq", "sciq/test.json",
               "[ {\"question\":\"Q?\",\"distractor1\":\"a\",\"distractor2\":\"b\",\"distractor3\":\"c\","
               "\"correct_answer\":\"d\",\"support\":\"\\n S\"} ]",
               "S\nQuestion: Q?\nAnswer:", "a|b|c|d", 3);
}

static void labels_come_from_their_own_file(void **state) {
    (void)state;
    put_text("piqa_valid-labels.lst", "0\n1\n");
    put_text("piqa_valid.jsonl", "{\"goal\":\"G\",\"sol1\":\"a\",\"sol2\":\"b\"}\n"
                                 "{\"goal\":\"H\",\"sol1\":\"c\",\"sol2\":\"d\"}\n");
    sp_documents documents;
    assert_ok(read_task(&documents, "piqa"));
    check_question(&documents.items[0], "Question: G\nAnswer:", "a|b", 0);
    check_question(&documents.items[1], "Question: H\nAnswer:", "c|d", 1);
    sp_documents_clear(&documents);

    put_text("piqa_valid-labels.lst", "0\n");
    assert_fails(read_task(&documents, "piqa"), SP_BAD_FILE, "piqa_valid-labels.lst: 1 labels for 2 documents");
    sp_documents_clear(&documents);
    put_text("piqa_valid-labels.lst", "0\n1\n1\n");
    assert_fails(read_task(&documents, "piqa"), SP_BAD_FILE, "more labels than the 2 documents");
    sp_documents_clear(&documents);
    put_text("piqa_valid-labels.lst", "0\n2\n");
    assert_fails(read_task(&documents, "piqa"), SP_BAD_FILE,
                 "piqa_valid.jsonl, line 2: not a document of piqa: its "
                 "answer is 2, of 2 choices");
    sp_documents_clear(&documents);
    unlink(at("piqa_valid-labels.lst"));
    assert_fails(read_task(&documents, "piqa"), SP_IO, "piqa looks for piqa_valid-labels.lst");
    sp_documents_clear(&documents);
}

static void check_refused(const char *text, const char *words) {
    sp_documents documents;
    put_text("arc_easy_test.jsonl", text);
    assert_fails(read_task(&documents, "arc_easy"), SP_BAD_FILE, words);
    sp_documents_clear(&documents);
}

#define GOOD "{\"question\":\"Q?\",\"choices\":[\"a\",\"b\"],\"gold\":1}\n"

static void broken_lines_are_named(void **state) {
    (void)state;
    check_refused(GOOD "\n{\"question\": \n" GOOD, "arc_easy_test.jsonl, line 3: not JSON");
    check_refused(GOOD "[1, 2]\n", "arc_easy_test.jsonl, line 2: not a JSON object");
    check_refused(GOOD "{\"question\":\"Q?\",\"question\":\"R?\"}", "line 2: not JSON: duplicate object key");
    check_refused(GOOD "\xff\n", "line 2: not JSON");
    check_refused("{\"choices\":[\"a\"],\"gold\":0}",
                  "line 1: not a document of arc_easy: its field \"question\" is missing");
    check_refused("{\"question\":\"Q\",\"choices\":[\"a\"],\"gold\":null}", "its field \"gold\" is missing");
    check_refused("{\"question\":\"Q\",\"choices\":[\"a\",2.5],\"gold\":0}",
                  "its field \"choices\" is neither a text nor a whole number");
    check_refused("{\"question\":\"Q\",\"choices\":[],\"gold\":0}", "1 contexts with 0 continuations");
    check_refused("{\"question\":\"Q\",\"choices\":[\"a\"],\"gold\":1}", "its answer is 1, of 1 choices");
    check_refused("{\"question\":\"Q\",\"choices\":[\"a\"],\"gold\":-1}", "its answer is -1, of 1 choices");
    check_refused("{\"question\":\"Q\",\"choices\":[\"a\"],\"gold\":\"one\"}", "its answer \"one\" is not a number");
    check_refused("\n \n", "no documents in it");
    check_refused("", "no documents in it");
    check_refused("[{\"question\":1}, 2]", "line 2: not a JSON object");
    check_refused("[1, 2", "arc_easy_test.jsonl: line 1");
}

static void labels_that_nothing_has_are_refused(void **state) {
    (void)state;
    sp_documents documents;
    put_text("winogrande_xl_validation.jsonl",
             "{\"sentence\":\"a _ b\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"3\"}");
    assert_fails(read_task(&documents, "winogrande"), SP_BAD_FILE, "its answer \"3\" is not among the labels");
    sp_documents_clear(&documents);
    put_text("winogrande_xl_validation.jsonl",
             "{\"sentence\":\"no blank\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}");
    assert_fails(read_task(&documents, "winogrande"), SP_BAD_FILE, "there is no \"_\" in \"no blank\"");
    sp_documents_clear(&documents);
}

static void text_that_is_none_is_refused(void **state) {
    (void)state;
    sp_documents documents;
    put("wiki.test.raw", " = Title = \n\xff\n", 14);
    assert_fails(read_task(&documents, "wikitext"), SP_BAD_FILE, "wiki.test.raw, line 2: a byte that is not UTF-8");
    sp_documents_clear(&documents);
    put("wiki.test.raw", " = Title = \n \n\0", 15);
    assert_fails(read_task(&documents, "wikitext"), SP_BAD_FILE, "wiki.test.raw, line 3: a zero byte");
    sp_documents_clear(&documents);
    put("wiki.test.raw", "", 0);
    assert_fails(read_task(&documents, "wikitext"), SP_BAD_FILE, "wiki.test.raw: no documents in it");
    sp_documents_clear(&documents);
}

static void missing_files_are_named_with_their_source(void **state) {
    (void)state;
    const sp_task *task;
    char path[4096];
    assert_ok(sp_task_find(&task, "hellaswag"));
    assert_fails(sp_task_file_find(path, NULL, task, task->files, test_folder), SP_IO,
                 "hellaswag looks for hellaswag_val.jsonl, hellaswag/hellaswag_val.jsonl (or .zst, .gz) there; from "
                 "https://github.com/rowanz/hellaswag");
    assert_fails(sp_task_find(&task, "arc_medium"), SP_BAD_ARGUMENT, "\"arc_medium\" is no task; there are arc_easy, ");
    assert_null(task);
}

/* ---- templates ---- */

static void check_render(const char *template, const char *fields, const char *expected) {
    json_t *json;
    char *text;
    assert_ok(sp_json_parse(&json, fields, (int64_t)strlen(fields), "fields"));
    assert_ok(sp_prompt_render(&text, template, json, NULL));
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

static void check_render_fails(const char *template, const char *fields, const char *words) {
    json_t *json;
    char *text;
    assert_ok(sp_json_parse(&json, fields, (int64_t)strlen(fields), "fields"));
    assert_fails(sp_prompt_render(&text, template, json, NULL), SP_BAD_FILE, words);
    assert_null(text);
    json_decref(json);
}

static void templates_hold_fields_filters_and_braces(void **state) {
    (void)state;
    check_render("no field", "{}", "no field");
    check_render("{a}, {b.c}{{}}", "{\"a\":1,\"b\":{\"c\":\"x\"}}", "1, x{}");
    check_render("{a}{b}", "{\"a\":true,\"b\":false}", "10");
    check_render("[{a|strip}] [{a|lstrip}] [{a|rstrip}]", "{\"a\":\" \\u00a0x y\\u001f\\n\"}",
                 "[x y] [x y\x1f\n] [ \u00a0x y]");
    check_render("{a|before:b}|{a|after:b}", "{\"a\":\"abcbd\"}", "a|cbd");
    check_render("{a|before_last: }|{a|after_last: }", "{\"a\":\"one two three\"}", "one two|three");
    check_render("{a|before_last: }|{a|after_last: }", "{\"a\":\"one\"}", "|one");
    check_render("{a|before_last:aa}", "{\"a\":\"aaa\"}", "a");
    check_render("{a|after:Passage: |capitalize}", "{\"a\":\"Passage: tHE\"}", "The");
}

static void texts_of_wikihow_are_cleaned(void **state) {
    (void)state;
    check_render("{a|wikihow}", "{\"a\":\"  x [title] y [step]  z  \"}", "x. y  z");
    check_render("{a|wikihow}", "{\"a\":\"a [b [c] d] e\"}", "a d] e");
    check_render("{a|wikihow}", "{\"a\":\"a [b\\nc] [d\"}", "a [b\nc] [d");
    check_render("{a|wikihow}", "{\"a\":\"a   b    c\"}", "a  b  c");
    check_render("{a|wikihow}", "{\"a\":\"[]\"}", "");
}

static void wrong_templates_are_refused(void **state) {
    (void)state;
    const char *fields = "{\"a\":\"x\",\"list\":[\"y\"],\"n\":1.5}";
    check_render_fails("{a", fields, "has a { that no } closes");
    check_render_fails("a}", fields, "has a } that no { opens");
    check_render_fails("{}", fields, "has a { without a name");
    check_render_fails("{b}", fields, "its field \"b\" is missing");
    check_render_fails("{a.b}", fields, "is missing");
    check_render_fails("{list}", fields, "its field \"list\" is neither a text nor a whole number");
    check_render_fails("{n}", fields, "its field \"n\" is neither");
    check_render_fails("{a|upper}", fields, "there is no filter \"upper\"");
    check_render_fails("{a|strip:x}", fields, "the filter \"strip\" takes no argument");
    check_render_fails("{a|before}", fields, "the filter \"before\" takes an argument");
    check_render_fails("{a|before:}", fields, "the filter \"before\" takes an argument");
    check_render_fails("{a[].b}", fields, "its field \"a\" is not a list");
    check_render_fails("{a|}", fields, "there is no filter \"\"");
}

/* What CPython 3.11's str.capitalize gives. */
static void letters_are_capitalized_as_in_python(void **state) {
    (void)state;
    static const char *const table[][2] = {
        {"", ""},
        {"hello WORLD", "Hello world"},
        {" ABC", " abc"},
        {"1ABC", "1abc"},
        {"\u00c0\u00c9", "\u00c0\u00e9"},
        {"stra\u00dfe", "Stra\u00dfe"},
        {"\u00dfa", "Ssa"},
        {"\ufb01re", "Fire"},
        {"\ufb04o", "Fflo"},
        {"\u0390", "\u0399\u0308\u0301"},
        {"\u01c6", "\u01c5"},
        {"\u0149", "\u02bcN"},
        {"\u1fb3", "\u1fbc"},
        {"\u0130ZM\u0130R", "\u0130zmi\u0307r"},
        {"\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3", "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2"},
        {"\u03a3\u0391\u03a3. \u03a3", "\u03a3\u03b1\u03c2. \u03c3"},
        {"a\u03a3", "A\u03c2"},
        {"A.\u03a3", "A.\u03c2"},
        {"a\u03a3.b", "A\u03c3.b"},
        {"\u0391\u03a3'\u0391", "\u0391\u03c3'\u03b1"},
        {"\u0391\u03a3\u034f\u0392", "\u0391\u03c3\u034f\u03b2"},
        {"\u10d0", "\u10d0"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char *text;
        sp_status status = sp_python_capitalize(&text, table[i][0]);
        if (status == SP_UNSUPPORTED) skip(); /* a build without utf8proc */
        assert_int_equal(status, SP_OK);
        assert_string_equal(text, table[i][1]);
        free(text);
    }
}

static void length_counts_code_points(void **state) {
    (void)state;
    assert_int_equal(sp_python_length(""), 0);
    assert_int_equal(sp_python_length("a\u00e9\u65e5\U0001f600"), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_arc_are_read),
        cmocka_unit_test(forms_of_openbookqa_are_read),
        cmocka_unit_test(forms_of_boolq_are_read),
        cmocka_unit_test(a_list_in_one_piece_is_read),
        cmocka_unit_test(labels_come_from_their_own_file),
        cmocka_unit_test(broken_lines_are_named),
        cmocka_unit_test(labels_that_nothing_has_are_refused),
        cmocka_unit_test(text_that_is_none_is_refused),
        cmocka_unit_test(missing_files_are_named_with_their_source),
        cmocka_unit_test(templates_hold_fields_filters_and_braces),
        cmocka_unit_test(texts_of_wikihow_are_cleaned),
        cmocka_unit_test(wrong_templates_are_refused),
        cmocka_unit_test(letters_are_capitalized_as_in_python),
        cmocka_unit_test(length_counts_code_points),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
