/* The one C++ file: sentencepiece has no C interface.  Nothing but translation stands here. */
#include "text/sentencepiece_shim.h"

#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

struct sp_sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
    std::string source; /* for messages */
};

namespace {

/* Runs `body`, which returns sp_status; what it throws becomes a status too. */
template <typename Body> sp_status guarded(const char *what, Body body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return sp_fail(SP_OUT_OF_MEMORY, "%s: no memory", what);
    } catch (const std::exception &problem) {
        return sp_fail(SP_INTERNAL, "%s: sentencepiece failed: %s", what, problem.what());
    } catch (...) {
        return sp_fail(SP_INTERNAL, "%s: sentencepiece failed", what);
    }
}

/* A copy in memory of C, with a zero byte after it. */
template <typename T> T *copied(const void *data, size_t n_bytes) {
    char *copy = static_cast<char *>(std::malloc(n_bytes + 1));
    if (!copy) throw std::bad_alloc();
    if (n_bytes) std::memcpy(copy, data, n_bytes);
    copy[n_bytes] = 0;
    return reinterpret_cast<T *>(copy);
}

class Sentences : public sentencepiece::SentenceIterator {
  public:
    Sentences(sp_sentence_function next, void *user) : next_(next), user_(user) { Next(); }
    bool done() const override { return done_; }
    const std::string &value() const override { return value_; }
    sentencepiece::util::Status status() const override { return sentencepiece::util::Status(); }
    void Next() override {
        const char *text = nullptr;
        int64_t n_bytes = 0;
        problem_ = next_(user_, &text, &n_bytes);
        done_ = problem_ != SP_OK || !text;
        if (!done_) value_.assign(text, static_cast<size_t>(n_bytes));
    }
    sp_status problem() const { return problem_; }

  private:
    sp_sentence_function next_;
    void *user_;
    std::string value_;
    bool done_ = false;
    sp_status problem_ = SP_OK;
};

/* sentencepiece tells the possible vocabularies inside a longer sentence: the number after `mark`, or -1. */
long number_after(const std::string &message, const char *mark) {
    size_t at = message.find(mark);
    return at == std::string::npos ? -1 : std::atol(message.c_str() + at + std::strlen(mark));
}

sp_status training_failure(const std::string &message, int64_t vocabulary) {
    long largest = number_after(message, "set it to a value <= "), smallest = number_after(message, " vs ");
    if (largest > 0)
        return sp_fail(SP_BAD_ARGUMENT, "vocabulary %" PRId64 " is too large for this text: at most %ld", vocabulary,
                       largest);
    if (smallest > 0)
        return sp_fail(SP_BAD_ARGUMENT, "vocabulary %" PRId64 " is too small: this text needs at least %ld", vocabulary,
                       smallest);
    return sp_fail(SP_INTERNAL, "the tokenizer cannot be trained: %s", message.c_str());
}

/* As LLaMA's tokenizer: no normalization, spaces kept, digits alone, rare characters as bytes.  The number of
 * threads is a constant since the unigram trainer's sums depend on it and the model file records it: the same
 * text gives the same file on every machine. */
std::unordered_map<std::string, std::string> train_settings(const char *kind, int64_t vocabulary) {
    return {
        {"model_type", kind},
        {"vocab_size", std::to_string(vocabulary)},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"allow_whitespace_only_pieces", "true"},
        {"split_digits", "true"},
        {"byte_fallback", "true"},
        {"character_coverage", "0.99995"},
        {"max_sentence_length", "1000000000"},
        {"unk_id", "0"},
        {"bos_id", "1"},
        {"eos_id", "2"},
        {"pad_id", "-1"},
        {"num_threads", "8"},
        {"minloglevel", "3"},
    };
}

} /* namespace */

extern "C" {

sp_status sp_sentencepiece_open(sp_sentencepiece **out, const char *model, int64_t n_bytes, const char *source) {
    *out = nullptr;
    sp_sentencepiece *opened = nullptr;
    sp_status status = guarded(source, [&]() -> sp_status {
        opened = new sp_sentencepiece;
        opened->source = source;
        auto result = opened->processor.LoadFromSerializedProto({model, static_cast<size_t>(n_bytes)});
        SP_REQUIRE(result.ok(), SP_BAD_FILE, "%s: not a sentencepiece model", source);
        return SP_OK;
    });
    if (status == SP_OK)
        *out = opened;
    else
        delete opened;
    return status;
}

void sp_sentencepiece_free(sp_sentencepiece *model) { delete model; }

int64_t sp_sentencepiece_vocabulary(const sp_sentencepiece *model) { return model->processor.GetPieceSize(); }

int32_t sp_sentencepiece_bos(const sp_sentencepiece *model) { return model->processor.bos_id(); }

int32_t sp_sentencepiece_eos(const sp_sentencepiece *model) { return model->processor.eos_id(); }

const char *sp_sentencepiece_piece(const sp_sentencepiece *model, int32_t id) {
    return model->processor.IdToPiece(id).c_str();
}

bool sp_sentencepiece_is_byte(const sp_sentencepiece *model, int32_t id) { return model->processor.IsByte(id); }

sp_status sp_sentencepiece_encode(const sp_sentencepiece *model, const char *text, int64_t n_bytes, int32_t **tokens,
                                  int64_t *n_tokens) {
    *tokens = nullptr;
    return guarded("encoding", [&]() -> sp_status {
        std::vector<int> ids;
        auto result = model->processor.Encode({text, static_cast<size_t>(n_bytes)}, &ids);
        SP_REQUIRE(result.ok(), SP_BAD_FILE, "%s: a model that cannot encode: %s", model->source.c_str(),
                   result.error_message());
        *tokens = copied<int32_t>(ids.data(), ids.size() * sizeof(int32_t));
        *n_tokens = static_cast<int64_t>(ids.size());
        return SP_OK;
    });
}

sp_status sp_sentencepiece_decode(const sp_sentencepiece *model, const int32_t *tokens, int64_t n_tokens, char **text,
                                  int64_t *n_bytes) {
    *text = nullptr;
    return guarded("decoding", [&]() -> sp_status {
        std::vector<int> ids(tokens, tokens + n_tokens);
        std::string decoded;
        auto result = model->processor.Decode(ids, &decoded);
        SP_REQUIRE(result.ok(), SP_BAD_FILE, "%s: a model that cannot decode: %s", model->source.c_str(),
                   result.error_message());
        *text = copied<char>(decoded.data(), decoded.size());
        *n_bytes = static_cast<int64_t>(decoded.size());
        return SP_OK;
    });
}

sp_status sp_sentencepiece_train(char **model, int64_t *n_bytes, const char *kind, int64_t vocabulary,
                                 sp_sentence_function next, void *user) {
    *model = nullptr;
    return guarded("training a tokenizer", [&]() -> sp_status {
        Sentences sentences(next, user);
        std::string trained;
        auto result =
            sentencepiece::SentencePieceTrainer::Train(train_settings(kind, vocabulary), &sentences, &trained);
        if (sentences.problem() != SP_OK) return sentences.problem();
        if (!result.ok()) return training_failure(result.error_message(), vocabulary);
        *model = copied<char>(trained.data(), trained.size());
        *n_bytes = static_cast<int64_t>(trained.size());
        return SP_OK;
    });
}

} /* extern "C" */
