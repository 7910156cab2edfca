/* Choice of a variant from a table: features first, then the row's own refusals, then the environment's word. */
#include "device/variant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softpick/device.h"

static _Thread_local char reason[160];

const sp_variant *sp_variant_at(const sp_variant_table *table, int i) {
    return (const sp_variant *)(const void *)((const char *)table->rows + (size_t)i * table->row_bytes);
}

/* Names the first feature of `missing`. */
static const char *missing_feature(uint32_t missing) {
    const char *name;
    uint32_t bit;
    for (int i = 0; sp_cpu_feature_at(i, &name, &bit); i++)
        if (missing & bit) {
            snprintf(reason, sizeof reason, "the CPU has no %s, or SP_CPU takes it away", name);
            return reason;
        }
    return "the CPU lacks a feature";
}

bool sp_variant_takes(const sp_variant_table *table, int i, const void *problem, const char **why) {
    const sp_variant *row = sp_variant_at(table, i);
    *why = "";
    uint32_t missing = row->needs & ~sp_cpu_features();
    if (missing) {
        *why = missing_feature(missing);
        return false;
    }
    return !row->accepts || row->accepts(problem, why);
}

static sp_status choose_named(const sp_variant_table *table, const char *name, const void *problem, int *index) {
    const char *why;
    for (int i = 0; i < table->n_rows; i++) {
        if (strcmp(sp_variant_at(table, i)->name, name) != 0) continue;
        SP_REQUIRE(sp_variant_takes(table, i, problem, &why), SP_UNSUPPORTED, "%s=%s: this variant refuses: %s",
                   table->variable, name, why);
        *index = i;
        return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "%s=%s: there is no variant of that name", table->variable, name);
}

const char *sp_variant_named(const sp_variant_table *table) {
    const char *name = getenv(table->variable);
    return name && *name ? name : NULL;
}

sp_status sp_variant_choose(const sp_variant_table *table, const void *problem, int *index) {
    *index = -1;
    SP_TRY(sp_cpu_check());
    const char *forced = sp_variant_named(table), *why = "the table is empty";
    if (forced) return choose_named(table, forced, problem, index);
    for (int i = 0; i < table->n_rows; i++)
        if (sp_variant_takes(table, i, problem, &why)) {
            *index = i;
            return SP_OK;
        }
    return sp_fail(SP_UNSUPPORTED, "no variant takes this problem; the last says: %s", why);
}
