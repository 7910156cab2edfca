/* Sets are merged by their borders: the code points at which a set begins or ends.  A border in both of two sets is none
 * in their symmetric difference, which is how complements and named sets ("these categories, but for those") are made. */
#include "text/unicode_set.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static const sp_code_range everything[] = {{0, 0xd7ff}, {0xe000, SP_CODE_LAST}};

void sp_code_set_free(sp_code_set *set) {
    free(set->ranges);
    *set = (sp_code_set){0};
}

static sp_status reserve(sp_code_set *set, int64_t n_more) {
    if (set->n + n_more <= set->capacity) return SP_OK;
    int64_t capacity = 2 * (set->n + n_more);
    sp_code_range *ranges = realloc(set->ranges, (size_t)capacity * sizeof *ranges);
    SP_REQUIRE(ranges, SP_OUT_OF_MEMORY, "a set of code points: no memory for %" PRId64 " ranges", capacity);
    set->ranges = ranges;
    set->capacity = capacity;
    return SP_OK;
}

static int by_first(const void *a, const void *b) {
    uint32_t x = ((const sp_code_range *)a)->first, y = ((const sp_code_range *)b)->first;
    return (x > y) - (x < y);
}

/* Brings ranges into the form of a set: the first n_ready of them rise, and so do the others. */
static void tidy(sp_code_set *set, int64_t n_ready) {
    bool rises = n_ready == 0 || n_ready == set->n || set->ranges[n_ready - 1].first <= set->ranges[n_ready].first;
    if (!rises) qsort(set->ranges, (size_t)set->n, sizeof *set->ranges, by_first);
    int64_t n = 0;
    for (int64_t i = 0; i < set->n; i++) {
        sp_code_range range = set->ranges[i];
        sp_code_range *before = n > 0 ? &set->ranges[n - 1] : NULL;
        if (!before || range.first > before->last + 1)
            set->ranges[n++] = range;
        else if (range.last > before->last)
            before->last = range.last;
    }
    set->n = n;
}

/* The others rise as well. */
static sp_status unite(sp_code_set *set, const sp_code_range *ranges, int64_t n) {
    if (n == 0) return SP_OK;
    SP_TRY(reserve(set, n));
    memcpy(set->ranges + set->n, ranges, (size_t)n * sizeof *ranges);
    set->n += n;
    tidy(set, set->n - n);
    return SP_OK;
}

sp_status sp_code_set_unite(sp_code_set *set, const sp_code_set *other) { return unite(set, other->ranges, other->n); }

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t *add_borders(uint32_t *at, const sp_code_range *ranges, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        *at++ = ranges[i].first;
        *at++ = ranges[i].last + 1;
    }
    return at;
}

/* The symmetric difference with other ranges, rising and apart. */
static sp_status flip(sp_code_set *set, const sp_code_range *ranges, int64_t n) {
    int64_t n_borders = 2 * (set->n + n), kept = 0;
    if (n_borders == 0) return SP_OK;
    uint32_t *borders = malloc((size_t)n_borders * sizeof *borders);
    SP_REQUIRE(borders, SP_OUT_OF_MEMORY, "a set of code points: no memory for %" PRId64 " borders", n_borders);
    add_borders(add_borders(borders, set->ranges, set->n), ranges, n);
    qsort(borders, (size_t)n_borders, sizeof *borders, by_value);
    for (int64_t i = 0; i < n_borders; i++) {
        if (kept > 0 && borders[kept - 1] == borders[i])
            kept--;
        else
            borders[kept++] = borders[i];
    }
    set->n = 0;
    sp_status status = reserve(set, kept / 2);
    for (int64_t i = 0; i < kept && status == SP_OK; i += 2)
        set->ranges[set->n++] = (sp_code_range){borders[i], borders[i + 1] - 1};
    free(borders);
    return status;
}

sp_status sp_code_set_complement(sp_code_set *set) { return flip(set, everything, 2); }

sp_status sp_code_set_add(sp_code_set *set, uint32_t first, uint32_t last) {
    sp_code_range range = {first, last};
    if (last < 0xd800 || first > 0xdfff) return first <= last ? unite(set, &range, 1) : SP_OK;
    if (first < 0xd800) SP_TRY(sp_code_set_add(set, first, 0xd7ff));
    return last > 0xdfff ? sp_code_set_add(set, 0xe000, last) : SP_OK;
}

/* What is in both is what is not in either complement. */
sp_status sp_code_set_intersect(sp_code_set *set, const sp_code_set *other) {
    sp_code_set outside = {0};
    sp_status status = sp_code_set_unite(&outside, other);
    if (status == SP_OK) status = sp_code_set_complement(&outside);
    if (status == SP_OK) status = sp_code_set_complement(set);
    if (status == SP_OK) status = sp_code_set_unite(set, &outside);
    if (status == SP_OK) status = sp_code_set_complement(set);
    sp_code_set_free(&outside);
    return status;
}

bool sp_code_set_holds(const sp_code_set *set, uint32_t code) {
    int64_t low = 0, high = set->n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (set->ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < set->n && set->ranges[low].first <= code;
}

/* ---- names ---- */

#define ONE(name) (UINT32_C(1) << SP_CATEGORY_##name)
enum {
    LETTERS = ONE(LU) | ONE(LL) | ONE(LT) | ONE(LM) | ONE(LO),
    MARKS = ONE(MN) | ONE(MC) | ONE(ME),
    NUMBERS = ONE(ND) | ONE(NL) | ONE(NO),
    PUNCTUATION = ONE(PC) | ONE(PD) | ONE(PS) | ONE(PE) | ONE(PI) | ONE(PF) | ONE(PO),
    SIGNS = ONE(SM) | ONE(SC) | ONE(SK) | ONE(SO),
    SEPARATORS = ONE(ZS) | ONE(ZL) | ONE(ZP),
    ALPHABETIC = LETTERS | ONE(NL),
    WORD = ALPHABETIC | MARKS | ONE(ND) | ONE(PC),
};

/* These categories; but where a list is named, what is in it is in the set if it is in none of them, and the other way
 * round. */
static const struct named_set {
    const char *name, *long_name;
    uint32_t categories;
    const char *list;
} named_sets[] = {
    {"l", "letter", LETTERS, NULL},
    {"lu", "uppercaseletter", ONE(LU), NULL},
    {"ll", "lowercaseletter", ONE(LL), NULL},
    {"lt", "titlecaseletter", ONE(LT), NULL},
    {"lm", "modifierletter", ONE(LM), NULL},
    {"lo", "otherletter", ONE(LO), NULL},
    {"m", "mark", MARKS, NULL},
    {"mn", "nonspacingmark", ONE(MN), NULL},
    {"mc", "spacingmark", ONE(MC), NULL},
    {"me", "enclosingmark", ONE(ME), NULL},
    {"n", "number", NUMBERS, NULL},
    {"nd", "decimalnumber", ONE(ND), NULL},
    {"nl", "letternumber", ONE(NL), NULL},
    {"no", "othernumber", ONE(NO), NULL},
    {"p", "punctuation", PUNCTUATION, NULL},
    {"punct", NULL, PUNCTUATION, NULL},
    {"class punct", NULL, PUNCTUATION, "class_punct"},
    {"pc", "connectorpunctuation", ONE(PC), NULL},
    {"pd", "dashpunctuation", ONE(PD), NULL},
    {"ps", "openpunctuation", ONE(PS), NULL},
    {"pe", "closepunctuation", ONE(PE), NULL},
    {"pi", "initialpunctuation", ONE(PI), NULL},
    {"pf", "finalpunctuation", ONE(PF), NULL},
    {"po", "otherpunctuation", ONE(PO), NULL},
    {"s", "symbol", SIGNS, NULL},
    {"sm", "mathsymbol", ONE(SM), NULL},
    {"sc", "currencysymbol", ONE(SC), NULL},
    {"sk", "modifiersymbol", ONE(SK), NULL},
    {"so", "othersymbol", ONE(SO), NULL},
    {"z", "separator", SEPARATORS, NULL},
    {"zs", "spaceseparator", ONE(ZS), NULL},
    {"zl", "lineseparator", ONE(ZL), NULL},
    {"zp", "paragraphseparator", ONE(ZP), NULL},
    {"cc", "cntrl", ONE(CC), NULL},
    {"cf", "format", ONE(CF), NULL},
    {"alpha", "alphabetic", ALPHABETIC, "other_alphabetic"},
    {"alnum", NULL, ALPHABETIC | ONE(ND), "other_alphabetic"},
    {"digit", NULL, ONE(ND), NULL},
    {"space", "whitespace", 0, "space"},
    {"word", NULL, WORD, "other_word"},
    {"class word", NULL, WORD, "class_word"},
    {"arabic", NULL, 0, "script_arabic"},
    {"cyrillic", NULL, 0, "script_cyrillic"},
    {"devanagari", NULL, 0, "script_devanagari"},
    {"greek", NULL, 0, "script_greek"},
    {"han", NULL, 0, "script_han"},
    {"hangul", NULL, 0, "script_hangul"},
    {"hebrew", NULL, 0, "script_hebrew"},
    {"hiragana", NULL, 0, "script_hiragana"},
    {"katakana", NULL, 0, "script_katakana"},
    {"latin", NULL, 0, "script_latin"},
    {"thai", NULL, 0, "script_thai"},
    {"rust word", NULL, WORD, "rust_word"},
    {"rust numeric", NULL, NUMBERS, "rust_numeric"},
    {"rust punctuation", NULL, PUNCTUATION, "rust_punctuation"},
    {"rust mark", NULL, MARKS, "rust_mark"},
    {"rust inert", NULL, 0, "inert"},
};
enum { N_NAMED_SETS = sizeof named_sets / sizeof *named_sets };

/* "Uppercase_Letter" and "uppercase letter" are "uppercaseletter"; false if it is too long to be a name. */
static bool plain_name(char plain[32], const char *name, int64_t n_name) {
    int64_t n = 0;
    for (int64_t i = 0; i < n_name; i++) {
        if (name[i] == '-' || name[i] == '_' || name[i] == ' ') continue;
        if (n == 31) return false;
        plain[n++] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    }
    plain[n] = 0;
    return true;
}

static const struct named_set *find_named(const char *name, int64_t n_name) {
    char plain[32];
    for (int i = 0; i < N_NAMED_SETS; i++)
        if ((int64_t)strlen(named_sets[i].name) == n_name && memcmp(named_sets[i].name, name, (size_t)n_name) == 0)
            return &named_sets[i];
    if (!plain_name(plain, name, n_name)) return NULL;
    for (int i = 0; i < N_NAMED_SETS; i++)
        if (strcmp(named_sets[i].name, plain) == 0 ||
            (named_sets[i].long_name && strcmp(named_sets[i].long_name, plain) == 0))
            return &named_sets[i];
    return NULL;
}

static const sp_listed_set *find_listed(const char *name) {
    for (int64_t i = 0; i < sp_n_listed_sets; i++)
        if (strcmp(sp_listed_sets[i].name, name) == 0) return &sp_listed_sets[i];
    return NULL;
}

sp_status sp_code_set_add_named(sp_code_set *set, const char *name, int64_t n_name, bool *known) {
    const struct named_set *named = find_named(name, n_name);
    *known = named != NULL;
    if (!named) return SP_OK;
    sp_code_set found = {0};
    sp_status status = SP_OK;
    for (int64_t i = 0; i < sp_n_category_ranges; i++) {
        const sp_category_range *range = &sp_category_ranges[i];
        if (!(named->categories >> range->category & 1)) continue;
        SP_TRY_OR_DONE(reserve(&found, 1));
        found.ranges[found.n++] = (sp_code_range){range->first, range->last};
    }
    tidy(&found, 0);
    if (named->list) {
        const sp_listed_set *list = find_listed(named->list);
        SP_REQUIRE_OR_DONE(list, SP_INTERNAL, "the set %s is not in the tables", named->list);
        SP_TRY_OR_DONE(flip(&found, list->ranges, list->n_ranges));
    }
    SP_TRY_OR_DONE(sp_code_set_unite(set, &found));
done:
    sp_code_set_free(&found);
    return status;
}
