/* Choice of a variant from a table whose rows are ordered best first.
 *
 * A table is an array of structs that begin with an sp_variant.  A row takes a problem if the CPU has the features it
 * needs and its `accepts` agrees; the first that does is chosen.  An environment variable may name one row: then that
 * row is chosen or the call fails. */
#ifndef SP_DEVICE_VARIANT_H
#define SP_DEVICE_VARIANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct sp_variant {
    const char *name;
    uint32_t needs; /* sp_cpu_feature bits */
    /* Whether the row can do this problem; if not, *why is a static sentence.  NULL: it can do all. */
    bool (*accepts)(const void *problem, const char **why);
} sp_variant;

typedef struct sp_variant_table {
    const char *variable; /* environment variable that names a row: "SP_ATTENTION" */
    const void *rows;
    size_t row_bytes;
    int n_rows;
} sp_variant_table;

/* The i-th row. */
const sp_variant *sp_variant_at(const sp_variant_table *table, int i);
/* Whether row i takes the problem; if not, *why (never NULL) says which feature or case is missing, valid until the
 * next call on this thread. */
bool sp_variant_takes(const sp_variant_table *table, int i, const void *problem, const char **why);
/* The name of the row that the environment asks for; NULL if it names none.  For rows that are right but slow on some
 * machines: their `accepts` refuses unless they are named. */
const char *sp_variant_named(const sp_variant_table *table);
/* The row to run.  Fails if the environment names an unknown row or one that refuses, if SP_CPU is not a name it
 * can be, or if all rows refuse. */
SP_MUST_CHECK sp_status sp_variant_choose(const sp_variant_table *table, const void *problem, int *index);

/* Fails if SP_CPU is set to a name that it cannot have (then no feature is taken away). */
SP_MUST_CHECK sp_status sp_cpu_check(void);

#endif
