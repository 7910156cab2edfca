/* Tensors of other libraries (PyTorch, NumPy, JAX, CuPy, ...) by way of DLPack, without a copy.
 * Not part of softpick.h: this header alone includes <dlpack/dlpack.h>, which comes from whoever uses it (any version;
 * Debian's libdlpack-dev).  The library itself does not need it.  Stable: may only grow. */
#ifndef SOFTPICK_DLPACK_H
#define SOFTPICK_DLPACK_H

#include <dlpack/dlpack.h>

#include "softpick/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A view of the tensor's numbers: valid as long as they are there, and nothing here calls a deleter.
 *   out      overwritten; all zero after a failure
 *   tensor   the dl_tensor of a DLManagedTensor, or of a DLManagedTensorVersioned of major version 1; of one marked
 *            read-only, the view may be read alone
 * Taken are the dtypes of sp_dtype with one lane, up to SP_MAX_DIMS dimensions, any strides (NULL: row-major), host
 * memory (page-locked too) and CUDA devices.  All else is SP_UNSUPPORTED; what no DLTensor can be, SP_BAD_ARGUMENT. */
SP_API SP_MUST_CHECK sp_status sp_tensor_from_dlpack(sp_tensor *out, const DLTensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
