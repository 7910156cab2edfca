/* Documents out of data files: JSON lines or one JSON list, plain or compressed. */
#ifndef SP_EVALUATE_DOCUMENT_H
#define SP_EVALUATE_DOCUMENT_H

#include "evaluate/task.h"

/* Reads the file that `file` of `task` names, found at `path`, in the folder `data`.  Messages name the file and
 * line. */
SP_MUST_CHECK sp_status sp_documents_read(sp_documents *documents, const sp_task *task, const sp_task_file *file,
                                          const char *path, const char *data);
/* All bytes of a file, decompressed, with a 0 after them; caller frees. */
SP_MUST_CHECK sp_status sp_data_read(char **text, int64_t *n_bytes, const char *path);
/* The same of a file that must be UTF-8 without zero bytes. */
SP_MUST_CHECK sp_status sp_data_read_text(char **text, int64_t *n_bytes, const char *path);

#endif
