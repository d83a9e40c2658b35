//! Rows of parquet files as lines of JSON.

use crate::{guard, text, Bytes};
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use std::fs::File;

/// The rows of a file that have not been read.
pub struct ParquetRows {
    rows: RowIter<'static>,
}

/// # Safety
/// `path` is `len` bytes; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn e3_parquet_open(path: *const u8, len: usize, out: *mut *mut ParquetRows, error: *mut Bytes) -> i32 {
    guard(error, || {
        let file = File::open(text(path, len)?).map_err(|e| e.to_string())?;
        let reader = SerializedFileReader::new(file).map_err(|e| e.to_string())?;
        let rows = RowIter::from_file_into(Box::new(reader));
        *out = Box::into_raw(Box::new(ParquetRows { rows }));
        Ok(())
    })
}

/// # Safety
/// `rows` came from `e3_parquet_open` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn e3_parquet_free(rows: *mut ParquetRows) {
    drop(Box::from_raw(rows));
}

/// The next row as a JSON object; empty after the last.
///
/// # Safety
/// `rows` came from `e3_parquet_open`; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn e3_parquet_next(rows: *mut ParquetRows, out: *mut Bytes, error: *mut Bytes) -> i32 {
    guard(error, || {
        let line = match (*rows).rows.next() {
            None => String::new(),
            Some(row) => row.map_err(|e| e.to_string())?.to_json_value().to_string(),
        };
        *out = Bytes::from(line.into_bytes());
        Ok(())
    })
}
