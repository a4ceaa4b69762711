//! Python objects to plan values and back, and how an object is shown in a message.
//!
//! Only types are told apart here; what is allowed is the plan's own business, so that one set of
//! rules, and of words, covers a wrong type and a wrong value.

use anabranch_core::plan::{Options, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyFloat, PyInt, PyString};

/// The most characters of a `repr` that a message shows.
const SHOWN: usize = 80;

/// What `object` is to a plan; anything it has no use for is [`Value::Other`].
///
/// # Errors
/// What a subclass of `timedelta` raises.
pub(crate) fn value(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    match object.cast::<PyDict>() {
        // One level deep: a dict may contain itself.
        Ok(dict) => Ok(Value::Options(options_by(dict, plain)?)),
        Err(_) => plain(object),
    }
}

/// The values of `dict`, by name.
///
/// # Errors
/// `TypeError` if a key is not a `str`.
pub(crate) fn options(dict: &Bound<'_, PyDict>) -> PyResult<Options> {
    options_by(dict, value)
}

fn options_by(
    dict: &Bound<'_, PyDict>,
    value: impl Fn(&Bound<'_, PyAny>) -> PyResult<Value>,
) -> PyResult<Options> {
    dict.iter()
        .map(|(key, object)| Ok((key.extract::<String>()?, value(&object)?)))
        .collect()
}

fn plain(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    // `bool` is a subclass of `int`, and never meant as one.
    Ok(if object.is_none() {
        Value::None
    } else if let Ok(flag) = object.cast::<PyBool>() {
        Value::Bool(flag.is_true())
    } else if object.is_instance_of::<PyInt>() {
        whole(object)?
    } else if object.is_instance_of::<PyFloat>() {
        Value::Float(object.extract()?)
    } else if object.is_instance_of::<PyDelta>() {
        Value::Seconds(object.call_method0("total_seconds")?.extract()?)
    } else if let Some(text) = text(object) {
        Value::Text(text.into())
    } else {
        Value::Other(kind(object))
    })
}

/// The integer; one too large for any rule of integers as a number, infinite if it is beyond all.
fn whole(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    Ok(match (object.extract(), object.extract()) {
        (Ok(number), _) => Value::Int(number),
        (_, Ok(number)) => Value::Float(number),
        _ if object.lt(0)? => Value::Float(f64::NEG_INFINITY),
        _ => Value::Float(f64::INFINITY),
    })
}

/// The text; `None` for one with lone surrogates, which no name, label or choice has.
fn text(object: &Bound<'_, PyAny>) -> Option<String> {
    object
        .cast::<PyString>()
        .ok()?
        .to_str()
        .ok()
        .map(str::to_owned)
}

/// `options` as a dict: durations are `float` seconds.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn dict<'py>(py: Python<'py>, options: &Options) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in options.iter() {
        match value {
            Value::None => dict.set_item(key, py.None()),
            Value::Bool(flag) => dict.set_item(key, flag),
            Value::Int(number) => dict.set_item(key, number),
            Value::Float(number) | Value::Seconds(number) => dict.set_item(key, number),
            Value::Text(text) => dict.set_item(key, text),
            Value::Other(kind) => dict.set_item(key, kind),
            Value::Options(options) => dict.set_item(key, self::dict(py, options)?),
        }?;
    }
    Ok(dict)
}

/// The object's `repr`, cut to what a message can bear.
pub(crate) fn shown(object: &Bound<'_, PyAny>) -> String {
    let Ok(text) = object.repr() else {
        return format!("<{} object>", kind(object));
    };
    let text = text.to_string_lossy();
    if text.chars().nth(SHOWN).is_none() {
        return text.into_owned();
    }
    text.chars().take(SHOWN - 3).chain("...".chars()).collect()
}

fn kind(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .qualname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn each<T>(
        table: impl IntoIterator<Item = (&'static CStr, T)>,
        test: impl Fn(Bound<'_, PyAny>, T),
    ) {
        Python::initialize();
        #[expect(clippy::disallowed_methods, reason = "a test is its own runtime")]
        Python::attach(|py| {
            let names = PyDict::new(py);
            py.run(c"from datetime import timedelta", Some(&names), None)
                .unwrap();
            for (code, expected) in table {
                test(py.eval(code, Some(&names), None).unwrap(), expected);
            }
        });
    }

    #[test]
    fn objects_become_values_by_type() {
        let policy = [
            ("kind", Value::from("fixed")),
            ("inner", Value::Other("dict".into())),
        ];
        let table = [
            (c"None", Value::None),
            (c"True", Value::Bool(true)),
            (c"3", Value::Int(3)),
            (c"2**127 - 1", Value::Int(i128::MAX)),
            (c"-2**200", Value::Float(-2_f64.powi(200))),
            (c"-10**400", Value::Float(f64::NEG_INFINITY)),
            (c"10**400", Value::Float(f64::INFINITY)),
            (c"0.5", Value::Float(0.5)),
            (c"timedelta(minutes=1)", Value::Seconds(60.0)),
            (c"'wait'", Value::from("wait")),
            (c"'\\ud800'", Value::Other("str".into())),
            (
                c"{'kind': 'fixed', 'inner': {}}",
                Value::Options(policy.into_iter().collect()),
            ),
            (c"b'wait'", Value::Other("bytes".into())),
        ];
        each(table, |object, expected| {
            assert_eq!(value(&object).unwrap(), expected);
        });
    }

    #[test]
    fn checked_values_come_back_as_they_went() {
        let table = [(
            c"{'a': None, 'b': True, 'c': 2**64 - 1, 'd': 0.5, 'e': 'x', 'f': {'g': 1}}",
            (),
        )];
        each(table, |object, ()| {
            let given = object.cast::<PyDict>().unwrap();
            let back = dict(object.py(), &options(given).unwrap()).unwrap();
            assert!(back.eq(given).unwrap());
        });
        each([(c"{1: 2}", ())], |object, ()| {
            assert!(options(object.cast::<PyDict>().unwrap()).is_err());
        });
    }

    #[test]
    fn messages_show_a_short_repr() {
        let broken = c"type('Broken', (), {'__repr__': None})()";
        let long = format!("'{}...", "a".repeat(76));
        let table = [
            (c"'it'", "'it'".to_owned()),
            (c"'a' * 100", long),
            (broken, "<Broken object>".to_owned()),
        ];
        each(table, |object, expected| {
            assert_eq!(shown(&object), expected);
        });
    }
}
