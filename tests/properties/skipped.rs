//! What the reader of reviews passes over 64 bytes at a time, wherever in them it stands.

use reach::inject::json::{Raw, from_str};
use serde::de::IgnoredAny;

/// A mapping with a string of more than two blocks that has these pieces at these places.
fn mapping(pieces: &[(usize, &str)]) -> String {
    let mut text = "a".repeat(180);
    for (at, piece) in pieces {
        text.replace_range(at..&(at + piece.len()), piece);
    }
    format!("{{\"text\":\"{text}\"}}")
}

/// Each two places of which the second one is in the same block or the next.
fn places() -> impl Iterator<Item = (usize, usize)> {
    (0..70).flat_map(|first| (first + 4..first + 100).map(move |second| (first, second)))
}

#[test]
fn an_escaped_quote_ends_no_string() {
    for (first, second) in places() {
        let text = format!("[{},{{\"b\":[]}}]", mapping(&[(first, r#"\"]"#), (second, r#"\"]"#)]));
        let whole = format!("[{text},true]");
        let (raw, last): (Raw<'_>, bool) =
            from_str(&whole).unwrap_or_else(|error| panic!("{whole}: {error}"));
        assert_eq!((raw.0, last), (&*text, true));
        let (IgnoredAny, last): (IgnoredAny, bool) = from_str(&whole).expect("it was read before");
        assert!(last);
    }
}

#[test]
fn a_control_character_is_in_no_string() {
    for (first, second) in places() {
        for control in ["\n", "\0", "\x1f"] {
            let whole = format!("[{},true]", mapping(&[(first, control), (second, control)]));
            assert!(from_str::<(IgnoredAny, bool)>(&whole).is_err(), "{whole:?}");
            assert!(from_str::<(Raw<'_>, bool)>(&whole).is_err(), "{whole:?}");
        }
    }
    // The last one that is none.
    let whole = format!("[{},true]", mapping(&[(3, "\x20"), (19, "\x7f")]));
    assert!(from_str::<(IgnoredAny, bool)>(&whole).is_ok());
}

#[test]
fn only_what_is_inside_of_something_is_nested() {
    let lists = format!("[{}]", vec!["[[null],{}]"; 1000].join(","));
    let read: serde_json::Value = from_str(&lists).expect("lists");
    assert_eq!(read, serde_json::from_str::<serde_json::Value>(&lists).expect("lists"));
}
