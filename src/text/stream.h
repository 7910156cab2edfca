/* The bytes of a file or of standard input, decompressed on the way.  What the bytes mean: corpus.c. */
#ifndef SP_TEXT_STREAM_H
#define SP_TEXT_STREAM_H

#include <stdint.h>

#include "base/status.h"

typedef struct sp_stream sp_stream;

/* `path`: a regular file, or "-".  Compression is told by the first bytes, not by the name; but a file that
 * is named .gz or .zst must be one.  Standard input may be opened many times: a pipe is copied once into an
 * unnamed temporary file (in $TMPDIR), since a corpus is read more than once. */
SP_MUST_CHECK sp_status sp_stream_open(sp_stream **out, const char *path);
/* Fills at most `capacity` bytes; *n_bytes = 0 at the end alone. */
SP_MUST_CHECK sp_status sp_stream_read(sp_stream *stream, void *buffer, int64_t capacity, int64_t *n_bytes);
void sp_stream_close(sp_stream *stream);

#endif
