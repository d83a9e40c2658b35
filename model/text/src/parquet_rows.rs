//! Rows of parquet files as lines of JSON.

use crate::{guard, text, Bytes, Result};
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};
use std::fs::File;

fn object<'a>(columns: impl Iterator<Item = (&'a String, &'a Field)>) -> Result<Value> {
    let mut map = Map::new();
    for (name, field) in columns {
        map.insert(name.clone(), value(field).map_err(|e| format!("{name}: {e}"))?);
    }
    Ok(Value::Object(map))
}

/// As the library has it, but for what it would change: bytes are text (or an error), and a number of 32 bits stays as short as it was.
fn value(field: &Field) -> Result<Value> {
    Ok(match field {
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(_) => return Err("bytes that are not UTF-8 text".to_string()),
        },
        Field::Float(number) => number.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        Field::Group(row) => object(row.get_column_iter())?,
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect::<Result<_>>()?),
        other => other.to_json_value(),
    })
}

fn row_value(row: &Row) -> Result<Value> {
    object(row.get_column_iter())
}

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
            Some(row) => row_value(&row.map_err(|e| e.to_string())?)?.to_string(),
        };
        *out = Bytes::from(line.into_bytes());
        Ok(())
    })
}
