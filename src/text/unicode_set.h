/* Sets of code points, and those that have a name. */
#ifndef SP_TEXT_UNICODE_SET_H
#define SP_TEXT_UNICODE_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "text/unicode_tables.h"

enum { SP_CODE_LAST = 0x10ffff };

/* Ranges rising and apart from each other, no surrogates in them.  A zeroed one is empty. */
typedef struct sp_code_set {
    sp_code_range *ranges;
    int64_t n, capacity;
} sp_code_set;

void sp_code_set_free(sp_code_set *set);
SP_MUST_CHECK sp_status sp_code_set_add(sp_code_set *set, uint32_t first, uint32_t last);
SP_MUST_CHECK sp_status sp_code_set_unite(sp_code_set *set, const sp_code_set *other);
SP_MUST_CHECK sp_status sp_code_set_intersect(sp_code_set *set, const sp_code_set *other);
SP_MUST_CHECK sp_status sp_code_set_complement(sp_code_set *set);
bool sp_code_set_holds(const sp_code_set *set, uint32_t code);

/* Adds the set of that name, in which case, '-', '_' and spaces do not count: a general category ("Lu", "Letter"), a
 * script ("Han"), a class of POSIX ("alpha"); or, spelled exactly so, what Oniguruma makes of names in brackets ("class
 * word", "class punct"), what Rust knows ("rust word", "rust numeric", "rust punctuation", "rust mark"), and what the
 * normalizers of tokenizers leave alone ("rust inert").  *known: there is one of that name. */
SP_MUST_CHECK sp_status sp_code_set_add_named(sp_code_set *set, const char *name, int64_t n_name, bool *known);

#endif
