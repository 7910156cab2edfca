/* The table of matrix product variants, best first, and the choice from it: the first that accepts, or the
 * one that the environment variable SP_MATMUL names, or a failure. */
#include "layers/matmul.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "layers/features.h"
#include "layers/layers.h"

static const sp_product_variant variants[] = {
#if SP_WITH_ONEDNN
    {"onednn", sp_matmul_onednn_accepts, sp_matmul_onednn_run},
#endif
    {"plain", sp_matmul_plain_accepts, sp_matmul_plain_run},
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

const sp_product_variant *sp_product_variant_at(int i) { return i >= 0 && i < N_VARIANTS ? &variants[i] : NULL; }

static const sp_product_variant *variant_of(sp_dtype inputs) {
    const char *forced = getenv("SP_MATMUL");
    for (int i = 0; i < N_VARIANTS; i++)
        if ((!forced || strcmp(forced, variants[i].name) == 0) && variants[i].accepts(inputs)) return &variants[i];
    return NULL;
}

sp_status sp_matmul_run(const sp_product *product) {
    const sp_product_variant *variant = variant_of(product->a.dtype);
    SP_REQUIRE(variant, SP_UNSUPPORTED, "no matrix product of %s in this build takes SP_MATMUL=%s",
               sp_dtype_name(product->a.dtype), getenv("SP_MATMUL") ? getenv("SP_MATMUL") : "(any)");
    return variant->run(product);
}

const char *sp_matmul_variant(sp_dtype act) {
    const sp_product_variant *variant = variant_of(act);
    return variant ? variant->name : NULL;
}

bool sp_matmul_bf16_pays(void) { return (sp_layers_features() & (SP_CPU_AVX512_BF16 | SP_CPU_AMX_BF16)) != 0; }
