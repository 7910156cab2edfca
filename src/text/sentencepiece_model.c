/* The protobuf message of a sentencepiece model, walked field by field (sentencepiece_model.proto): a field is a number
 * with a wire type, then a varint, 4 or 8 bytes, or a length and as many bytes.  Fields that are not named here are
 * stepped over; of a field that may stand once the last one counts. */
#include "text/sentencepiece_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

typedef struct reader {
    const uint8_t *at, *end;
} reader;

enum { VARINT = 0, FIXED_64 = 1, BYTES = 2, FIXED_32 = 5 };

typedef struct field {
    int64_t number;
    int wire;
    uint64_t value; /* VARINT, FIXED_* */
    reader bytes;   /* BYTES */
} field;

/* ---- the wire format ---- */

static bool read_varint(reader *in, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool read_fixed(reader *in, int n_bytes, uint64_t *value) {
    if (in->end - in->at < n_bytes) return false;
    *value = 0;
    for (int i = 0; i < n_bytes; i++) *value |= (uint64_t)in->at[i] << 8 * i;
    in->at += n_bytes;
    return true;
}

static bool read_bytes(reader *in, reader *bytes) {
    uint64_t n;
    if (!read_varint(in, &n) || n > (uint64_t)(in->end - in->at)) return false;
    *bytes = (reader){in->at, in->at + n};
    in->at += n;
    return true;
}

static bool read_field(reader *in, field *f) {
    uint64_t key;
    if (!read_varint(in, &key) || key >> 3 == 0 || key >> 3 >= 1 << 29) return false;
    *f = (field){.number = (int64_t)(key >> 3), .wire = (int)(key & 7)};
    switch (f->wire) {
    case VARINT: return read_varint(in, &f->value);
    case FIXED_64: return read_fixed(in, 8, &f->value);
    case BYTES: return read_bytes(in, &f->bytes);
    case FIXED_32: return read_fixed(in, 4, &f->value);
    default: return false;
    }
}

/* ---- the messages ---- */

typedef struct model_reader {
    sp_sentencepiece_facts *facts;
    const char *source;
} model_reader;

static sp_status damaged(const model_reader *model, const char *what) {
    return sp_fail(SP_BAD_FILE, "%s: not a sentencepiece model: %s", model->source, what);
}

static sp_status read_piece(const model_reader *model, reader in) {
    sp_sentencepiece_facts *facts = model->facts;
    if (facts->n_pieces == facts->capacity) {
        int64_t capacity = 2 * facts->capacity + 256;
        sp_piece *pieces = realloc(facts->pieces, (size_t)capacity * sizeof *pieces);
        SP_REQUIRE(pieces, SP_OUT_OF_MEMORY, "%s: no memory for %" PRId64 " pieces", model->source, capacity);
        facts->pieces = pieces;
        facts->capacity = capacity;
    }
    sp_piece *piece = &facts->pieces[facts->n_pieces++];
    *piece = (sp_piece){.text = "", .type = SP_PIECE_NORMAL};
    for (field f; in.at < in.end;) {
        if (!read_field(&in, &f)) return damaged(model, "a piece is cut short");
        if (f.number == 1 && f.wire == BYTES) {
            piece->text = (const char *)f.bytes.at;
            piece->n_bytes = f.bytes.end - f.bytes.at;
        } else if (f.number == 2 && f.wire == FIXED_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece->score, &bits, sizeof bits);
        } else if (f.number == 3 && f.wire == VARINT) {
            SP_REQUIRE(f.value >= SP_PIECE_NORMAL && f.value <= SP_PIECE_BYTE, SP_BAD_FILE,
                       "%s: piece %" PRId64 " has type %" PRIu64 ", which is not known", model->source,
                       facts->n_pieces - 1, f.value);
            piece->type = (sp_piece_type)f.value;
        }
    }
    SP_REQUIRE(isfinite(piece->score), SP_BAD_FILE, "%s: the score of piece %" PRId64 " is not finite", model->source,
               facts->n_pieces - 1);
    SP_REQUIRE(piece->n_bytes > 0, SP_BAD_FILE, "%s: piece %" PRId64 " is empty", model->source, facts->n_pieces - 1);
    SP_REQUIRE(sp_utf8_prefix(piece->text, piece->n_bytes) == piece->n_bytes, SP_BAD_FILE,
               "%s: piece %" PRId64 " is not UTF-8", model->source, facts->n_pieces - 1);
    return SP_OK;
}

static sp_status read_trainer(const model_reader *model, reader in) {
    sp_sentencepiece_facts *facts = model->facts;
    for (field f; in.at < in.end;) {
        if (!read_field(&in, &f)) return damaged(model, "the trainer's part is cut short");
        if (f.wire == BYTES && f.number == 44) {
            facts->unk_surface = (const char *)f.bytes.at;
            facts->n_unk_surface = f.bytes.end - f.bytes.at;
        }
        if (f.wire != VARINT) continue;
        int64_t id = (int32_t)f.value; /* negative ones are written as 64 bits */
        switch (f.number) {
        case 3: facts->algorithm = (int64_t)f.value; break;
        case 35: facts->byte_fallback = f.value != 0; break;
        case 40: facts->unk = id; break;
        case 41: facts->bos = id; break;
        case 42: facts->eos = id; break;
        case 43: facts->pad = id; break;
        default: break;
        }
    }
    return SP_OK;
}

static uint32_t unit_at(const uint8_t *units, uint32_t i) {
    return (uint32_t)units[4 * i] | (uint32_t)units[4 * i + 1] << 8 | (uint32_t)units[4 * i + 2] << 16 |
           (uint32_t)units[4 * i + 3] << 24;
}

/* The rules: bytes of a double-array trie, the trie, and the strings, each with a 0 behind it, that it leads to.  A unit
 * of the trie is a value (bit 31), or says where its children lie: at its own place ^ offset ^ the next byte of the text,
 * with its value, if it has one (bit 8), at byte 0. */
static bool rules_stay_inside(reader in) {
    uint64_t n_bytes;
    if (in.at == in.end) return true;
    if (!read_fixed(&in, 4, &n_bytes) || n_bytes % 4 != 0 || n_bytes == 0 || n_bytes >= (uint64_t)(in.end - in.at))
        return false;
    uint32_t n_units = (uint32_t)(n_bytes / 4), n_strings = (uint32_t)(in.end - in.at - (int64_t)n_bytes);
    if (in.end[-1] != 0) return false;
    for (uint32_t i = 0; i < n_units; i++) {
        uint32_t unit = unit_at(in.at, i), children = i ^ (unit >> 10 << ((unit >> 6) & 8));
        if (i > 0 && unit >> 31) continue; /* nothing leads to a value but the bit that says so; all begins at unit 0 */
        if ((children | 0xff) >= n_units) return false;
        if ((unit >> 8 & 1) && (unit_at(in.at, children) & 0x7fffffff) >= n_strings) return false;
    }
    return true;
}

static sp_status read_normalizer(const model_reader *model, reader in, bool denormalizer) {
    sp_sentencepiece_facts *facts = model->facts;
    for (field f; in.at < in.end;) {
        if (!read_field(&in, &f)) return damaged(model, "the normalizer's part is cut short");
        if (f.number == 2 && f.wire == BYTES && !rules_stay_inside(f.bytes))
            return damaged(model, "its rules for rewriting text are damaged");
        if (f.number == 2 && f.wire == BYTES)
            *(denormalizer ? &facts->n_denormalizer : &facts->n_charsmap) = f.bytes.end - f.bytes.at;
        if (f.wire != VARINT || denormalizer) continue;
        if (f.number == 3) facts->add_dummy_prefix = f.value != 0;
        if (f.number == 4) facts->remove_extra_whitespaces = f.value != 0;
        if (f.number == 5) facts->escape_whitespaces = f.value != 0;
    }
    return SP_OK;
}

static sp_status read_model(const model_reader *model, reader in) {
    for (field f; in.at < in.end;) {
        if (!read_field(&in, &f)) return damaged(model, "it is cut short or damaged");
        if (f.wire != BYTES) continue;
        switch (f.number) {
        case 1: SP_TRY(read_piece(model, f.bytes)); break;
        case 2: SP_TRY(read_trainer(model, f.bytes)); break;
        case 3: SP_TRY(read_normalizer(model, f.bytes, false)); break;
        case 5: SP_TRY(read_normalizer(model, f.bytes, true)); break;
        default: break;
        }
    }
    const sp_sentencepiece_facts *facts = model->facts;
    if (facts->n_pieces == 0) return damaged(model, "it has no pieces");
    SP_REQUIRE(facts->algorithm >= SP_SENTENCEPIECE_UNIGRAM && facts->algorithm <= SP_SENTENCEPIECE_CHAR, SP_BAD_FILE,
               "%s: model type %" PRId64 " is not known", model->source, facts->algorithm);
    return SP_OK;
}

sp_status sp_sentencepiece_facts_read(sp_sentencepiece_facts *facts, const void *bytes, int64_t n_bytes,
                                      const char *source) {
    static const char unk_surface[] = " \xe2\x81\x87 ";
    *facts = (sp_sentencepiece_facts){
        .algorithm = SP_SENTENCEPIECE_UNIGRAM,
        .add_dummy_prefix = true,
        .remove_extra_whitespaces = true,
        .escape_whitespaces = true,
        .unk_surface = unk_surface,
        .n_unk_surface = sizeof unk_surface - 1,
        .unk = 0,
        .bos = 1,
        .eos = 2,
        .pad = -1,
    };
    model_reader model = {facts, source};
    const uint8_t *begin = bytes;
    sp_status status = read_model(&model, (reader){begin, begin + n_bytes});
    if (status != SP_OK) sp_sentencepiece_facts_free(facts);
    return status;
}

void sp_sentencepiece_facts_free(sp_sentencepiece_facts *facts) {
    free(facts->pieces);
    *facts = (sp_sentencepiece_facts){0};
}
