/* A trie of bytes.  At each byte with which some token begins, the longest token that stands there is taken; then the
 * search goes on behind it, also when the token does not count there (single_word, special). */
#include "text/added_tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode_set.h"
#include "text/utf8.h"

/* Children of a node are a list through `sibling`; 0 is no node, as the root is nobody's child. */
typedef struct node {
    uint8_t byte;
    int32_t child, sibling;
    int32_t token; /* that ends here, -1: none */
} node;

struct sp_added_tokens {
    sp_added_token *tokens;
    int64_t n_tokens;
    node *nodes;
    int32_t n_nodes;
    int32_t first[256]; /* the root's children */
    sp_code_set words;  /* characters of words, where some token must stand alone */
};

/* ---- making ---- */

static int32_t find_child(const sp_added_tokens *set, int32_t at, uint8_t byte) {
    if (at == 0) return set->first[byte];
    int32_t child = set->nodes[at].child;
    while (child && set->nodes[child].byte != byte) child = set->nodes[child].sibling;
    return child;
}

static int32_t add_child(sp_added_tokens *set, int32_t at, uint8_t byte) {
    int32_t child = set->n_nodes++;
    set->nodes[child] = (node){.byte = byte, .token = -1};
    if (at == 0) {
        set->first[byte] = child;
    } else {
        set->nodes[child].sibling = set->nodes[at].child;
        set->nodes[at].child = child;
    }
    return child;
}

static void add_token(sp_added_tokens *set, int32_t index) {
    const sp_added_token *token = &set->tokens[index];
    int32_t at = 0;
    for (int64_t i = 0; i < token->n_bytes; i++) {
        uint8_t byte = (uint8_t)token->text[i];
        int32_t child = find_child(set, at, byte);
        at = child ? child : add_child(set, at, byte);
    }
    set->nodes[at].token = index;
    set->tokens[index].text = NULL; /* it is in the trie, and the caller's may go */
}

sp_status sp_added_tokens_new(sp_added_tokens **out, const sp_added_token *tokens, int64_t n) {
    *out = NULL;
    int64_t n_nodes = 1;
    for (int64_t i = 0; i < n; i++) n_nodes += tokens[i].n_bytes;
    SP_REQUIRE(n_nodes < INT32_MAX, SP_UNSUPPORTED, "the added tokens have %" PRId64 " bytes: too many", n_nodes);
    sp_added_tokens *set = calloc(1, sizeof *set);
    if (set) {
        set->tokens = malloc((size_t)(n + 1) * sizeof *set->tokens);
        set->nodes = malloc((size_t)n_nodes * sizeof *set->nodes);
    }
    if (!set || !set->tokens || !set->nodes) {
        sp_added_tokens_free(set);
        return sp_fail(SP_OUT_OF_MEMORY, "no memory for %" PRId64 " added tokens", n);
    }
    if (n > 0) memcpy(set->tokens, tokens, (size_t)n * sizeof *tokens);
    set->n_tokens = n;
    set->n_nodes = 1;
    bool known = true, alone = false;
    for (int32_t i = 0; i < n; i++) {
        add_token(set, i);
        alone |= tokens[i].single_word;
    }
    sp_status status = alone ? sp_code_set_add_named(&set->words, "rust word", 9, &known) : SP_OK;
    if (status == SP_OK && !known) status = sp_fail(SP_INTERNAL, "no set of characters is named 'rust word'");
    if (status == SP_OK)
        *out = set;
    else
        sp_added_tokens_free(set);
    return status;
}

void sp_added_tokens_free(sp_added_tokens *set) {
    if (!set) return;
    free(set->tokens);
    free(set->nodes);
    sp_code_set_free(&set->words);
    free(set);
}

/* ---- what stands around a token ---- */

static uint32_t character_at(const char *text, int64_t n_bytes) {
    uint32_t code;
    sp_utf8_read(text, n_bytes, &code);
    return code;
}

/* Bytes of the character that ends at `end` > 0. */
static int64_t bytes_before(const char *text, int64_t end) {
    int64_t n = 1;
    while (n < 4 && n < end && ((uint8_t)text[end - n] & 0xc0) == 0x80) n++;
    return n;
}

/* Unicode's White_Space. */
static bool is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool stands_alone(const sp_section_walk *walk, int64_t begin, int64_t end) {
    int64_t n = begin > 0 ? bytes_before(walk->text, begin) : 0;
    if (n > 0 && sp_code_set_holds(&walk->set->words, character_at(walk->text + begin - n, n))) return false;
    return end == walk->n_bytes ||
           !sp_code_set_holds(&walk->set->words, character_at(walk->text + end, walk->n_bytes - end));
}

static void take_spaces(const sp_section_walk *walk, const sp_added_token *token, sp_section *found) {
    for (int64_t n; token->lstrip && found->begin > walk->at; found->begin -= n) {
        n = bytes_before(walk->text, found->begin);
        if (n > found->begin - walk->at || !is_space(character_at(walk->text + found->begin - n, n))) break;
    }
    while (token->rstrip && found->end < walk->n_bytes) {
        const char *next = walk->text + found->end;
        if (!is_space(character_at(next, walk->n_bytes - found->end))) break;
        found->end += sp_utf8_next(next, walk->n_bytes - found->end);
    }
}

/* ---- searching ---- */

/* The longest token at `at`, NULL if none stands there; *end gets where it ends. */
static const sp_added_token *longest_at(const sp_section_walk *walk, int64_t at, int64_t *end) {
    const sp_added_tokens *set = walk->set;
    int32_t found = -1, place = 0;
    for (int64_t i = at; i < walk->n_bytes; i++) {
        place = find_child(set, place, (uint8_t)walk->text[i]);
        if (!place) break;
        if (set->nodes[place].token < 0) continue;
        found = set->nodes[place].token;
        *end = i + 1;
    }
    return found < 0 ? NULL : &set->tokens[found];
}

static bool find_token(sp_section_walk *walk, sp_section *found) {
    for (int64_t at = walk->search, end = at; at < walk->n_bytes;) {
        const sp_added_token *token = walk->set->first[(uint8_t)walk->text[at]] ? longest_at(walk, at, &end) : NULL;
        if (!token) {
            at++;
            continue;
        }
        *found = (sp_section){at, end, token->id};
        walk->search = at = end;
        if (token->special && !walk->special) continue;
        if (token->single_word && !stands_alone(walk, found->begin, found->end)) continue;
        take_spaces(walk, token, found);
        return true;
    }
    walk->search = walk->n_bytes;
    return false;
}

bool sp_section_next(sp_section_walk *walk, sp_section *section) {
    if (walk->holds) {
        *section = walk->held;
        walk->holds = false;
        return true;
    }
    sp_section found = {0};
    bool finds = walk->set && find_token(walk, &found);
    if (!finds) {
        *section = (sp_section){walk->at, walk->n_bytes, -1};
        walk->at = walk->n_bytes;
        return section->begin < section->end;
    }
    *section = found;
    if (walk->at < found.begin) {
        *section = (sp_section){walk->at, found.begin, -1};
        walk->held = found;
        walk->holds = true;
    }
    walk->at = found.end;
    return true;
}
