/* Data about code points, made by tools/unicode_tables.py.  Used by unicode_*.c and regex_class.c. */
#ifndef SP_TEXT_UNICODE_TABLES_H
#define SP_TEXT_UNICODE_TABLES_H

#include <stdint.h>

typedef enum sp_category {
    SP_CATEGORY_LU,
    SP_CATEGORY_LL,
    SP_CATEGORY_LT,
    SP_CATEGORY_LM,
    SP_CATEGORY_LO,
    SP_CATEGORY_MN,
    SP_CATEGORY_MC,
    SP_CATEGORY_ME,
    SP_CATEGORY_ND,
    SP_CATEGORY_NL,
    SP_CATEGORY_NO,
    SP_CATEGORY_PC,
    SP_CATEGORY_PD,
    SP_CATEGORY_PS,
    SP_CATEGORY_PE,
    SP_CATEGORY_PI,
    SP_CATEGORY_PF,
    SP_CATEGORY_PO,
    SP_CATEGORY_SM,
    SP_CATEGORY_SC,
    SP_CATEGORY_SK,
    SP_CATEGORY_SO,
    SP_CATEGORY_ZS,
    SP_CATEGORY_ZL,
    SP_CATEGORY_ZP,
    SP_CATEGORY_CC,
    SP_CATEGORY_CF,
    SP_N_CATEGORIES
} sp_category; /* what is in none of them is private (Co) or unassigned (Cn) */

typedef struct sp_code_range {
    uint32_t first, last;
} sp_code_range;

typedef struct sp_category_range {
    uint32_t first, last;
    sp_category category;
} sp_category_range;

/* first, first + step ... last become that + distance in lower case. */
typedef struct sp_case_run {
    uint32_t first, last, step;
    int32_t distance;
} sp_case_run;

typedef struct sp_listed_set {
    const char *name;
    const sp_code_range *ranges; /* rising, apart from each other */
    int64_t n_ranges;
} sp_listed_set;

extern const sp_category_range sp_category_ranges[]; /* rising */
extern const int64_t sp_n_category_ranges;
extern const sp_case_run sp_lowercase_runs[]; /* rising by their first; U+0130, which becomes two, is in none */
extern const int64_t sp_n_lowercase_runs;
extern const sp_listed_set sp_listed_sets[];
extern const int64_t sp_n_listed_sets;

#endif
