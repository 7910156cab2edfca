/* The table of dtypes that safetensors files may name. */
#include "checkpoint/safetensors_format.h"

#include <stddef.h>
#include <string.h>

static const sp_stored_dtype table[] = {
    {"F64", 64, SP_DTYPE_F64},
    {"F32", 32, SP_DTYPE_F32},
    {"F16", 16, SP_DTYPE_F16},
    {"BF16", 16, SP_DTYPE_BF16},
    {"F8_E4M3", 8, SP_DTYPE_F8_E4M3},
    {"F8_E5M2", 8, SP_DTYPE_F8_E5M2},
    {"I64", 64, SP_DTYPE_I64},
    {"I32", 32, SP_DTYPE_I32},
    {"I16", 16, SP_DTYPE_I16},
    {"I8", 8, SP_DTYPE_I8},
    {"U8", 8, SP_DTYPE_U8},
    {"BOOL", 8, SP_DTYPE_BOOL},
    {"C64", 64, SP_DTYPE_COUNT},
    {"U64", 64, SP_DTYPE_COUNT},
    {"U32", 32, SP_DTYPE_COUNT},
    {"U16", 16, SP_DTYPE_COUNT},
    {"F8_E8M0", 8, SP_DTYPE_COUNT},
    {"F8_E4M3FNUZ", 8, SP_DTYPE_COUNT},
    {"F8_E5M2FNUZ", 8, SP_DTYPE_COUNT},
    {"F6_E2M3", 6, SP_DTYPE_COUNT},
    {"F6_E3M2", 6, SP_DTYPE_COUNT},
    {"F4", 4, SP_DTYPE_COUNT},
};
enum { N_ROWS = sizeof table / sizeof *table };

const sp_stored_dtype *sp_stored_dtype_find(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

const sp_stored_dtype *sp_stored_dtype_of(sp_dtype dtype) {
    for (int i = 0; i < N_ROWS; i++)
        if (table[i].dtype == dtype && dtype != SP_DTYPE_COUNT) return &table[i];
    return NULL;
}
