/* The table of matrix products, best first, and the choice from it. */
#include "layers/matmul.h"

#include <stddef.h>
#include <string.h>

#include "layers/layers.h"
#include "softpick/device.h"

static const sp_matmul_row rows[] = {
#if SP_WITH_ONEDNN
    {{"onednn", 0, NULL}, sp_matmul_onednn},
#endif
    {{"plain", 0, NULL}, sp_matmul_plain},
};

const sp_variant_table sp_matmul_table = {
    .variable = "SP_MATMUL", .rows = rows, .row_bytes = sizeof *rows, .n_rows = sizeof rows / sizeof *rows};

sp_status sp_matmul_run(const sp_product *product) {
    int index;
    SP_TRY(sp_variant_choose(&sp_matmul_table, product, &index));
    return rows[index].run(product);
}

const char *sp_matmul_variant(sp_dtype act) {
    sp_product product = {.a = {.dtype = act}, .b = {.dtype = act}, .c_dtype = act};
    int index;
    bool known = act == SP_DTYPE_F32 || act == SP_DTYPE_BF16;
    if (!known || sp_variant_choose(&sp_matmul_table, &product, &index) != SP_OK) return NULL;
    return rows[index].variant.name;
}

bool sp_matmul_bf16_pays(void) {
    const char *name = sp_matmul_variant(SP_DTYPE_BF16);
    bool multiplies = (sp_cpu_features() & (SP_CPU_AVX512_BF16 | SP_CPU_AMX_BF16)) != 0;
    return multiplies && name && strcmp(name, "plain") != 0; /* our plain loops widen bf16 to f32 */
}
