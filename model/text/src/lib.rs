//! The C ABI of `model/text.h`: tokenizers (`tokenizers`), chat templates (`minijinja`) and rows of parquet files (`parquet`).
//!
//! Every function returns 0 on success and -1 on failure; on failure `*error` holds a message that the caller frees with
//! `e3_bytes_free`. Panics of the libraries below stop here and become errors.

mod chat_template;
mod parquet_rows;
mod tokenizer;

use std::panic::{catch_unwind, AssertUnwindSafe};

/// A buffer owned by this library and handed to C; freed by `e3_bytes_free`.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    len: usize,
}

/// Token ids owned by this library and handed to C; freed by `e3_ids_free`.
#[repr(C)]
pub struct Ids {
    data: *mut u32,
    len: usize,
}

impl From<Vec<u8>> for Bytes {
    fn from(v: Vec<u8>) -> Self {
        let boxed = v.into_boxed_slice();
        let len = boxed.len();
        Bytes { data: Box::into_raw(boxed) as *mut u8, len }
    }
}

impl From<Vec<u32>> for Ids {
    fn from(v: Vec<u32>) -> Self {
        let boxed = v.into_boxed_slice();
        let len = boxed.len();
        Ids { data: Box::into_raw(boxed) as *mut u32, len }
    }
}

/// # Safety
/// `bytes` came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn e3_bytes_free(bytes: Bytes) {
    if !bytes.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(bytes.data, bytes.len)));
    }
}

/// # Safety
/// `ids` came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn e3_ids_free(ids: Ids) {
    if !ids.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ids.data, ids.len)));
    }
}

pub(crate) type Result<T> = std::result::Result<T, String>;

/// Runs `body`, turning an error or a panic into `*error` and -1.
pub(crate) unsafe fn guard(error: *mut Bytes, body: impl FnOnce() -> Result<()>) -> i32 {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return 0,
        Ok(Err(message)) => message,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => format!("internal error: {text}"),
            None => match panic.downcast_ref::<String>() {
                Some(text) => format!("internal error: {text}"),
                None => "internal error".to_string(),
            },
        },
    };
    *error = Bytes::from(message.into_bytes());
    -1
}

/// The UTF-8 text at `data`; an error for anything that is not UTF-8.
pub(crate) unsafe fn text<'a>(data: *const u8, len: usize) -> Result<&'a str> {
    let bytes = if len == 0 { &[][..] } else { std::slice::from_raw_parts(data, len) };
    std::str::from_utf8(bytes).map_err(|e| format!("text is not UTF-8: {e}"))
}
