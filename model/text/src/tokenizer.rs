//! Encoding and decoding with a Hugging Face `tokenizer.json`.

use crate::{guard, text, Bytes, Ids};
use tokenizers::{DecoderWrapper, Tokenizer};

/// # Safety
/// `json` points at `len` bytes; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_new(json: *const u8, len: usize, out: *mut *mut Tokenizer, error: *mut Bytes) -> i32 {
    guard(error, || {
        let bytes = std::slice::from_raw_parts(json, len);
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
        // A tokenizer.json may carry the truncation and padding of its training run; neither belongs in a prompt.
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        *out = Box::into_raw(Box::new(tokenizer));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` came from `e3_tokenizer_new` and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_free(tokenizer: *mut Tokenizer) {
    drop(Box::from_raw(tokenizer));
}

/// # Safety
/// As in `model/text.h`.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_encode(
    tokenizer: *const Tokenizer, data: *const u8, len: usize, add_special_tokens: bool, out: *mut Ids, error: *mut Bytes,
) -> i32 {
    guard(error, || {
        let encoding = (*tokenizer).encode_fast(text(data, len)?, add_special_tokens).map_err(|e| e.to_string())?;
        *out = Ids::from(encoding.get_ids().to_vec());
        Ok(())
    })
}

/// # Safety
/// As in `model/text.h`.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_decode(
    tokenizer: *const Tokenizer, ids: *const u32, len: usize, skip_special_tokens: bool, out: *mut Bytes, error: *mut Bytes,
) -> i32 {
    guard(error, || {
        let ids = if len == 0 { &[][..] } else { std::slice::from_raw_parts(ids, len) };
        let decoded = (*tokenizer).decode(ids, skip_special_tokens).map_err(|e| e.to_string())?;
        *out = Bytes::from(decoded.into_bytes());
        Ok(())
    })
}

/// The character that byte-level tokenizers write for a byte (GPT-2's table, by construction).
fn byte_of(c: char) -> Option<u8> {
    let plain = |b: u32| (0x21..=0x7e).contains(&b) || (0xa1..=0xac).contains(&b) || (0xae..=0xff).contains(&b);
    let code = c as u32;
    if code < 256 {
        return plain(code).then_some(code as u8);
    }
    // The others follow each other from U+0100 on.
    (0..256u32).filter(|b| !plain(*b)).nth((code - 256) as usize).map(|b| b as u8)
}

fn token_bytes(tokenizer: &Tokenizer, id: u32) -> Result<Vec<u8>, String> {
    let token = tokenizer.id_to_token(id).ok_or_else(|| format!("there is no token {id}"))?;
    if tokenizer.get_added_vocabulary().simple_id_to_token(id).is_some() {
        return Ok(token.into_bytes());
    }
    if let Some(byte) = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')) {
        if let Ok(byte) = u8::from_str_radix(byte, 16) {
            return Ok(vec![byte]);
        }
    }
    if matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
        if let Some(bytes) = token.chars().map(byte_of).collect() {
            return Ok(bytes);
        }
    }
    tokenizer.decode(&[id], false).map(String::into_bytes).map_err(|e| e.to_string())
}

/// The bytes of one token, which need not be whole characters.
///
/// # Safety
/// As in `model/text.h`.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_token_bytes(tokenizer: *const Tokenizer, id: u32, out: *mut Bytes, error: *mut Bytes) -> i32 {
    guard(error, || {
        *out = Bytes::from(token_bytes(&*tokenizer, id)?);
        Ok(())
    })
}

/// The id of `token`, or -1 when the vocabulary has no such token.
///
/// # Safety
/// As in `model/text.h`.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_token_to_id(tokenizer: *const Tokenizer, data: *const u8, len: usize) -> i64 {
    match text(data, len) {
        Ok(token) => (*tokenizer).token_to_id(token).map_or(-1, i64::from),
        Err(_) => -1,
    }
}

/// Size of the vocabulary, added tokens included.
///
/// # Safety
/// `tokenizer` came from `e3_tokenizer_new`.
#[no_mangle]
pub unsafe extern "C" fn e3_tokenizer_vocab_size(tokenizer: *const Tokenizer) -> usize {
    (*tokenizer).get_vocab_size(true)
}
