// The C ABI of the Rust crate in model/text/ (see its lib.rs). Used only by tokenizer.cc,
// chat_template.cc and tasks/records.cc.
//
// Functions return 0, or -1 with a message in *error that the caller frees. All are thread-safe on
// a shared handle.
#ifndef E3_MODEL_TEXT_H_
#define E3_MODEL_TEXT_H_

#include <cstddef>
#include <cstdint>

extern "C" {

struct E3Bytes {
  uint8_t* data;
  size_t len;
};
struct E3Ids {
  uint32_t* data;
  size_t len;
};
void e3_bytes_free(E3Bytes bytes);
void e3_ids_free(E3Ids ids);

struct E3Tokenizer;
int e3_tokenizer_new(const uint8_t* json, size_t len, E3Tokenizer** out, E3Bytes* error);
void e3_tokenizer_free(E3Tokenizer* tokenizer);
int e3_tokenizer_encode(const E3Tokenizer* tokenizer, const uint8_t* text, size_t len,
                        bool add_special_tokens, E3Ids* out, E3Bytes* error);
int e3_tokenizer_decode(const E3Tokenizer* tokenizer, const uint32_t* ids, size_t len,
                        bool skip_special_tokens, E3Bytes* out, E3Bytes* error);
int e3_tokenizer_token_bytes(const E3Tokenizer* tokenizer, uint32_t id, E3Bytes* out,
                             E3Bytes* error);
int64_t e3_tokenizer_token_to_id(const E3Tokenizer* tokenizer, const uint8_t* token, size_t len);
size_t e3_tokenizer_vocab_size(const E3Tokenizer* tokenizer);

// Not thread-safe. Rows come as JSON objects; an empty one ends the file.
struct E3ParquetRows;
int e3_parquet_open(const uint8_t* path, size_t len, E3ParquetRows** out, E3Bytes* error);
void e3_parquet_free(E3ParquetRows* rows);
int e3_parquet_next(E3ParquetRows* rows, E3Bytes* out, E3Bytes* error);

struct E3ChatTemplate;
int e3_chat_template_new(const uint8_t* source, size_t len, E3ChatTemplate** out, E3Bytes* error);
void e3_chat_template_free(E3ChatTemplate* chat_template);
int e3_chat_template_render(const E3ChatTemplate* chat_template, const uint8_t* arguments_json,
                            size_t len, E3Bytes* out, E3Bytes* error);
}

#endif  // E3_MODEL_TEXT_H_
