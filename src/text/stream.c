/* Files, standard input, gzip and zstd behind one read call.
 *
 * file descriptor --pread--> input buffer --codec--> caller's buffer.  A codec is a row of the table below;
 * the row without magic copies.  Reading by position lets several streams share the descriptor of standard
 * input. */
#define _GNU_SOURCE
#include "text/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <threads.h>
#include <unistd.h>
#if SP_WITH_ZLIB
#include <zlib.h>
#endif
#if SP_WITH_ZSTD
#include <zstd.h>
#endif

enum { INPUT_BYTES = 1 << 17 };

typedef struct codec codec;

struct sp_stream {
    const codec *codec;
    void *state;     /* of the codec */
    bool frame_open; /* the codec has begun a frame that has not ended: the file may not end here */
    int descriptor;
    bool owns_descriptor;
    int64_t position; /* of the next byte in the file */
    int64_t at, end;  /* unread bytes of `input` */
    bool ended;       /* the file has no more than what is in `input` */
    char *name;
    uint8_t input[INPUT_BYTES];
};

struct codec {
    const char *name;
    const char *suffix;
    uint8_t magic[4];
    int64_t n_magic;
    bool present; /* in this build */
    sp_status (*begin)(sp_stream *stream);
    /* Turns bytes of `input` into at most `capacity` bytes; may give none as long as input remains or is
     * taken. */
    sp_status (*decode)(sp_stream *stream, uint8_t *out, int64_t capacity, int64_t *n_bytes);
    void (*end)(sp_stream *stream);
};

/* ---- the codecs ---- */

static sp_status begin_plain(sp_stream *stream) {
    (void)stream;
    return SP_OK;
}

static sp_status decode_plain(sp_stream *stream, uint8_t *out, int64_t capacity, int64_t *n_bytes) {
    int64_t n = stream->end - stream->at;
    *n_bytes = n < capacity ? n : capacity;
    memcpy(out, stream->input + stream->at, (size_t)*n_bytes);
    stream->at += *n_bytes;
    return SP_OK;
}

static void end_plain(sp_stream *stream) { (void)stream; }

#if SP_WITH_ZLIB
static sp_status begin_gzip(sp_stream *stream) {
    z_stream *state = calloc(1, sizeof *state);
    /* 15 + 16: the largest window, gzip's header alone */
    if (!state || inflateInit2(state, 15 + 16) != Z_OK) {
        free(state);
        return sp_fail(SP_OUT_OF_MEMORY, "%s: no memory to decompress it", stream->name);
    }
    stream->state = state;
    return SP_OK;
}

static sp_status decode_gzip(sp_stream *stream, uint8_t *out, int64_t capacity, int64_t *n_bytes) {
    z_stream *state = stream->state;
    int64_t room = capacity < INPUT_BYTES ? capacity : INPUT_BYTES; /* zlib counts in 32 bits */
    state->next_in = stream->input + stream->at;
    state->avail_in = (uInt)(stream->end - stream->at);
    state->next_out = out;
    state->avail_out = (uInt)room;
    int result = inflate(state, Z_NO_FLUSH);
    stream->at = stream->end - (int64_t)state->avail_in;
    *n_bytes = room - (int64_t)state->avail_out;
    SP_REQUIRE(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, SP_BAD_FILE,
               "%s: damaged gzip data (%s)", stream->name, state->msg ? state->msg : zError(result));
    stream->frame_open = result != Z_STREAM_END;
    if (!stream->frame_open) inflateReset(state); /* a file may hold several members */
    return SP_OK;
}

static void end_gzip(sp_stream *stream) {
    if (stream->state) inflateEnd(stream->state);
    free(stream->state);
}
#endif

#if SP_WITH_ZSTD
static sp_status begin_zstd(sp_stream *stream) {
    stream->state = ZSTD_createDStream();
    SP_REQUIRE(stream->state, SP_OUT_OF_MEMORY, "%s: no memory to decompress it", stream->name);
    return SP_OK;
}

static sp_status decode_zstd(sp_stream *stream, uint8_t *out, int64_t capacity, int64_t *n_bytes) {
    ZSTD_inBuffer from = {stream->input, (size_t)stream->end, (size_t)stream->at};
    ZSTD_outBuffer to = {out, (size_t)capacity, 0};
    size_t result = ZSTD_decompressStream(stream->state, &to, &from);
    SP_REQUIRE(!ZSTD_isError(result), SP_BAD_FILE, "%s: damaged zstd data (%s)", stream->name,
               ZSTD_getErrorName(result));
    stream->at = (int64_t)from.pos;
    stream->frame_open = result != 0;
    *n_bytes = (int64_t)to.pos;
    return SP_OK;
}

static void end_zstd(sp_stream *stream) { ZSTD_freeDStream(stream->state); }
#endif

static const codec codecs[] = {
#if SP_WITH_ZLIB
    {"gzip", ".gz", {0x1f, 0x8b}, 2, true, begin_gzip, decode_gzip, end_gzip},
#else
    {"gzip", ".gz", {0x1f, 0x8b}, 2, false, NULL, NULL, NULL},
#endif
#if SP_WITH_ZSTD
    {"zstd", ".zst", {0x28, 0xb5, 0x2f, 0xfd}, 4, true, begin_zstd, decode_zstd, end_zstd},
#else
    {"zstd", ".zst", {0x28, 0xb5, 0x2f, 0xfd}, 4, false, NULL, NULL, NULL},
#endif
    {"plain", "", {0}, 0, true, begin_plain, decode_plain, end_plain},
};
enum { N_CODECS = sizeof codecs / sizeof *codecs };

/* ---- standard input ---- */

/* Standard input belongs to the process, and so does its copy. */
static once_flag input_once = ONCE_FLAG_INIT;
static struct {
    int descriptor; /* -1: failed */
    int64_t start;
    char problem[256];
} input_copy = {.descriptor = -1};

static int open_unnamed(void) {
    const char *folder = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/softpick-XXXXXX", folder && *folder ? folder : "/tmp");
    int descriptor = mkostemp(path, O_CLOEXEC);
    if (descriptor >= 0) unlink(path);
    return descriptor;
}

static bool copy_all(int from, int to) {
    static uint8_t block[1 << 16]; /* run once: no sharing */
    for (;;) {
        ssize_t n = read(from, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n == 0;
        for (ssize_t done = 0; done < n;) {
            ssize_t written = write(to, block + done, (size_t)(n - done));
            if (written < 0 && errno != EINTR) return false;
            if (written > 0) done += written;
        }
    }
}

static void keep_input(void) {
    struct stat facts;
    if (fstat(STDIN_FILENO, &facts) == 0 && S_ISREG(facts.st_mode)) {
        input_copy.start = lseek(STDIN_FILENO, 0, SEEK_CUR);
        input_copy.descriptor = STDIN_FILENO;
        return;
    }
    int descriptor = open_unnamed();
    if (descriptor >= 0 && copy_all(STDIN_FILENO, descriptor)) {
        input_copy.descriptor = descriptor;
        return;
    }
    snprintf(input_copy.problem, sizeof input_copy.problem, "cannot be copied to a temporary file: %s",
             strerror(errno));
    if (descriptor >= 0) close(descriptor);
}

/* ---- the stream ---- */

static sp_status fill_input(sp_stream *stream) {
    stream->at = 0;
    stream->end = 0;
    while (stream->end < INPUT_BYTES && !stream->ended) {
        ssize_t n = pread(stream->descriptor, stream->input + stream->end, (size_t)(INPUT_BYTES - stream->end),
                          stream->position);
        if (n < 0 && errno == EINTR) continue;
        SP_REQUIRE(n >= 0, SP_IO, "%s: %s", stream->name, strerror(errno));
        stream->ended = n == 0;
        stream->end += n;
        stream->position += n;
    }
    return SP_OK;
}

static sp_status open_descriptor(sp_stream *stream, const char *path) {
    if (strcmp(path, "-") == 0) {
        call_once(&input_once, keep_input);
        SP_REQUIRE(input_copy.descriptor >= 0, SP_IO, "standard input: %s", input_copy.problem);
        stream->descriptor = input_copy.descriptor;
        stream->position = input_copy.start;
        return SP_OK;
    }
    stream->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    SP_REQUIRE(stream->descriptor >= 0, SP_IO, "%s: %s", path, strerror(errno));
    stream->owns_descriptor = true;
    struct stat facts;
    SP_REQUIRE(fstat(stream->descriptor, &facts) == 0, SP_IO, "%s: %s", path, strerror(errno));
    SP_REQUIRE(S_ISREG(facts.st_mode), SP_IO, "%s: not a regular file (for a pipe, use - and standard input)", path);
    return SP_OK;
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), n_suffix = strlen(suffix);
    return n >= n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static sp_status choose_codec(sp_stream *stream) {
    const codec *row = codecs;
    while (stream->end < row->n_magic || memcmp(stream->input, row->magic, (size_t)row->n_magic) != 0) row++;
    for (const codec *named = codecs; named->n_magic; named++)
        SP_REQUIRE(row == named || stream->end == 0 || !has_suffix(stream->name, named->suffix), SP_BAD_FILE,
                   "%s: not %s data, which its name promises", stream->name, named->name);
    SP_REQUIRE(row->present, SP_UNSUPPORTED, "%s: this build reads no %s data", stream->name, row->name);
    SP_TRY(row->begin(stream));
    stream->codec = row;
    return SP_OK;
}

sp_status sp_stream_open(sp_stream **out, const char *path) {
    *out = NULL;
    sp_stream *stream = calloc(1, sizeof *stream);
    SP_REQUIRE(stream, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
    sp_status status = SP_OK;
    stream->descriptor = -1;
    stream->name = strdup(strcmp(path, "-") == 0 ? "standard input" : path);
    SP_REQUIRE_OR_DONE(stream->name, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
    SP_TRY_OR_DONE(open_descriptor(stream, path));
    SP_TRY_OR_DONE(fill_input(stream));
    SP_TRY_OR_DONE(choose_codec(stream));
    *out = stream;
    stream = NULL;
done:
    sp_stream_close(stream);
    return status;
}

sp_status sp_stream_read(sp_stream *stream, void *buffer, int64_t capacity, int64_t *n_bytes) {
    *n_bytes = 0;
    while (*n_bytes == 0) {
        if (stream->at == stream->end && !stream->ended) SP_TRY(fill_input(stream));
        int64_t left = stream->end - stream->at;
        if (left == 0 && !stream->frame_open) return SP_OK;
        SP_TRY(stream->codec->decode(stream, buffer, capacity, n_bytes));
        bool stuck = *n_bytes == 0 && stream->end - stream->at == left && stream->ended;
        SP_REQUIRE(!stuck || !stream->frame_open, SP_BAD_FILE, "%s: cut short: its %s data does not end", stream->name,
                   stream->codec->name);
    }
    return SP_OK;
}

void sp_stream_close(sp_stream *stream) {
    if (!stream) return;
    if (stream->codec) stream->codec->end(stream);
    if (stream->owns_descriptor) close(stream->descriptor);
    free(stream->name);
    free(stream);
}
