//! Edited documents: never a panic, and the text that comes out says what the operation makes of the values that went in.
//!
//! The first three bytes say where, which operation, and with which value; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reach::manifest::{self, Operation};
use serde_json::{Value, json};

/// The pointers of everything in a value, as far as there is room.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    if found.len() == 256 {
        return;
    }
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                pointers(field, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn value(number: u8) -> Value {
    let values = [
        json!("text"),
        json!({"path": "/etc/reach/proxy.env", "content": "# a\nb: 'c'\n\n  d\n"}),
        json!(["a", {"b": [], "c": {}}, null]),
        json!("yes"),
        json!(" a: b #c\n"),
        json!(-1.5e300),
        json!(""),
        json!({"": {"~": "/"}, "on": "0o17", "\u{85}": "\u{2028}\u{feff}"}),
    ];
    values[usize::from(number) % values.len()].clone()
}

fuzz_target!(|bytes: &[u8]| {
    let [place, kind, new, text @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    for document in manifest::documents(text) {
        let Ok(Some(before)) = document.read() else { continue };
        let mut found = Vec::new();
        pointers(&before, "", &mut found);
        let pointer = &found[usize::from(*place) % found.len()];
        let at = before.pointer(pointer).expect("it was found there");
        let operation = match kind % 4 {
            0 => Operation::replace(pointer.as_str(), value(*new)),
            1 if !pointer.is_empty() => Operation::remove(pointer.as_str()),
            2 if at.is_array() => Operation::add(format!("{pointer}/-"), value(*new)),
            _ if at.is_array() => Operation::add(format!("{pointer}/0"), value(*new)),
            _ if at.is_object() => Operation::add(format!("{pointer}/reach"), value(*new)),
            _ => Operation::add(pointer.as_str(), value(*new)),
        };
        let Ok(edited) = document.edit(std::slice::from_ref(&operation)) else { continue };
        let patch: json_patch::Patch =
            serde_json::from_value(json!([operation])).expect("an operation is RFC 6902");
        let mut expected = before;
        json_patch::patch(&mut expected, &patch).expect("it applies to the value too");
        let documents = manifest::documents(&edited.text);
        let read: Vec<Value> = documents
            .iter()
            .filter_map(|document| document.read().expect("what is written can be read"))
            .collect();
        let expected: Vec<Value> = Some(expected).filter(|value| !value.is_null()).into_iter().collect();
        assert_eq!(read, expected, "the text says what was asked for");
    }
});
