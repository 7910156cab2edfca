/* Matrix products by cuBLASLt; no other file knows it.
 *
 * The library is not linked but opened at the first product: the same program runs where there is none.  For each shape
 * cuBLASLt is asked once which algorithm it would take, and the answer is kept: nothing is timed, so the same program on
 * the same machine multiplies to the same bits.  Sums that are split over blocks are put together in f32 and in order. */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>

#include "device/cuda_check.cuh"

extern "C" {
#include "layers/cuda/kept_cuda.h"
#include "layers/cuda/matmul_cublaslt.h"
}

/* All that an algorithm is chosen by; words without gaps, so that keys compare as bytes. */
struct shape {
    int64_t m, n, k, a_stride, b_stride, c_stride, d_stride;
    int64_t a_transposed, b_transposed, adds, d_dtype;
    int64_t a_alignment, b_alignment, c_alignment, d_alignment; /* bytes, up to 256 */
};

/* What is kept for a shape. */
struct plan {
    shape key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c, d;
    cublasLtMatmulAlgo_t algorithm;
};

static const int64_t N_PLANS = 256;

struct sp_cublaslt {
    void *file; /* of dlopen */
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtGetStatusString) status_string;
    decltype(&cublasLtMatmul) matmul;
    decltype(&cublasLtMatmulDescCreate) operation_create;
    decltype(&cublasLtMatmulDescDestroy) operation_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) operation_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    cublasLtHandle_t handle;
    void *workspace;
    bool is_hopper;
    int n_multiprocessors;
    int64_t n_made; /* plan i of all that were made stands at i % N_PLANS */
    plan plans[N_PLANS];
};

/* ---- the library ---- */

static const char *const FILES[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                                    "/usr/local/cuda/lib64/libcublasLt.so"};

static sp_status open_file(sp_cublaslt *lt) {
    for (const char *file : FILES) {
        lt->file = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        if (lt->file) return SP_OK;
    }
    return sp_fail(SP_UNSUPPORTED,
                   "matrix products on a GPU need cuBLASLt of CUDA 12 or 13, which cannot be opened: %s", dlerror());
}

template <typename Function> static sp_status find(const sp_cublaslt *lt, Function *function, const char *name) {
    *function = (Function)dlsym(lt->file, name);
    SP_REQUIRE(*function, SP_UNSUPPORTED, "cuBLASLt has no function %s", name);
    return SP_OK;
}

static sp_status find_functions(sp_cublaslt *lt) {
    SP_TRY(find(lt, &lt->create, "cublasLtCreate"));
    SP_TRY(find(lt, &lt->destroy, "cublasLtDestroy"));
    SP_TRY(find(lt, &lt->status_string, "cublasLtGetStatusString"));
    SP_TRY(find(lt, &lt->matmul, "cublasLtMatmul"));
    SP_TRY(find(lt, &lt->operation_create, "cublasLtMatmulDescCreate"));
    SP_TRY(find(lt, &lt->operation_destroy, "cublasLtMatmulDescDestroy"));
    SP_TRY(find(lt, &lt->operation_set, "cublasLtMatmulDescSetAttribute"));
    SP_TRY(find(lt, &lt->layout_create, "cublasLtMatrixLayoutCreate"));
    SP_TRY(find(lt, &lt->layout_destroy, "cublasLtMatrixLayoutDestroy"));
    SP_TRY(find(lt, &lt->preference_create, "cublasLtMatmulPreferenceCreate"));
    SP_TRY(find(lt, &lt->preference_destroy, "cublasLtMatmulPreferenceDestroy"));
    SP_TRY(find(lt, &lt->preference_set, "cublasLtMatmulPreferenceSetAttribute"));
    SP_TRY(find(lt, &lt->heuristic, "cublasLtMatmulAlgoGetHeuristic"));
    return SP_OK;
}

static sp_status lt_status(const sp_cublaslt *lt, cublasStatus_t status, const char *call) {
    if (status == CUBLAS_STATUS_SUCCESS) return SP_OK;
    return sp_fail(status == CUBLAS_STATUS_ALLOC_FAILED ? SP_OUT_OF_MEMORY : SP_DEVICE_FAILED, "cuBLASLt: %s: %s", call,
                   lt->status_string(status));
}

#define LT_TRY(lt, call) SP_TRY(lt_status((lt), (lt)->call, #call))

static void plan_clear(sp_cublaslt *lt, plan *p) {
    if (p->operation) (void)lt->operation_destroy(p->operation);
    const cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c, p->d};
    for (cublasLtMatrixLayout_t layout : layouts)
        if (layout) (void)lt->layout_destroy(layout);
    *p = plan{};
}

extern "C" void sp_cublaslt_free(sp_cublaslt *lt) {
    if (!lt) return;
    for (plan &p : lt->plans) plan_clear(lt, &p);
    (void)cudaFree(lt->workspace);
    if (lt->handle) (void)lt->destroy(lt->handle);
    if (lt->file) dlclose(lt->file);
    free(lt);
}

static sp_status open_library(sp_device *device, sp_cublaslt *lt) {
    SP_TRY(open_file(lt));
    SP_TRY(find_functions(lt));
    SP_CUDA_TRY(cudaSetDevice(device->id - 1));
    int major;
    SP_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device->id - 1));
    lt->is_hopper = major == 9;
    lt->n_multiprocessors = device->n_multiprocessors;
    LT_TRY(lt, create(&lt->handle));
    return sp_device_allocate(device, &lt->workspace, SP_CUBLASLT_WORKSPACE_BYTES, "workspace of matrix products");
}

/* The device's library, opened by the first call. */
static sp_status library_of(sp_device *device, sp_cublaslt **out) {
    *out = NULL;
    sp_kept *kept;
    SP_TRY(sp_kept_of(device, &kept));
    if (!kept->products) {
        sp_cublaslt *lt = (sp_cublaslt *)calloc(1, sizeof *lt);
        SP_REQUIRE(lt, SP_OUT_OF_MEMORY, "no memory for the plans of matrix products");
        sp_status status = open_library(device, lt);
        if (status != SP_OK) {
            sp_cublaslt_free(lt);
            return status;
        }
        kept->products = lt;
    }
    *out = kept->products;
    return SP_OK;
}

/* ---- plans ---- */

/* The largest power of two, up to 256, that divides the address. */
static int64_t alignment_of(const void *data) {
    uintptr_t bits = (uintptr_t)data | 256;
    return (int64_t)(bits & (~bits + 1));
}

static shape shape_of(const sp_cublaslt_product *p) {
    const void *c = p->c ? p->c : p->d; /* cuBLASLt wants one described even where it is not read */
    return shape{p->m,
                 p->n,
                 p->k,
                 p->a_stride,
                 p->b_stride,
                 p->c ? p->c_stride : p->d_stride,
                 p->d_stride,
                 p->a_transposed,
                 p->b_transposed,
                 p->c != NULL,
                 p->d_dtype,
                 alignment_of(p->a),
                 alignment_of(p->b),
                 alignment_of(c),
                 alignment_of(p->d)};
}

/* `rows` x `columns` as it lies in memory. */
static sp_status layout(sp_cublaslt *lt, cublasLtMatrixLayout_t *out, cudaDataType_t type, int64_t rows,
                        int64_t columns, bool transposed, int64_t stride) {
    LT_TRY(lt, layout_create(out, type, (uint64_t)(transposed ? columns : rows),
                             (uint64_t)(transposed ? rows : columns), stride));
    return SP_OK;
}

static sp_status describe(sp_cublaslt *lt, plan *p) {
    const shape &s = p->key;
    cudaDataType_t type = s.d_dtype == SP_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t a = s.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, b = s.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_TRY(lt, operation_create(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT_TRY(lt, operation_set(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    LT_TRY(lt, operation_set(p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    SP_TRY(layout(lt, &p->a, CUDA_R_16BF, s.m, s.k, s.a_transposed, s.a_stride));
    SP_TRY(layout(lt, &p->b, CUDA_R_16BF, s.k, s.n, s.b_transposed, s.b_stride));
    SP_TRY(layout(lt, &p->c, type, s.m, s.n, false, s.c_stride));
    return layout(lt, &p->d, type, s.m, s.n, false, s.d_stride);
}

static sp_status set_preferences(sp_cublaslt *lt, cublasLtMatmulPreference_t preference, const shape &s) {
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t value;
    } words[] = {
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)s.a_alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)s.b_alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)s.c_alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)s.d_alignment},
    };
    for (const auto &word : words)
        LT_TRY(lt, preference_set(preference, word.attribute, &word.value, sizeof word.value));
    uint64_t bytes = SP_CUBLASLT_WORKSPACE_BYTES;
    LT_TRY(lt, preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes));
    return SP_OK;
}

/* Numbers of the result in a tile, about: m n over the number of tiles, from the waves of tiles over all
 * multiprocessors; with split sums, numbers per part. */
static double tile_of(const sp_cublaslt *lt, const cublasLtMatmulHeuristicResult_t *suggestion, const shape &s) {
    return (double)s.m * (double)s.n / ((double)suggestion->wavesCount * lt->n_multiprocessors);
}

/* Which of cuBLASLt's suggestions to take: the first, its own choice, but for what was measured on Hopper, with 13.1
 * (docs/speed-log.md).  There kernels whose tiles are 128 x 128 to 128 x 176, of which a multiprocessor writes one while
 * it sums up the next, are up to 1.17 times as fast (adding a residual, 1.5 times), although they are suggested late; the
 * last of them is the best.  Not in products of a matrix by columns, where sums are long and writing weighs little. */
static int pick(const sp_cublaslt *lt, const cublasLtMatmulHeuristicResult_t *suggestions, int n, const shape &s) {
    const double smallest = 128 * 128 * 0.96, largest = 128 * 176 * 1.02;
    const int64_t short_sum = 4096;
    if (!lt->is_hopper || s.b_transposed || (!s.a_transposed && s.k > short_sum)) return 0;
    for (int i = n - 1; i > 0; i--) {
        double tile = tile_of(lt, &suggestions[i], s);
        if (tile >= smallest && tile <= largest) return i;
    }
    return 0;
}

static sp_status choose(sp_cublaslt *lt, plan *p) {
    enum { N_SUGGESTIONS = 8 };
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t suggestions[N_SUGGESTIONS];
    int n = 0;
    LT_TRY(lt, preference_create(&preference));
    sp_status status = set_preferences(lt, preference, p->key);
    if (status == SP_OK)
        status = lt_status(
            lt,
            lt->heuristic(lt->handle, p->operation, p->a, p->b, p->c, p->d, preference, N_SUGGESTIONS, suggestions, &n),
            "heuristic");
    (void)lt->preference_destroy(preference);
    SP_TRY(status);
    SP_REQUIRE(n > 0, SP_UNSUPPORTED,
               "cuBLASLt has no algorithm for a product of %" PRId64 " x %" PRId64 " by %" PRId64 " x %" PRId64,
               p->key.m, p->key.k, p->key.k, p->key.n);
    p->algorithm = suggestions[pick(lt, suggestions, n, p->key)].algo;
    return SP_OK;
}

/* The plan of a shape: kept, or made in place of the oldest. */
static sp_status plan_of(sp_cublaslt *lt, const shape &key, plan **out) {
    *out = NULL;
    int64_t n_kept = lt->n_made < N_PLANS ? lt->n_made : N_PLANS;
    for (int64_t i = 0; i < n_kept; i++)
        if (memcmp(&lt->plans[i].key, &key, sizeof key) == 0) {
            *out = &lt->plans[i];
            return SP_OK;
        }
    plan *p = &lt->plans[lt->n_made % N_PLANS];
    plan_clear(lt, p);
    p->key = key;
    sp_status status = describe(lt, p);
    if (status == SP_OK) status = choose(lt, p);
    if (status != SP_OK) {
        plan_clear(lt, p);
        return status;
    }
    lt->n_made++;
    *out = p;
    return SP_OK;
}

extern "C" sp_status sp_cublaslt_run(sp_device *device, const sp_cublaslt_product *product) {
    sp_cublaslt *lt;
    plan *p;
    SP_TRY(library_of(device, &lt));
    SP_TRY(plan_of(lt, shape_of(product), &p));
    const float alpha = 1.0f, beta = product->c ? 1.0f : 0.0f;
    LT_TRY(lt, matmul(lt->handle, p->operation, &alpha, product->a, p->a, product->b, p->b, &beta,
                      product->c ? product->c : product->d, p->c, product->d, p->d, &p->algorithm, lt->workspace,
                      SP_CUBLASLT_WORKSPACE_BYTES, (cudaStream_t)device->stream));
    return SP_OK;
}
