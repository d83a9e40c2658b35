//! Rendering of Hugging Face chat templates with the environment that transformers gives them: blocks trimmed, Python's
//! string methods, `tojson` spelled as Python's json.dumps, `raise_exception` and `strftime_now`.

use crate::{guard, text, Bytes};
use minijinja::value::{Kwargs, Value};
use minijinja::{context, Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io;

/// Separators of Python's json.dumps: `, ` and `: `.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn tojson(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut out = Vec::new();
    let result = match indent {
        Some(width) => {
            let spaces = vec![b' '; width];
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(&spaces)))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)),
    };
    result.map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from_safe_string(String::from_utf8(out).expect("serde_json writes UTF-8")))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> String {
    chrono::Local::now().format(&format).to_string()
}

fn describe(error: Error) -> String {
    let mut message = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    if let Some(line) = error.line() {
        message.push_str(&format!(" (line {line} of the chat template)"));
    }
    message
}

fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    // A template comes from a model folder: macros that call themselves end with an error.
    env.set_recursion_limit(200);
    env.add_template_owned("chat", source.to_string())?;
    Ok(env)
}

/// # Safety
/// As in `model/text.h`.
#[no_mangle]
pub unsafe extern "C" fn e3_chat_template_new(
    source: *const u8, len: usize, out: *mut *mut Environment<'static>, error: *mut Bytes,
) -> i32 {
    guard(error, || {
        *out = Box::into_raw(Box::new(environment(text(source, len)?).map_err(describe)?));
        Ok(())
    })
}

/// # Safety
/// `environment` came from `e3_chat_template_new` and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn e3_chat_template_free(environment: *mut Environment<'static>) {
    drop(Box::from_raw(environment));
}

/// Renders with the variables of the JSON object at `arguments` (messages, add_generation_prompt, bos_token, …).
///
/// # Safety
/// As in `model/text.h`.
#[no_mangle]
pub unsafe extern "C" fn e3_chat_template_render(
    environment: *const Environment<'static>, arguments: *const u8, len: usize, out: *mut Bytes, error: *mut Bytes,
) -> i32 {
    guard(error, || {
        let arguments: serde_json::Value = serde_json::from_str(text(arguments, len)?).map_err(|e| e.to_string())?;
        let template = (*environment).get_template("chat").map_err(describe)?;
        let rendered = template.render(context! { ..Value::from_serialize(&arguments) }).map_err(describe)?;
        *out = Bytes::from(rendered.into_bytes());
        Ok(())
    })
}
